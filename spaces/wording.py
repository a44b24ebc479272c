"""How ranges and settings are written for people: in plans, in reports and in verdicts.

Only `changed_settings` loads the settings of methods, and torch with them.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from spaces.axes import Axis, ChoiceAxis, FractionAxis, IntAxis, label
from spaces.factor_designs import FactorDesign
from spaces.row_designs import RowDesign
from spaces.setting_values import default
from spaces.space import Space
from tcpa_core.config import Flat

_AXIS: TypeAdapter[Axis] = TypeAdapter(Axis)
_OF_TRAINING = (
    "train.epochs", "train.batch_size", "optim.name", "optim.lr", "optim.weight_decay",
    "optim.schedule", "train.precision",
)  # fmt: skip
"""Settings of `training_text`, in its order."""
_WHICH = ("backbone.name", "backbone.tag", "backbone.weights", "data.name", "data.root")
_SPELLED = {
    "optim.name": {"adamw": "AdamW", "sgd": "SGD"},
    "train.precision": {"auto": "bf16 on a GPU, fp32 on a CPU"},
}
"""Values that are written otherwise than they are set."""


@dataclass(frozen=True, slots=True)
class Searched:
    """Something that a space varies."""

    path: str
    """A setting by dotted path; of a design of rows, the name of a row."""
    text: str
    """What it ranges over: "0.0005 to 0.02, log"."""
    when: str = ""
    """Under which condition: "methods: tcpa"; "": always."""


def searched(space: Space) -> list[Searched]:
    """What a space varies: its axes, or the factors or rows of its ablation, and its data sets."""
    design = space.ablation
    if design is None:
        axes = space.axes.items()
        return [Searched(path, range_text(axis), condition_text(axis)) for path, axis in axes]
    found = []
    if isinstance(design, FactorDesign):
        for path, levels in design.factors.items():
            text = f"{any_of(levels)} (baseline {label(design.baseline[path])})"
            found.append(Searched(path, text))
    elif isinstance(design, RowDesign):
        found += [Searched(name, _changes(row)) for name, row in design.rows.items()]
    sets = design.datasets.items()
    return found + [Searched(f"data set {name}", _changes(of_it)) for name, of_it in sets]


def _changes(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} {label(value)}" for path, value in settings.items()) or "the base"


def axis_text(stored: Mapping[str, Any]) -> str:
    """A range with its condition: "0.01 to 1, log (where methods: vpt)".

    Args:
        stored: The axis as a study's record has it; one of another version is told as it stands.
    """
    try:
        axis = _AXIS.validate_json(json.dumps(dict(stored)))  # where lists stand for tuples
    except ValidationError:
        return ", ".join(f"{key} {value}" for key, value in stored.items())
    when = condition_text(axis)
    return f"{range_text(axis)}{f' (where {when})' if when else ''}"


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


def by_reason(reasons: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Why trials failed and which ones, the most frequent reason first.

    Reasons that differ in numbers only are one, in the words of the first.

    Args:
        reasons: Name of a trial and its reason; "": none was recorded.
    """
    texts: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for name, text in reasons:
        kind = "".join(c for c in text if not c.isdigit())
        texts.setdefault(kind, text.strip() or "no reason was recorded")
        found.setdefault(kind, []).append(name)
    return sorted(((texts[k], names) for k, names in found.items()), key=lambda one: -len(one[1]))


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
    # "data" for "data.name": of the name of a section the section says more
    short = {path: path.removesuffix(".name").rpartition(".")[2] for path in settings}
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


def training_text(params: Mapping[str, Any], varied: Collection[str] = ()) -> str:
    """How a trial is trained: "20 epochs, batch 64, AdamW, lr 0.001, weight decay 0.01, ...".

    Args:
        params: All settings of a trial, by dotted path.
        varied: Settings that differ among the trials: they are left out.
    """
    parts = {path: params[path] for path in _OF_TRAINING if path in params and path not in varied}
    return ", ".join(_of_training(path, value) for path, value in parts.items())


def _of_training(path: str, value: Any) -> str:
    match path:
        case "train.epochs":
            return f"{value} epoch{'s' * (value != 1)}"
        case "train.batch_size":
            return f"batch {value}"
        case "optim.lr" | "optim.weight_decay":
            return f"{path.partition('.')[2].replace('_', ' ')} {value:.3g}"
    return _SPELLED.get(path, {}).get(value, str(value))


def changed_settings(base: Mapping[str, Any]) -> Flat:
    """Settings that differ from the defaults, but for those that name backbone and data and those
    that `training_text` tells.

    Args:
        base: Fixed settings of a space, by dotted path.
    """
    told = {*_OF_TRAINING, *_WHICH, "methods", "protocol", "seed"}
    return {p: value for p, value in base.items() if p not in told and value != default(p)}
