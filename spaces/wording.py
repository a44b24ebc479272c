"""How ranges and settings are written for people: in plans, in reports and in verdicts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from spaces.axes import Axis, ChoiceAxis, FractionAxis, IntAxis, label


def range_text(axis: Axis) -> str:
    """What an axis ranges over: "0.01 to 1, log", "2, 4 or 8", "0.1 to 0.5 of vpt.num_prompts"."""
    if isinstance(axis, ChoiceAxis):
        return any_of(axis.options)
    low, high = axis.bounds
    text = f"{number_text(low)} to {number_text(high)}"
    if isinstance(axis, FractionAxis):
        return f"{text} of {axis.of}"
    # of whole numbers each is meant where no other step is given
    is_given = axis.step is not None and not (isinstance(axis, IntAxis) and axis.step == 1)
    step = f", step {number_text(axis.step or 0)}" if is_given else ""
    return f"{text}{', log' if axis.log else ''}{step}"


def condition_text(axis: Axis) -> str:
    """When an axis is active: "methods: tcpa; tcpa.gate: soft or hard"; "": always."""
    return "; ".join(f"{path}: {any_of(values)}" for path, values in axis.when.items())


def any_of(values: Sequence[Any]) -> str:
    """Values as a list for a reader."""
    *first, last = map(label, values)
    return f"{', '.join(first)} or {last}" if first else last


def number_text(value: float) -> str:
    """A number without needless digits: "1" for 1.0; none that tells it from others is lost."""
    short = f"{value:g}"
    return short if float(short) == value else str(value)


def setting_text(settings: Mapping[str, Any]) -> str:
    """Settings by dotted path as "vpt, lr 0.026, 20 prompts"; numbers have three digits.

    A setting is called by the last part of its path, and by all of it where two would be called
    the same.
    """
    short = {path: path.rpartition(".")[2] for path in settings}
    number = Counter(short.values())
    return ", ".join(
        _one(path if number[name] > 1 else name, settings[path])
        for path, name in short.items()
        if settings[path] is not None
    )


def _one(name: str, value: Any) -> str:
    if name == "methods":
        return " + ".join(value) if isinstance(value, (list, tuple)) else str(value)
    if isinstance(value, float):
        value = f"{value:.3g}"
    if name.startswith("num_"):
        return f"{value} {name.removeprefix('num_').replace('_', ' ')}"
    return f"{name} {label(value)}"
