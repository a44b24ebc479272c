"""How far one trial has come, as the dispatcher knows it."""

from dataclasses import dataclass, field

from tcpa_core.record.events import Planned
from tcpa_core.training.commands import Submit

Report = dict[str, float | str | None]
"""Values of a trial by their names, as far as the scheduler and the sampler ask for them."""

LAST = "last_"
"""How the names of a trial's last epoch's metrics begin, beside its final ones."""


@dataclass(slots=True)
class TrialProgress:
    """A trial between its plan and its end."""

    planned: Planned | None
    """None: it has ended. Of thousands of trials only the few that run keep their settings."""
    until_epoch: int
    """It may train up to and including this epoch."""
    worker: int | None = None
    """None: waits for a free place, or has ended."""
    epoch: int = 0
    """Its last new one."""
    epochs: dict[int, Report] = field(default_factory=dict)
    """What the scheduler may ask of each epoch so far."""
    seconds: float = 0.0
    """In which it was trained, up to its last epoch."""
    costs: Report = field(default_factory=dict)
    """Of its `COSTS` those that the scheduler may ask for."""
    outcome: Report | None = None
    """The same of its end; None: it has not ended."""
    is_stopped: bool = False
    """The scheduler has ended it; its worker may not know yet."""
    restarts: int = 0
    """Workers lost since its last new epoch; see `failure_attribution`."""
    lost_on: set[str] = field(default_factory=set)
    """Devices on which it lost them and that have trained no epoch since."""

    @property
    def has_ended(self) -> bool:
        """Whether its final event has come."""
        return self.outcome is not None

    @property
    def has_arrived(self) -> bool:
        """Whether it stands at the epoch that it was allowed, or has ended before."""
        return self.has_ended or self.epoch >= self.until_epoch

    @property
    def is_suspect(self) -> bool:
        """Lost its worker twice: its next epoch is trained alone, which shows what is the cause."""
        return self.restarts > 1

    def submit(
        self, *, test_at_end: bool, tells_costs: bool = False, keep_every: int | None = None
    ) -> Submit:
        """The command that gives it to a worker."""
        assert self.planned is not None, "a trial that has ended waits for no place"
        return Submit(
            trial=self.planned.trial,
            params=self.planned.params,
            until_epoch=self.until_epoch,
            test_at_end=test_at_end,
            alone=self.is_suspect,
            tells_costs=tells_costs,
            parent=self.planned.parent,
            keep_every=keep_every,
        )

    def report(self, until_epoch: int, *, is_halted: bool) -> Report:
        """What the scheduler is told at an epoch; see `Dispatcher.advance`."""
        # Its checkpoint may have been further on than the journal of the driver before. The
        # scheduler decides at every rung in turn, by the values that the trial had there.
        if until_epoch < self.epoch and until_epoch in self.epochs and not is_halted:
            return {**self.epochs[until_epoch], "done": False, "interrupted": False}
        last = self.epochs.get(self.epoch, {})
        report = dict(last)
        if self.outcome is not None:
            report |= self.outcome | {f"{LAST}{name}": value for name, value in last.items()}
            self.outcome = {k: report[k] for k in ("epoch", "status") if k in report}
            self.epochs.clear()
        return {**report, "done": self.has_ended or is_halted, "interrupted": is_halted}
