"""Read axes and constraints.

    PATH: {float: [LOW, HIGH], log: true, step: S}       log and step exclude each other
    PATH: {int: [LOW, HIGH], log: true, step: S}
    PATH: {choice: [VALUE, ...]}
    PATH: {fraction_of: PATH, range: [LOW, HIGH]}        shares in (0, 1] of a count

Each may have `when: {PATH: VALUE or [VALUES], ...}`; `methods: NAME` there means that the chain of
methods contains NAME.
"""

import math
from collections.abc import Mapping
from typing import Any

from spaces.axes import Axis, ChoiceAxis, FloatAxis, FractionAxis, IntAxis, is_numeric
from spaces.constraints import Relation, parse_relation
from spaces.reader import Document
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

_OPTIONS = {
    "float": ("log", "step", "when"),
    "int": ("log", "step", "when"),
    "choice": ("when",),
    "fraction_of": ("range", "when"),
}


def read_axis(path: str, entry: Entry, document: Document) -> Axis:
    """Read one axis; how it fits to other axes is checked by `check_axes`.

    Raises:
        ConfigError: Not one of the four kinds, or values that the setting cannot take.
    """
    spec, place = entry.value, entry.place
    kinds = [kind for kind in _OPTIONS if isinstance(spec, Mapping) and kind in spec]
    if len(kinds) != 1:
        raise ConfigError(
            f"axis {path} must have exactly one of {', '.join(_OPTIONS)}, got {spec!r} ({place})."
        )
    kind = kinds[0]
    for key in spec:
        if key not in (kind, *_OPTIONS[kind]):
            known = closed_set(key, _OPTIONS[kind])
            raise ConfigError(
                f"axis {path} of kind {kind} has no option {key!r} "
                f"({document.place(*entry.keys, key)}){known}"
            )
    when = _read_when(path, entry, document)
    match kind:
        case "choice":
            return ChoiceAxis(options=_options(path, entry), when=when)
        case "fraction_of":
            low, high = _range(path, spec.get("range"), place)
            if not 0 < low <= high <= 1:
                raise ConfigError(
                    f"axis {path}: range must be shares in (0, 1], got {[low, high]} ({place})."
                )
            check_value(path, 1, place)
            return FractionAxis(
                of=str(spec["fraction_of"]), low=float(low), high=float(high), when=when
            )
        case "int":
            return _int_axis(path, spec, when, place)
    return _float_axis(path, spec, when, place)


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
        ConfigError: Not a list of relations, or a side that is no number that can be bounded.
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
        if narrowed and not _binds(sides, axes, base):
            continue
        for path in sides:
            _check_side(path, relation, axes, base, place)
        if not any(path in axes for path in sides):
            raise ConfigError(f"constraint '{relation.text}' names no axis ({place}).")
        relations.append(relation)
    return relations


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


def _options(path: str, entry: Entry) -> tuple[Any, ...]:
    raw = entry.value["choice"]
    if not isinstance(raw, list) or not raw:
        raise ConfigError(
            f"axis {path}: choice must be a list of values, got {raw!r} ({entry.place})."
        )
    options = [read_setting(path, entry._replace(value=value)) for value in raw]
    for index, option in enumerate(options):
        if option in options[:index]:
            raise ConfigError(f"axis {path}: choice lists {option!r} twice ({entry.place}).")
    return tuple(options)


def _range(path: str, raw: Any, place: str) -> tuple[float, float]:
    numbers = isinstance(raw, list) and all(type(v) in (int, float) for v in raw)
    if not numbers or len(raw) != 2 or not all(map(math.isfinite, raw)):
        raise ConfigError(f"axis {path} needs a range of two numbers, got {raw!r} ({place}).")
    low, high = raw
    if low > high:
        raise ConfigError(f"axis {path}: low must be <= high, got {raw!r} ({place}).")
    return low, high


def _int_axis(path: str, spec: Mapping[str, Any], when: Any, place: str) -> IntAxis:
    low, high = _range(path, spec["int"], place)
    step = spec.get("step", 1)
    if type(low) is not int or type(high) is not int:
        raise ConfigError(f"axis {path}: int needs whole numbers, got {spec['int']} ({place}).")
    if type(step) is not int or step < 1:
        raise ConfigError(f"axis {path}: step must be a whole number >= 1, got {step!r} ({place}).")
    if (high - low) % step:
        last = high - (high - low) % step
        raise ConfigError(
            f"axis {path}: steps of {step} from {low} do not end at {high} ({place}); "
            f"use [{low}, {last}] or [{low}, {last + step}]."
        )
    _check_ends(path, (low, high), place)
    return IntAxis(low=low, high=high, step=step, log=_log(path, spec, low, place), when=when)


def _float_axis(path: str, spec: Mapping[str, Any], when: Any, place: str) -> FloatAxis:
    low, high = map(float, _range(path, spec["float"], place))
    step = spec.get("step")
    if step is not None:
        if type(step) not in (int, float) or not 0 < step < math.inf:
            raise ConfigError(f"axis {path}: step must be a number > 0, got {step!r} ({place}).")
        count = (high - low) / step
        if abs(count - round(count)) > 1e-6:
            raise ConfigError(
                f"axis {path}: steps of {step} from {low} do not end at {high} ({place}); "
                f"use high {low + step * math.floor(count):.6g}."
            )
        step = float(step)
    _check_ends(path, (low, high), place)
    return FloatAxis(low=low, high=high, step=step, log=_log(path, spec, low, place), when=when)


def _check_ends(path: str, ends: tuple[float, float], place: str) -> None:
    for end in ends:
        check_value(path, end, place)


def _log(path: str, spec: Mapping[str, Any], low: float, place: str) -> bool:
    log = spec.get("log", False)
    if type(log) is not bool:
        raise ConfigError(f"axis {path}: log must be true or false, got {log!r} ({place}).")
    if log and "step" in spec:
        raise ConfigError(f"axis {path}: log and step exclude each other ({place}).")
    if log and low <= 0:
        raise ConfigError(f"axis {path}: a log axis must start above 0, got {low} ({place}).")
    return log


def _check_condition(
    path: str, other: str, allowed: tuple[Any, ...], axes: Mapping[str, Axis], place: str
) -> None:
    axis = axes.get(other)
    if axis is None or other == "methods":
        return
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
