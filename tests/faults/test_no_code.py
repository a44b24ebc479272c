"""Nothing that is read can run: no pickle in any spelling and no evaluated text in our sources."""

import ast
import functools
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcpa_core.data._pickles import read_values
from tcpa_core.errors import DataError

ROOT = Path(__file__).parents[2]
PACKAGES = ("tcpa_core", "spaces", "search", "reports")

MODULES = {
    "pickle", "_pickle", "cPickle", "pickle5", "pickletools", "cloudpickle", "ray.cloudpickle",
    "dill", "joblib", "shelve", "marshal", "jsonpickle", "torch.package", "torch.hub",
}  # fmt: skip
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.jit.load",
    "torch.export.load", "torch.hub.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
    "yaml.unsafe_load_all", "yaml.full_load_all", "pandas.read_pickle", "pandas.eval",
}  # fmt: skip
ATTRIBUTES = {
    "to_pickle", "read_pickle", "UnsafeLoader", "FullLoader", "Unpickler", "Pickler",
    "unsafe_load", "cloudpickle",
}  # fmt: skip
NEEDED = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
"""Functions that are safe with one argument only."""
NEVER = {"shell": True, "allow_pickle": True, "weights_only": False}
"""Arguments that no call may have."""
RESTRICTED = {
    # reads back what this very process wrote a moment ago, before it is given away
    "tcpa_core/exports/program.py": {"torch.export.load"},
    "tcpa_core/data/_pickles.py": {"pickle", "Unpickler"},
    "tcpa_core/model/read_tensors.py": {"pickletools"},
}
"""Files that take pickles apart and run nothing of them: CIFAR's by an unpickler that finds
stand-ins of ours only, those of torch by pickletools, which lists operations and does none."""
SAFE_LOADERS = ("SafeLoader", "CSafeLoader", "BaseLoader")


def findings(source: str) -> Iterator[str]:
    """What could run something that it reads, by line."""
    tree = ast.parse(source)
    names = aliases(tree)
    safe = safe_loaders(tree, names)
    for node in ast.walk(tree):
        found: set[str] = set()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = {name for name in imported(node) if forbidden(name)}
        elif isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            found = {node.attr}
        elif isinstance(node, ast.Call):
            found = set(wrong_call(node, names, safe))
        yield from (f"line {getattr(node, 'lineno', 0)}: {text}" for text in found)


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    for alias in node.names:
        if isinstance(node, ast.Import):
            yield alias.name
        else:
            yield f"{node.module}.{alias.name}"


def forbidden(name: str) -> bool:
    """Whether a name is a forbidden module, lies in one, or is a forbidden function."""
    parts = name.split(".")
    whole = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    return bool(whole & MODULES) or name in CALLS or parts[-1] in ATTRIBUTES


def aliases(tree: ast.AST) -> dict[str, str]:
    """What local names stand for: {"np": "numpy", "load": "torch.load"}."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return known


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    first, _, rest = ast.unparse(node).partition(".")
    return f"{names.get(first, first)}{'.' if rest else ''}{rest}"


def safe_loaders(tree: ast.AST, names: dict[str, str]) -> set[str]:
    """YAML's safe loaders and the classes of the file that are made from them."""
    found = {f"yaml.{name}" for name in SAFE_LOADERS}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            if {dotted(base, names) for base in node.bases} & found:
                found.add(node.name)
    return found


def wrong_call(node: ast.Call, names: dict[str, str], safe: set[str]) -> Iterator[str]:
    name = dotted(node.func, names)
    keywords = {k.arg: k.value for k in node.keywords if k.arg}
    constants = {k: v.value for k, v in keywords.items() if isinstance(v, ast.Constant)}
    if name in CALLS:
        yield name
    if name in NEEDED and constants.get(NEEDED[name][0]) is not NEEDED[name][1]:
        yield f"{name} without {NEEDED[name][0]}={NEEDED[name][1]}"
    if name == "yaml.load":
        loader = keywords.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
        if loader is None or dotted(loader, names) not in safe:
            yield "yaml.load without a safe loader"
    for argument, value in NEVER.items():
        if constants.get(argument) is value:
            yield f"{argument}={value}"
    if name in ("importlib.import_module", "getattr"):
        texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
        yield from (str(t) for t in texts if isinstance(t, str) and forbidden(t))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "from pickle import load as read",
        "import _pickle",
        "import cloudpickle",
        "from ray import cloudpickle",
        "import ray.cloudpickle as rcp",
        "import dill",
        "import joblib",
        "from joblib import load",
        "import shelve",
        "import marshal",
        "import importlib\nimportlib.import_module('pickle')",
        "from importlib import import_module\nimport_module('dill')",
        "__import__('pickle')",
        "getattr(ray, 'cloudpickle')",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch as t\nt.load(path)",
        "from torch import load\nload(path)",
        "import torch\ntorch.load(path, weights_only=flag)",
        "import torch\ntorch.jit.load(path)",
        "import torch\ntorch.hub.load('a', 'b')",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "from numpy import load as read\nread(path)",
        "import numpy as np\nnp.save(path, x, allow_pickle=True)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "import yaml\nyaml.load(text, Loader=yaml.FullLoader)",
        "import yaml\nyaml.unsafe_load(text)",
        "from yaml import full_load\nfull_load(text)",
        "import pandas as pd\npd.read_pickle(path)",
        "frame.to_pickle(path)",
        "eval(text)",
        "exec(text)",
        "compile(text, 'x', 'exec')",
        "import os\nos.system(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
    ],
)
def test_every_spelling_is_found(source: str) -> None:
    assert list(findings(source))


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile('a')",
        "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)",
        "import yaml\nclass Reader(yaml.SafeLoader): pass\nyaml.load(text, Reader)",
        "import subprocess\nsubprocess.run(['git', 'describe'])",
        "import json\njson.load(file)",
        "model.eval()",
    ],
)
def test_what_is_safe_is_let_through(source: str) -> None:
    assert not list(findings(source))


@pytest.mark.parametrize("package", PACKAGES)
def test_our_sources_run_nothing_that_they_read(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    wrong = [
        f"{name}, {text}"
        for path in paths
        for name in [path.relative_to(ROOT).as_posix()]
        for text in findings(path.read_text())
        if text.partition(": ")[2] not in RESTRICTED.get(name, ())
    ]
    assert not wrong, "\n".join(wrong)


class Calls:
    """Pickled as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "call",
    [
        lambda mark: Calls(os.system, f"touch {mark}"),
        lambda mark: Calls(eval, f"open({mark!r}, 'w')"),
        lambda mark: Calls(open, mark, "w"),
        lambda mark: Calls(getattr, Calls(__import__, "os"), "system"),
        lambda mark: Calls(functools.partial, os.mkdir, mark),
        lambda mark: Calls(np.load, mark),
        lambda mark: Calls(np.savetxt, mark, [1.0]),
    ],
)
def test_the_unpickler_of_cifar_calls_nothing(
    tmp_path: Path, call: Callable[[str], Calls], protocol: int
) -> None:
    mark, file = tmp_path / "mark", tmp_path / "data_batch_1"
    content = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [call(str(mark))]}
    file.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(DataError, match="data_batch_1"):
        read_values(file)
    assert not mark.exists()
