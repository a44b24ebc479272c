"""Every setting with its values, default and meaning, read from the classes that hold them.

`tcpa settings` prints it and docs/settings.md holds it; the meaning is the text under the field.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from spaces.axes import label
from spaces.sections import Budget, Cluster, Objective, SamplerConfig, SchedulerConfig
from tcpa_core import plugins
from tcpa_core.config import METHODS, method_config, sections, task_config
from tcpa_core.errors import ConfigError
from tcpa_core.hints import nearest_setting
from tcpa_core.settings import TASKS

STUDY_SECTIONS: Mapping[str, type[BaseModel]] = {
    "objective": Objective,
    "sampler": SamplerConfig,
    "scheduler": SchedulerConfig,
    "budget": Budget,
    "cluster": Cluster,
}
"""Sections of a space file that are about the study, not about one trial."""

_INTRODUCTION = """# Settings

Made by `tcpa settings --markdown`, and held to the code by a test. `tcpa settings optim.lr`,
`tcpa settings vpt` and `tcpa settings '*.init'` print parts of it. Paths are the same in a space
file (`base`, `axes`, `first_points`, `ablation`), in `--set`, in MLflow and as columns of tables.
The keys around them are explained in [spaces.md](spaces.md), the methods in
[methods.md](methods.md).
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as a reader looks it up."""

    path: str
    values: str
    """What it takes: a type with bounds, or the possible words."""
    default: str
    meaning: str


def settings(pattern: str = "*") -> list[Setting]:
    """Settings whose path fits, in the order of the code.

    Args:
        pattern: A path, a section (`vpt`), or a pattern with * and ?.

    Raises:
        ConfigError: None fits.
    """
    known = [setting for section in _by_section().values() for setting in section]
    found = [s for s in known if _fits(s.path, pattern)]
    if not found:
        near = nearest_setting(pattern, [s.path for s in known])
        raise ConfigError(f"no setting {pattern!r}{near}; 'tcpa settings' lists all.")
    return found


def markdown() -> str:
    """The whole reference as docs/settings.md."""
    parts = [_INTRODUCTION]
    for title, entries in _by_section().items():
        rows = "\n".join(
            "| "
            + " | ".join((f"`{s.path}`", *map(_escaped, (s.values, s.default, s.meaning))))
            + " |"
            for s in entries
        )
        parts.append(
            f"## {title}\n\n| setting | values | default | meaning |\n|---|---|---|---|\n{rows}\n"
        )
    return "\n".join(parts)


def _fits(path: str, pattern: str) -> bool:
    return pattern in (path, path.partition(".")[0]) or fnmatch(path, pattern)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


@cache
def _by_section() -> Mapping[str, list[Setting]]:
    models = sections()
    found = {name: list(_read(model, name)) for name, model in models.items() if name}
    found |= {f"{name} (study)": list(_read(m, name)) for name, m in STUDY_SECTIONS.items()}
    for name in plugins.names(TASKS):
        if task_config(name).model_fields:
            found[f"{name} (task)"] = list(_read(task_config(name), name))
    for name in plugins.names(METHODS):
        if method_config(name).model_fields:
            found[f"{name} (method)"] = list(_read(method_config(name), name))
    return {"trial": list(_read(models[""], "")), **found}


def _read(model: type[BaseModel], section: str) -> Iterator[Setting]:
    meanings = _docstrings(model)
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        path = f"{section}.{name}" if section else name
        yield Setting(path, _values(field), _shown(field.get_default()), meanings.get(name, ""))


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The text under each field of a class and its bases, in one line and in YAML's words."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if cls in (object, BaseModel) or not issubclass(cls, BaseModel):
            continue
        # Python keeps no text under a field; it stands in the source only.
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for line, following in zip(tree.body, tree.body[1:], strict=False):
            match line, following:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = re.sub(r"\bNone\b", "null", " ".join(text.split()))
    return found


def _values(field: FieldInfo) -> str:
    kinds = (
        get_args(field.annotation)
        if get_origin(field.annotation) not in (None, Literal, tuple)
        else (field.annotation,)
    )
    bounds = _bounds(field.metadata)
    return ", ".join(_kind(kind, bounds) for kind in kinds)


def _kind(kind: Any, bounds: str) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{label(value)}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {_kind(get_args(kind)[0], '')}"
    if get_origin(kind) is dict:
        return "mapping"
    names = {bool: "`true`, `false`", int: "int", float: "float", str: "text", NoneType: "`null`"}
    return names[kind] + (f" {bounds}" if kind in (int, float) and bounds else "")


def _bounds(marks: list[Any]) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {getattr(mark, name):g}"
        for mark in marks
        for name, sign in signs.items()
        if hasattr(mark, name)
    ]
    return " and ".join(found)


def _shown(value: object) -> str:
    return (
        f"`[{', '.join(map(label, value))}]`" if isinstance(value, tuple) else f"`{label(value)}`"
    )
