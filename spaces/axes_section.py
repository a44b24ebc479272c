"""Read the section `axes`, and check what axes say about each other and about their settings."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from spaces.axes import KINDS, Axis, ChoiceAxis, FractionAxis, IntAxis, kind_of
from spaces.reader import Document
from spaces.refusal import build
from spaces.setting_values import (
    Entry,
    check_path,
    check_value,
    closed_set,
    default,
    flatten,
    methods,
    read_setting,
)
from tcpa_core.config import Flat
from tcpa_core.errors import ConfigError

_AXIS: TypeAdapter[Axis] = TypeAdapter(Axis)


def read_axis(path: str, entry: Entry, document: Document) -> Axis:
    """Read one axis; how it fits to other axes is checked by `check_axes`.

    Raises:
        ConfigError: Not one of the four kinds, or values that the setting cannot take.
    """
    kind, place = kind_of(entry.value), entry.place
    if kind is None:
        raise ConfigError(
            f"axis {path} must have exactly one of {', '.join(KINDS)}, got {entry.value!r} "
            f"({place})."
        )
    spec = dict(entry.value)
    options = options_of(kind)
    for key in spec:
        if key not in (kind, *options):
            raise ConfigError(
                f"axis {path} of kind {kind} has no option {key!r} "
                f"({document.place(*entry.keys, key)}){closed_set(key, options)}"
            )
    spec["when"] = _read_when(path, entry, document)
    if kind == "choice" and isinstance(spec[kind], list):
        # Read one by one, as each may be a relative file name, or a number to be a float.
        spec[kind] = [read_setting(path, entry._replace(value=value)) for value in spec[kind]]
    axis = build(_AXIS, spec, f"axis {path}: ", document, entry.keys)
    if isinstance(axis, FractionAxis):
        check_value(path, 1, place)  # the only count that is known here
    elif not isinstance(axis, ChoiceAxis):
        for end in axis.ends():
            check_value(path, end, place)
    return axis


def options_of(kind: str) -> list[str]:
    """What an axis of this kind may have beside the key of its kind."""
    fields = KINDS[kind].model_fields.items()
    return sorted({field.alias or name for name, field in fields} - {kind})


def check_axes(axes: Mapping[str, Axis], base: Flat, places: Mapping[str, str]) -> None:
    """Check what axes say about each other.

    Raises:
        ConfigError: A condition that no value fulfils by its kind, or a fraction of no count.
    """
    for path, axis in axes.items():
        for other, allowed in axis.when.items():
            _check_condition(path, other, allowed, axes, places[path])
        if isinstance(axis, FractionAxis):
            _check_pool(path, axis.of, axes, base, places[path])


def _read_when(path: str, entry: Entry, document: Document) -> dict[str, tuple[Any, ...]]:
    conditions = flatten(document, *entry.keys, "when")
    when = {}
    for other, condition in conditions.items():
        raw = condition.value
        allowed = raw if isinstance(raw, list) else [raw]
        if not allowed:
            raise ConfigError(f"axis {path}: when {other} lists no value ({condition.place}).")
        if other == "methods":
            for name in allowed:
                if not isinstance(name, str) or name not in methods():
                    known = closed_set(str(name), methods())
                    raise ConfigError(
                        f"axis {path}: when methods must name methods, got {name!r} "
                        f"({condition.place}){known}"
                    )
            when[other] = tuple(allowed)
        else:
            when[other] = tuple(check_value(other, v, condition.place) for v in allowed)
    return when


def _check_condition(
    path: str, other: str, allowed: tuple[Any, ...], axes: Mapping[str, Axis], place: str
) -> None:
    axis = axes.get(other)
    # Chains contain a name or not; names were checked where the condition was read.
    if axis is None or other == "methods":
        return
    # A real number is never drawn exactly, and a count by its share depends on the point.
    if not isinstance(axis, ChoiceAxis | IntAxis):
        raise ConfigError(
            f"axis {path}: when cannot depend on {other}, whose values are not fixed ({place}); "
            "only choice and int axes, or settings of the base."
        )
    for value in allowed:
        if not axis.contains(value):
            values = list(axis.options) if isinstance(axis, ChoiceAxis) else [axis.low, axis.high]
            raise ConfigError(
                f"axis {path}: when {other} is {value!r} never happens, its axis has {values} "
                f"({place})."
            )


def _check_pool(path: str, of: str, axes: Mapping[str, Axis], base: Flat, place: str) -> None:
    check_path(of, place)
    axis = axes.get(of)
    if isinstance(axis, FractionAxis):  # counts of their own, never below 1
        return
    pools = [base.get(of, default(of))] if axis is None else axis.ends()
    for pool in pools:
        if type(pool) is not int or pool < 1:
            raise ConfigError(
                f"axis {path}: fraction_of needs an integer setting of at least 1; {of} can be "
                f"{pool!r} ({place})."
            )
