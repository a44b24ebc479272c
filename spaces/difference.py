"""In what two spaces differ, place by place, as a user would say it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from spaces.constraints import parse_relation
from spaces.space import Space
from tcpa_core.config import ADDED

ABSENT = "not given"


class Difference(NamedTuple):
    """One place where two spaces differ."""

    place: str
    """Dotted path of a setting or an axis, or of a key of the space such as "budget.trials"."""
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.place}: {self.before} -> {self.now}"


def differences(before: Space, now: Space) -> list[Difference]:
    """Where two spaces ask for other trials, or for others in another way.

    The name and the cluster are no part of it, nor are spelling and order of constraints. A setting
    that one space states and the other leaves out counts only if the trials of the other have
    another value.
    """
    old, new = _places(before), _places(now)
    found = []
    for place in dict.fromkeys((*old, *new)):
        if place in old and place in new:
            is_same = old[place] == new[place]
        else:
            stated, other = (old, now) if place in old else (new, before)
            is_same = _is_implied(place, stated[place], other)
        if not is_same:
            texts = [_text(each[place]) if place in each else ABSENT for each in (old, new)]
            found.append(Difference(place, *texts))
    return found


class _Fixed(NamedTuple):
    """Value of a setting that does not vary, to be told from an axis."""

    value: Any


def _places(space: Space) -> dict[str, Any]:
    """What a space says, as JSON has it: settings and axes by path, all else by key."""
    said: dict[str, Any] = json.loads(json.dumps(space.as_dict()))
    said.pop("cluster", None)
    del said["name"]
    places: dict[str, Any] = {path: _Fixed(value) for path, value in said.pop("base").items()}
    places |= said.pop("axes", {})
    relations = [parse_relation(text, space.place) for text in said.pop("constraints", ())]
    signs = {True: "<", False: "<="}
    places["constraints"] = sorted(f"{r.lower} {signs[r.strict]} {r.upper}" for r in relations)
    return places | dict(_flat(said))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_implied(place: str, stated: Any, other: Space) -> bool:
    """Whether all trials of a space that does not state a setting have this value of it."""
    if not isinstance(stated, _Fixed):
        # A row of a design, from trials recorded before the setting was there.
        return any(place.endswith(f".{path}") and stated == was for path, was in ADDED.items())
    flats = [config.flat() for config in other.trials]
    found = [flat[place] for flat in flats if place in flat]
    return bool(found) and all(value == stated.value for value in found)


def _text(value: Any) -> str:
    """A value as it stands in YAML, on one line."""
    match value:
        case _Fixed():
            return _text(value.value)
        case dict():
            return "{" + ", ".join(f"{key}: {_text(part)}" for key, part in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_text, value)) + "]"
        case str():
            return value
    return json.dumps(value)
