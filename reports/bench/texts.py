"""A bench in Markdown and LaTeX: the main tables as a paper prints them, and pairs of methods."""

from collections.abc import Iterator, Mapping, Sequence

from reports.bench.shown import ABOUT, MainTable
from reports.bench.tables import BenchTables
from reports.labels import Row, is_missing
from reports.page.markup import escape_markdown, escape_tex, tex_cell

WIDE = 9
"""Columns from which a LaTeX table is as wide as the text and its heads stand upright."""
PAIRS = (
    "Row against column: data sets on which it is better, neither is, and worse (paired t test at "
    "5 % after Holm over the data sets), then the chance that a run of it beats a run of the other "
    "(rliable's probability of improvement, with a 95 % bootstrap interval over seeds)."
)


def to_markdown(tables: BenchTables, shown: Sequence[MainTable]) -> str:
    """All tables as Markdown."""
    parts = [_main_markdown(one) for one in shown]
    for one in shown:
        grid = pair_grid(tables, one.backbone, one.metric)
        if len(grid) > 1:
            lines = [f"**{escape_markdown(one.title)}: row against column**", ""]
            lines.append("| | " + " | ".join(map(escape_markdown, grid)) + " |")
            lines.append("|---|" + "---|" * len(grid))
            for method, cells in grid.items():
                lines.append(f"| {escape_markdown(method)} | "
                             + " | ".join(map(escape_markdown, cells)) + " |")  # fmt: skip
            parts.append("\n".join(lines))
    gaps = [escape_markdown(text) for text in missing(tables)]
    parts += ["Missing:\n\n" + "\n".join(f"- {text}" for text in gaps)] if gaps else []
    notes = [escape_markdown(note) for note in tables.notes]
    parts += ["\n".join(f"- {note}" for note in notes)] if notes else []
    return "\n\n".join([*parts, ABOUT, PAIRS]) + "\n"


def _main_markdown(one: MainTable) -> str:
    heads = [
        f"{head.group}: {head.name}" if head.group and head.is_mean else head.name
        for head in one.heads
    ]
    lines = [f"**{escape_markdown(one.title)} (%)**", ""]
    lines.append("| | " + " | ".join(map(escape_markdown, heads)) + " |")
    lines.append("|---|" + "--:|" * len(heads))
    for name, cells, places in zip(one.names, one.cells, one.places, strict=True):
        marks = [{1: "**{}**", 2: "<u>{}</u>"}.get(place, "{}") for place in places]
        texts = [m.format(escape_markdown(c)) for m, c in zip(marks, cells, strict=True)]
        lines.append(f"| {escape_markdown(name)} | " + " | ".join(texts) + " |")
    for name, cells in one.published:
        texts = [f"*{escape_markdown(cell)}*" if cell else "" for cell in cells]
        lines.append(f"| *{escape_markdown(name)}* | " + " | ".join(texts) + " |")
    return "\n".join([*lines, *(f"\n{escape_markdown(note)}" for note in one.notes)])


def to_latex(tables: BenchTables, shown: Sequence[MainTable]) -> str:
    """The main tables as booktabs; needs the packages booktabs, graphicx and xcolor."""
    gaps = list(missing(tables))
    lacks = [f"Missing: {'; '.join(gaps)}."] if gaps else []
    parts = ["\n".join(_main_latex(one, lacks)) for one in shown]
    head = "% \\usepackage{booktabs,graphicx,xcolor}\n% " + ABOUT.replace("%", "percent") + "\n"
    return head + "\n\n\\bigskip\n".join(parts) + "\n" if parts else head


def _main_latex(one: MainTable, lacks: Sequence[str]) -> Iterator[str]:
    is_wide = len(one.heads) >= WIDE
    names = [escape_tex(head.name) for head in one.heads]
    if is_wide:
        names = [rf"\rotatebox{{90}}{{{name}}}" for name in names]
    fit = r"\setlength{\tabcolsep}{3pt}\resizebox{\linewidth}{!}{%" if is_wide else ""
    yield rf"{{\noindent{fit}"
    yield rf"\begin{{tabular}}{{@{{}}l{'r' * len(names)}@{{}}}}"
    yield r"\toprule"
    if any(head.group for head in one.heads):
        spans = [rf"\multicolumn{{{n}}}{{c}}{{{escape_tex(name)}}}" for name, n in one.groups()]
        yield " & ".join(["", *spans]) + r" \\"
        yield from _rules(one)
    yield " & ".join([escape_tex(one.title), *names]) + r" \\"
    yield r"\midrule"
    for name, cells, places in zip(one.names, one.cells, one.places, strict=True):
        marks = [{1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(place, "%s") for place in places]
        texts = [mark % tex_cell(cell) for mark, cell in zip(marks, cells, strict=True)]
        yield " & ".join([escape_tex(name), *texts]) + r" \\"
    if one.published:
        yield r"\midrule"
    for name, cells in one.published:
        grey = (rf"\textcolor{{gray}}{{{escape_tex(t)}}}" if t else "" for t in (name, *cells))
        yield " & ".join(grey) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}}" + "}" * is_wide
    for note in (*one.notes, *lacks):
        yield rf"\par\noindent{{\footnotesize {escape_tex(note)}}}"


def _rules(one: MainTable) -> Iterator[str]:
    """Rules below the heads of groups."""
    at, rules = 2, []
    for name, n in one.groups():
        if name:
            rules.append(rf"\cmidrule(lr){{{at}-{at + n - 1}}}")
        at += n
    yield "".join(rules)


def pair_grid(tables: BenchTables, backbone: str, metric: str) -> Mapping[str, list[str]]:
    """By method its cells against every method, in the same order."""
    rows = tables.of("wins", backbone, metric).to_dict("records")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = {(row["method"], row["other"]): _pair(row) for row in rows}
    return {m: [found.get((m, other), "") for other in methods] for m in methods}


def _pair(row: Row) -> str:
    """ "3/2/0, 81 % [74, 88]" """
    text = f"{row['wins']}/{row['ties']}/{row['losses']}"
    if is_missing(row["improvement"]):
        return text
    low, high = (100 * row[f"improvement_{end}"] for end in ("low", "high"))
    return f"{text}, {100 * row['improvement']:.0f} % [{low:.0f}, {high:.0f}]"


def missing(tables: BenchTables) -> Iterator[str]:
    """What is not there, one cell or one row of them a sentence."""
    cells = tables.frames["cells"]
    for (backbone, method, why), part in cells[cells["missing"] != ""].groupby(
        ["backbone", "method", "missing"], sort=False
    ):
        on = f" over {backbone}" if len(tables.backbones) > 1 else ""
        yield f"{method} on {', '.join(part['dataset'])}{on}: {why}"
