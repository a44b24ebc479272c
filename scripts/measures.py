"""How heavy the code is: a table of measures, of this checkout or beside another revision.

    python -m scripts.measures                  of the files here
    python -m scripts.measures --against REV    a column for REV, one for here

What is counted is Python of the four packages; tests, benchmarks and scripts are left out. With
--list the places behind each number are named.
"""

import argparse
import ast
import io
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("tcpa_core", "spaces", "search", "reports")
PLUGINS = ("tcpa_core/methods", "tcpa_core/data", "tcpa_core/protocols", "reports/plots",
           "search/proposals/samplers", "search/tune/schedulers")  # fmt: skip
LONG_CLASS, LONG_MODULE, MANY_PARAMETERS = 200, 400, 6
TRIAL_NAMES = {"Proposal", "Planned", "Job", "Trial", "_Job", "Member", "TrialProgress", "Seat"}
"""Classes that stand for one trial on its way from a proposal into a pack."""
READS = {"events", "read_journal", "decode_line"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Measures:
    """The places behind each measure; most are counted."""

    long_classes: list[str] = field(default_factory=list)
    long_modules: list[str] = field(default_factory=list)
    folds: list[str] = field(default_factory=list)
    """Functions that go through journal events with a loop of their own."""
    parsers: list[str] = field(default_factory=list)
    """Functions that take a journal line apart themselves."""
    trial_names: list[str] = field(default_factory=list)
    circles: list[str] = field(default_factory=list)
    many_parameters: list[str] = field(default_factory=list)
    central_lists: list[str] = field(default_factory=list)
    """Literals that name at least three plug-ins of one kind."""
    sibling_imports: list[str] = field(default_factory=list)
    """Plug-ins that import a plug-in of their kind."""
    arrows: list[str] = field(default_factory=list)
    """Chapters (or files, where there are none) of search/ that import another."""
    num_any: int = 0
    """`Any` in annotations of parameters and results."""
    num_comments: int = 0
    num_code_lines: int = 0


def measure(root: Path) -> Measures:
    """Measure a checkout."""
    files = {
        str(path.relative_to(root)): path.read_text()
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    trees = {name: ast.parse(text) for name, text in files.items()}
    found = Measures()
    graph = {name: _imports(tree, files) for name, tree in trees.items()}
    plugins = {
        folder: {p.stem for p in (root / folder).glob("[!_]*.py")} - {"base"} for folder in PLUGINS
    }
    for name, text in files.items():
        _measure_text(found, name, text)
        _measure_tree(found, name, trees[name], plugins)
    found.circles = _circles(graph)
    for name, imported in graph.items():
        siblings = {file for file in imported if Path(file).parent == Path(name).parent}
        if _is_plugin(name, plugins):
            found.sibling_imports += [f"{name} -> {s}" for s in siblings if _is_plugin(s, plugins)]
    found.arrows = sorted({
        f"{_chapter(name)} -> {_chapter(other)}"
        for name, imported in graph.items()
        for other in imported
        if name.startswith("search/") and other.startswith("search/")
        and _chapter(name) != _chapter(other)
    })  # fmt: skip
    return found


def _measure_text(found: Measures, name: str, text: str) -> None:
    lines = text.count("\n")
    if lines > LONG_MODULE:
        found.long_modules.append(f"{name} {lines}")
    code: set[int] = set()
    comments: set[int] = set()
    marks = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in marks and not _is_docstring(token):
            code.update(range(token.start[0], token.end[0] + 1))
    found.num_comments += len(comments - code)
    found.num_code_lines += len(code)


def _is_docstring(token: tokenize.TokenInfo) -> bool:
    return token.type == tokenize.STRING and token.line.lstrip().startswith(('"""', 'r"""'))


def _measure_tree(
    found: Measures, name: str, tree: ast.Module, plugins: Mapping[str, set[str]]
) -> None:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef():
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONG_CLASS:
                    found.long_classes.append(f"{name}:{node.name} {lines}")
                if node.name in TRIAL_NAMES:
                    found.trial_names.append(f"{name}:{node.name}")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                _measure_function(found, f"{name}:{node.name}", node)
            case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
                words = {i.value for i in items if isinstance(i, ast.Constant)}
                if any(len(words & known) >= 3 for known in plugins.values()):
                    found.central_lists.append(f"{name}:{node.lineno}")


def _measure_function(found: Measures, place: str, node: Function) -> None:
    given = node.args
    parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    extra = [one for one in (given.vararg, given.kwarg) if one]
    notes = [one.annotation for one in (*parameters, *extra)] + [node.returns]
    found.num_any += sum(ast.unparse(note).count("Any") for note in notes if note)
    own = [one for one in (*parameters, *extra) if one.arg not in ("self", "cls")]
    if len(own) > MANY_PARAMETERS:
        found.many_parameters.append(f"{place} {len(own)}")
    loops = [n.iter for n in ast.walk(node) if isinstance(n, ast.For | ast.comprehension)]
    if any(_reads_journal(loop) for loop in loops):
        found.folds.append(place)
    calls = {_called(n) for n in ast.walk(node) if isinstance(n, ast.Call)}
    if "checked_body" in calls:
        found.parsers.append(place)


def _reads_journal(loop: ast.expr) -> bool:
    return any(isinstance(n, ast.Call) and _called(n) in READS for n in ast.walk(loop))


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _imports(tree: ast.Module, files: Mapping[str, str]) -> set[str]:
    """Files that a file imports when it is loaded."""
    found = set()
    for node in _loaded(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {file for name in names if (file := f"{name.replace('.', '/')}.py") in files}
    return found


def _loaded(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes outside of functions and of what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        only_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not only_types and not isinstance(node, Function):
            yield node
            yield from _loaded(node)


def _circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Files from which imports lead back to themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += graph[name]
        return seen

    return [name for name in graph if name in reached(name)]


def _chapter(file: str) -> str:
    parts = Path(file).parts
    return parts[1] if len(parts) > 2 else Path(file).stem


def _is_plugin(file: str, plugins: Mapping[str, set[str]]) -> bool:
    path = Path(file)
    return path.stem in plugins.get(str(path.parent), set())


def _per_100(found: Measures) -> float:
    return round(100 * found.num_comments / found.num_code_lines, 1)


ROWS: Mapping[str, tuple[Callable[[Measures], Any], str]] = {
    f"classes above {LONG_CLASS} lines": (lambda m: m.long_classes, "0"),
    f"modules above {LONG_MODULE} lines": (lambda m: m.long_modules, "2"),
    "functions that fold journal events": (lambda m: m.folds, "1"),
    "functions that parse a journal line": (lambda m: m.parsers, "1"),
    "classes that stand for one trial on its way": (lambda m: m.trial_names, "3"),
    "files in import circles": (lambda m: m.circles, "0"),
    "arrows between chapters of search/": (lambda m: m.arrows, "25"),
    "own-line comments per 100 code lines": (_per_100, "3 to 6"),
    "Any in signatures": (lambda m: m.num_any, "< 150"),
    f"functions with more than {MANY_PARAMETERS} parameters": (lambda m: m.many_parameters, "4"),
    "central lists of plug-ins": (lambda m: m.central_lists, "0"),
    "plug-ins that import a sibling": (lambda m: m.sibling_imports, "0"),
}


def table(columns: Mapping[str, Measures]) -> str:
    """The measures as Markdown."""
    lines = [["", *columns, "aim"], ["---"] * (len(columns) + 2)]
    for title, (value, aim) in ROWS.items():
        found = [value(one) for one in columns.values()]
        shown = [str(len(v)) if isinstance(v, list) else str(v) for v in found]
        lines.append([title, *shown, aim])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def at(revision: str) -> Measures:
    """Measure another revision."""
    command = ["git", "archive", revision, *PACKAGES]
    archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        return measure(Path(folder))


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="How heavy the code is.")
    parser.add_argument("--against", metavar="REV", help="a column for this revision, too")
    parser.add_argument("--list", action="store_true", help="name the places")
    options = parser.parse_args()
    columns = {options.against: at(options.against)} if options.against else {}
    here = columns["here"] = measure(ROOT)
    print(table(columns))
    for title, (value, _) in ROWS.items() if options.list else ():
        found = value(here)
        for place in found if isinstance(found, list) else ():
            print(f"{title}: {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
