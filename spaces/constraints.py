"""Relations between numbers, such as `tcpa.top_k_image <= tcpa.num_image_prompts`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from spaces.axes import Axis, is_numeric
from spaces.reader import Document
from spaces.setting_values import check_path
from tcpa_core.config import Flat
from tcpa_core.errors import ConfigError

_PATH = r"[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*"
_NUMBER = r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
# All that a constraint can be: nothing in a space file is ever evaluated as code.
_RELATION = re.compile(rf"\s*({_PATH})\s*(<=|<|>=|>)\s*({_PATH}|{_NUMBER})\s*")

Side = str | float


@dataclass(frozen=True, slots=True)
class Relation:
    """lower <= upper, or lower < upper if strict. A side is a dotted path or a number."""

    lower: Side
    upper: Side
    strict: bool
    text: str

    def paths(self) -> tuple[str, ...]:
        return tuple(side for side in (self.lower, self.upper) if isinstance(side, str))


def parse_relation(text: object, place: str) -> Relation:
    """Read "PATH OP PATH" or "PATH OP NUMBER", OP one of <=, <, >=, >.

    Raises:
        ConfigError: Anything else; nothing is ever evaluated.
    """
    match = _RELATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(
            f"a constraint must read 'PATH <= PATH' or 'PATH <= NUMBER' (also <, >=, >), got "
            f"{text!r} ({place})."
        )
    left, operator, right = match.groups()
    other: Side = right if re.fullmatch(_PATH, right) else float(right)
    strict = "=" not in operator
    lower, upper = (left, other) if operator.startswith("<") else (other, left)
    return Relation(lower, upper, strict, match.group().strip())


def read_constraints(
    document: Document, axes: Mapping[str, Axis], base: Flat, *, narrowed: bool
) -> list[Relation]:
    """Read `constraints`.

    Args:
        document: The file.
        axes: Axes left after overrides.
        base: Fixed settings, overrides included.
        narrowed: Overrides were given, so that a constraint may have lost its axes; it is left out.

    Raises:
        ConfigError: Not a list of relations, or a side that cannot be bounded.
    """
    raw = document.data.get("constraints") or []
    if not isinstance(raw, list):
        raise ConfigError(
            f"constraints must be a list of texts, got {raw!r} ({document.place('constraints')})."
        )
    relations = []
    for index, text in enumerate(raw):
        place = document.place("constraints", index)
        relation = parse_relation(text, place)
        sides = relation.paths()
        for path in sides:
            check_path(path, place)
        # Overrides may have fixed both sides, or dropped the method of one: nothing is left to
        # bound.
        if narrowed and not _binds(sides, axes, base):
            continue
        for path in sides:
            _check_side(path, relation, axes, base, place)
        if not any(path in axes for path in sides):
            raise ConfigError(f"constraint '{relation.text}' names no axis ({place}).")
        relations.append(relation)
    return relations


def _binds(sides: tuple[str, ...], axes: Mapping[str, Axis], base: Flat) -> bool:
    known = all(path in axes or path in base for path in sides)
    return known and any(path in axes for path in sides)


def _check_side(
    path: str, relation: Relation, axes: Mapping[str, Axis], base: Flat, place: str
) -> None:
    axis = axes.get(path)
    if axis is not None and not is_numeric(axis):
        raise ConfigError(
            f"constraint '{relation.text}': {path} is a choice or fraction, which no sampler can "
            f"bound ({place}); make it an int or float axis, or use fraction_of."
        )
    if axis is None and type(base.get(path)) not in (int, float):
        raise ConfigError(
            f"constraint '{relation.text}': {path} is neither an axis nor a number in base "
            f"({place}); add it to one of them."
        )
