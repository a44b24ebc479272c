"""What a study will cost, from trials on record or from a probe of a few steps.

The seconds of an epoch are known by backbone, method chain, batch size and data. They are those of
one device; trials that share it divide its time, so their sum is the time that the device is used.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.tune.schedulers.base import can_stop, scheduler_class
from spaces.axes import label
from spaces.space import Space
from tcpa_core.config import Flat
from tcpa_core.errors import RecordError
from tcpa_core.record import files
from tcpa_core.record.events import Ended, Planned, Reused, Started, decode_line

Kind = tuple[Any, ...]
"""What the seconds of an epoch depend on."""

_KIND = (
    "backbone.name",
    "backbone.tag",
    "backbone.img_size",
    "data.name",
    "data.root",
    "train.batch_size",
    "methods",
)
DATA_PLACES = (_KIND.index("data.name"), _KIND.index("data.root"))
"""Where a kind has the data set."""
_EPOCH_MARK = b'"kind":"epoch"'
_MARK_WITHIN = 64
"""Bytes in which the driver writes a line's number, time and kind."""
_TAIL = 10
"""The interval leaves out one trial in this many at either end."""


@dataclass(slots=True)
class Rates:
    """Seconds per epoch of earlier trials."""

    seconds: dict[Kind, list[float]] = field(default_factory=lambda: defaultdict(list))
    device: str = "cpu"
    """Of the latest trial: "cpu", the model of its GPU, or "cuda" where that was not recorded.
    Trials on others are left out."""
    are_probed: bool = False


def kind_of(params: Flat) -> Kind:
    """What the cost of a trial's epochs depends on."""
    return tuple(label(params.get(path)) for path in _KIND)


def recorded(root: Path) -> Rates:
    """Seconds per epoch of all trials below a studies folder; damaged journals are passed over."""
    found: list[tuple[float, str, Kind, float]] = []
    for path in sorted(root.glob(f"*/{files.JOURNAL}")):
        with suppress(RecordError, OSError, KeyError):  # KeyError: it lacks lines
            found += _read(path)
    rates = Rates(device=max(found)[1] if found else "cpu")
    # Seconds on other hardware say nothing of this one.
    for _, device, kind, seconds in found:
        if device == rates.device:
            rates.seconds[kind].append(seconds)
    return rates


def probed(
    space: Space,
    measure: Callable[[Flat], tuple[float, str]],
    progress: Callable[[str, int, int], None] | None = None,
) -> Rates:
    """Seconds per epoch of one trial of every kind in a space, each trained for a few steps."""
    rates = Rates(are_probed=True)
    samples = _samples(space)
    for number, (kind, params) in enumerate(samples.items()):
        if progress:
            progress("probe methods", number, len(samples))
        seconds, rates.device = measure(params)
        rates.seconds[kind].append(seconds)
    return rates


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of one device that a study will take: of a GPU, or of a core."""

    seconds: float
    """With the epochs that the scheduler is meant to leave, where that is known."""
    low: float
    """Trials are as fast as on record at best, and each is stopped as soon as it can be."""
    high: float
    """As slow as on record at worst, and none is stopped."""
    num_known: int
    """Trials from which it is told."""


def estimate(space: Space, num_trials: int | None, rates: Rates) -> Estimate | None:
    """The time that a study will take; None: not known, or as long as its budget allows."""
    if num_trials is None:
        return None
    epochs = _epochs(space, num_trials)
    if _unknown(epochs, rates):
        return None
    middle, low, high = 0.0, 0.0, 0.0
    num_known = 0
    for kind, count in epochs.items():
        ordered = sorted(rates.seconds[kind])
        tail = len(ordered) // _TAIL
        num_known += len(ordered)
        middle += count * sum(ordered) / len(ordered)
        low += count * ordered[tail]
        high += count * ordered[-1 - tail]
    expected, least = trained_shares(space)
    return Estimate(expected * middle, least * low, high, num_known)


def trained_shares(space: Space) -> tuple[float, float]:
    """Of all epochs of a search, those that are trained as the scheduler is meant to stop trials
    (1 where that is not known), and if it stops each as soon as it can."""
    if not can_stop(space.objective):
        return 1.0, 1.0
    scheduler, most = scheduler_class(space.scheduler.name), space.most_epochs
    expected = scheduler.expected(space.scheduler, most)
    least = scheduler.least(space.scheduler, most)
    return (most if expected is None else expected) / most, least / most


def _unknown(epochs: Mapping[Kind, float], rates: Rates) -> list[str]:
    """Chains of methods of which nothing is known."""
    return sorted({kind[-1] for kind in epochs if not rates.seconds.get(kind)})


def describe(space: Space, num_trials: int | None, rates: Rates) -> str:
    """A sentence on the time that a study will take, with an interval where it can be given."""
    if num_trials is None:
        return "until the time budget is used up (no number of trials given)"
    found = estimate(space, num_trials, rates)
    if found is None:
        unknown = _unknown(_epochs(space, num_trials), rates)
        return (
            f"not known: no earlier trial of {', '.join(unknown)} with this backbone, data and "
            "batch size; 'tcpa plan --probe' trains a few steps of each"
        )
    middle, low, high, num_known = found.seconds, found.low, found.high, found.num_known
    known = "one earlier trial" if num_known == 1 else f"{num_known} earlier trials"
    if rates.are_probed:
        known = "a few steps of each method"
    interval = f" ({hours_text(low)} to {hours_text(high)})" if high > low else ""
    if rates.device != "cpu":
        model = "GPU" if rates.device == "cuda" else rates.device
        return f"about {hours_text(middle)}{interval} of one {model}, from {known}"
    # On cores trials run side by side; those on a GPU share its time.
    workers = max(1, min(os.cpu_count() or 1, num_trials))
    return (
        f"about {hours_text(middle / workers)} on {workers} cores; {hours_text(middle)}{interval} "
        f"of one core, from {known}"
    )


def _read(path: Path) -> list[tuple[float, str, Kind, float]]:
    """When each trial of a journal ended, its device, its kind and its seconds per epoch."""
    kinds: dict[str, Kind] = {}
    models: dict[str, str] = {}
    """Of the device on which each trial was started last."""
    found = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            # Most lines are epochs, and none is needed: passed over before they are parsed.
            if _EPOCH_MARK in line[:_MARK_WITHIN] or not line.endswith(b"\n"):
                continue
            event = decode_line(line, f"{path}:{number}")
            if isinstance(event, Planned):
                kinds[event.trial] = kind_of(event.params)
            elif isinstance(event, Reused):  # told where it was trained, perhaps on other hardware
                del kinds[event.trial]
            elif isinstance(event, Started) and event.hardware:
                models[event.trial] = str(event.hardware.get("name", ""))
            elif isinstance(event, Ended) and event.kind != "failed" and event.result.num_epochs:
                if event.trial not in kinds:
                    continue
                seconds = event.result.duration_s / event.result.num_epochs
                device = event.result.device.split(":")[0]
                if device != "cpu":
                    device = models.get(event.trial) or device
                found.append((event.t, device, kinds[event.trial], seconds))
    return found


def _samples(space: Space) -> dict[Kind, Flat]:
    """One trial of every kind in a space."""
    samples: dict[Kind, Flat] = {}
    for config in space.trials:
        params = config.flat()
        samples.setdefault(kind_of(params), params)
    return samples


def _epochs(space: Space, num_trials: int) -> Mapping[Kind, float]:
    """Epochs of each kind: exact for a design; a search is taken to spend evenly."""
    if space.ablation is not None:
        exact: Counter[Kind] = Counter()
        for config in space.trials:
            exact[kind_of(config.flat())] += config.train.epochs
        return exact
    kinds: Sequence[Kind] = list(_samples(space))
    return {kind: num_trials / len(kinds) * space.most_epochs for kind in kinds}


def hours_text(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
