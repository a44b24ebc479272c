"""How a study went, from its journal: when, for how long, on what, and whether it has ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from tcpa_core.record.events import Event
from tcpa_core.record.state import Spent, StudyState, TrialState


@dataclass(frozen=True, slots=True)
class Course:
    """How a study went. Times are Unix time in seconds by the journal's clock."""

    phase: str
    """As of `StudyState.phase`: "interrupted" also while a driver runs."""
    began: float | None
    """None: no driver has begun yet."""
    last: float | None
    """Of the last event, epochs aside."""
    wall_s: float
    """Time that drivers have run."""
    gpu_s: float | None
    """The same times the GPUs that were held; None: none were, or it was not recorded."""
    devices: tuple[str, ...] = ()
    """What trials were trained on, as "AMD EPYC of host1"."""
    tested: Mapping[str, float] = field(default_factory=dict)
    """Trials whose test split was read, and when."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing was left to run."""
        return self.phase == "finished"

    @classmethod
    def of(cls, state: StudyState, began: float | None) -> Self:
        """What a state says.

        Args:
            began: Time of the first event.
        """
        trials, by_gpus = state.trials.values(), state.spent.seconds
        gpu_s = sum(seconds * (gpus or 0) for gpus, seconds in by_gpus.items())
        return cls(
            phase=state.phase,
            began=began,
            last=state.spent.since,
            wall_s=sum(by_gpus.values()),
            gpu_s=gpu_s or None,
            devices=tuple(sorted({text for one in trials if (text := _device(one))})),
            tested={one.trial: one.t for trial in trials if (one := trial.tested)},
        )


@dataclass(slots=True)
class Clock:
    """What a kept reading of a journal has to remember of events that belong to no trial."""

    began: float | None = None

    def take(self, event: Event) -> None:
        """See the next event."""
        self.began = event.t if self.began is None else self.began

    def kept(self, state: StudyState) -> dict[str, Any]:
        """This and the state's times as JSON."""
        spent = state.spent
        return {"began": self.began, "phase": state.phase, "seconds": [*spent.seconds.items()],
                "gpus": spent.gpus, "since": spent.since}  # fmt: skip

    def restore(self, kept: Mapping[str, Any], state: StudyState) -> None:
        """Give a state, rebuilt from the events of its trials alone, its times back."""
        self.began, state.phase = kept["began"], kept["phase"]
        seconds = {gpus: float(s) for gpus, s in kept["seconds"]}
        state.spent = Spent(seconds, kept["gpus"], kept["since"])


def _device(trial: TrialState) -> str:
    """What a trial was trained on; "": it was not recorded, or the trial never began."""
    started = trial.started
    if started is None or not started.hardware:
        return "" if started is None else started.device
    name, host = started.hardware.get("name", started.device), started.hardware.get("host", "")
    return f"{name} of {host}" if host else str(name)
