"""Where a study stands, in plain values: the live view, `tcpa status` and its JSON say the same."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from search.study.outline import Outline
from search.verbs.pace import Pace
from spaces.selection import Results, Standing
from spaces.wording import by_reason, setting_text
from tcpa_core.record.events import Planned
from tcpa_core.record.state import StudyState, TrialState

SHOWN = 3
"""Trials that a reason of failures names."""


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """A trial that runs, or that its driver left."""

    name: str
    state: TrialState
    settings: str
    device: str
    """"cuda:0"; "": not known."""
    host: str

    @property
    def epochs_text(self) -> str:
        """ "2/20"."""
        return f"{self.state.epoch}/{self.state.epochs or '?'}"


@dataclass(frozen=True, slots=True)
class Peak:
    """The best value that a running trial has had at any epoch."""

    name: str
    epoch: int
    value: float
    state: TrialState


@dataclass(frozen=True, slots=True)
class Reason:
    """Why trials failed."""

    text: str
    """Of the first one: numbers may differ among them."""
    trials: Sequence[str]

    def __str__(self) -> str:
        names = ", ".join(self.trials[:SHOWN]) + ", ..." * (len(self.trials) > SHOWN)
        return f"{len(self.trials)} x {self.text} (trial{'s' * (len(self.trials) > 1)} {names})"


class View:
    """A study as its state has it at a moment.

    Args:
        state: With the values of the leading objective.
        total: Trials that it will have; None: not known.
        is_run: Whether a driver runs it now.
        now: Unix time in seconds.
        results: Its ranking, where that is kept from one moment to the next.
    """

    def __init__(
        self,
        state: StudyState,
        outline: Outline,
        total: int | None,
        *,
        is_run: bool,
        now: float,
        results: Results | None = None,
    ) -> None:
        self.state = state
        self.results = results or outline.results(state)
        self.outline = outline
        self.total = total
        self.is_run = is_run
        self.now = now

    @cached_property
    def counts(self) -> dict[str, int]:
        """Trials by what they do: "completed", "pruned", "failed", "running", "interrupted" and
        "waiting"."""
        found = Counter(map(self._doing, self.state.trials.values()))
        return dict(sorted(found.items()))

    @property
    def num_ended(self) -> int:
        """Trials that have ended, without those whose places others have taken."""
        followed = self.state.followed()
        trials = self.state.trials.items()
        return sum(one.ended is not None and name not in followed for name, one in trials)

    def _doing(self, trial: TrialState) -> str:
        if trial.status == "planned":
            return "waiting"
        if trial.status != "running" or (self.is_run and self.state.is_training(trial)):
            return trial.status
        return "waiting" if self.is_run else "interrupted"

    @cached_property
    def open(self) -> list[OpenTrial]:
        """Trials that run; where no driver does, those that go on later."""
        trials = self.state.trials.items()
        wanted = "running" if self.is_run else "interrupted"
        return [self._open(name, one) for name, one in trials if self._doing(one) == wanted]

    def _open(self, name: str, trial: TrialState) -> OpenTrial:
        started = trial.started
        host = str((started.hardware or {}).get("host", "")) if started else ""
        device = started.device if started else ""
        return OpenTrial(name, trial, self.settings_text(trial.planned), device, host)

    def settings(self, planned: Planned) -> dict[str, Any]:
        """What tells a trial from others: the axes that it has, or its levels in a design."""
        if not planned.cells:
            axes = sorted(self.outline.axes, key=lambda path: path != "methods")
            return {path: planned.params[path] for path in axes if path in planned.params}
        return {str(cell.get("factor")): cell.get("level") for cell in planned.cells}

    def settings_text(self, planned: Planned, num_seeds: int = 1) -> str:
        """The same in a reader's words, with the seed where the study has several.

        Args:
            num_seeds: Trials that the words are for; of more than one no seed is told.
        """
        found = self.settings(planned)
        text = setting_text(found)
        if planned.cells:
            text = ", ".join(f"{factor}={level}" for factor, level in found.items())
        seeds = self.outline.ablation.seeds if self.outline.ablation else self.outline.seeds
        seed = f"seed {planned.seed}" if len(seeds) > 1 and num_seeds == 1 else ""
        return ", ".join(filter(None, (text, seed)))

    @cached_property
    def pace(self) -> Pace:
        """How fast it goes and how long it takes."""
        now = self.now if self.is_run else None
        return Pace.of(self.state, self.outline, self.total, now)

    @property
    def elapsed_s(self) -> float:
        """Seconds that drivers have run, the present one among them."""
        return 3600 * self.state.spent.hours(self.now if self.is_run else None)

    @property
    def num_left(self) -> int:
        """Trials that a later driver would still run: those to come among them."""
        left = len(self.state.unfinished())
        return left if self.total is None else max(left, self.total - self.num_ended)

    @cached_property
    def peak(self) -> Peak | None:
        """The best epoch of the trials that are open; None: none has a value."""
        best, objective = None, self.outline.objective[0]
        for one in self.open:
            for epoch, value in one.state.values.items():
                if value is None or not math.isfinite(value):
                    continue
                if best is None or objective.better(value, best.value):
                    best = Peak(one.name, epoch, value, one.state)
        return best

    @property
    def selected(self) -> Standing | None:
        """The point that is selected so far; None: no trial has a value."""
        return self.results.ranking().selected

    def best_text(self) -> str:
        """ "val_accuracy 0.8104 (trial 00002: vpt, lr 0.01)"; "-": no trial has a value."""
        best = self.selected
        if best is None:
            return "-"
        settings = self.settings_text(self.state.trials[best.trials[0]].planned, len(best.trials))
        return f"{self.outline.metric} {best.text(settings)}"

    @property
    def leading(self) -> Peak | None:
        """The best epoch of an open trial, where it is better than what is selected so far."""
        peak, objective, selected = self.peak, self.outline.objective[0], self.selected
        if peak is None or (selected and not objective.better(peak.value, selected.value)):
            return None
        return peak

    @cached_property
    def failures(self) -> list[Reason]:
        """Why trials failed, the most frequent reason first."""
        failed = (
            (name, one.ended.result.reason)
            for name, one in self.state.trials.items()
            if one.ended is not None and one.status == "failed"
        )
        return [Reason(text, names) for text, names in by_reason(failed)]

    @cached_property
    def reused(self) -> dict[str, int]:
        """Trials that were taken from earlier studies, by the study that trained them."""
        found = Counter(one.study for one in self.state.reused().values())
        return dict(found.most_common())

    @cached_property
    def stopped_at(self) -> dict[int, int]:
        """Trials that were stopped early, by their last epoch."""
        stopped = (one for one in self.state.trials.values() if one.status == "pruned")
        found = Counter(one.planned.begins_after + one.trained for one in stopped)
        return dict(sorted(found.items()))


def reused_text(view: View) -> str:
    """ "3 reused from first, 1 from other; they cost nothing here"; "": none was."""
    of = [f"{n} {'' if i else 'reused '}from {s}" for i, (s, n) in enumerate(view.reused.items())]
    return f"{', '.join(of)}; they cost nothing here" if of else ""


def counts_text(counts: Mapping[str, int]) -> str:
    """ "2 completed, 1 running"."""
    return ", ".join(f"{n} {name}" for name, n in counts.items())
