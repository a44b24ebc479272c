"""The trials of a worker by the pack they train in, and whose turn it is.

Trials of equal `pack_key`, backbone and data share a pack; groups take turns, epoch by epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tcpa_core.record.events import Ended
from tcpa_core.record.values import Status
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.saved_member import SaveClock
from tcpa_core.training.scored import Scored


@dataclass(slots=True)
class Job:
    """A member with what the scheduler allows it."""

    member: Member
    until_epoch: int
    """It may train up to and including this epoch."""
    test_at_end: bool
    alone: bool
    """Its next epoch is trained before all others and by itself."""
    keep_every: int | None = None
    """As of `Submit`."""
    saved: SaveClock = field(init=False)
    """What of it is on disk, or on its way there; that much is told."""

    def __post_init__(self) -> None:
        self.saved = SaveClock(self.member)

    @property
    def may_train(self) -> bool:
        """Whether an epoch is left that the scheduler allows."""
        return not self.member.is_done and self.member.epoch < self.until_epoch

    @property
    def is_to_keep(self) -> bool:
        """Whether its state after the last epoch is kept for others."""
        if self.keep_every is None or self.member.is_done:
            return False
        return self.member.epoch % self.keep_every == 0


@dataclass(slots=True)
class Group:
    """The jobs of one pack."""

    pack: Pack
    jobs: dict[str, Job] = field(default_factory=dict)
    """By trial."""
    limit: int | None = None
    """Most members to train together: what a probe found best, or what memory allows."""
    longest_s: float | None = None
    """Longest epoch so far."""
    has_told_size: bool = False
    """The user knows that its checkpoints are too large to be written after every epoch."""

    def end(
        self,
        trial: str,
        status: Status,
        *,
        reason: str = "",
        test: Scored | None = None,
    ) -> Ended:
        """Let a job go, with what `Pack.result` says of it."""
        member = self.jobs.pop(trial).member
        result = self.pack.result(member, status, reason=reason, test=test)
        return Ended(trial=trial, result=result)


class Turns:
    """Chooses what is trained next."""

    def __init__(self) -> None:
        self.together: int | None = None
        """Most members to train together, whatever the group; None: no limit."""
        self._turn = 0

    def next(self, groups: Sequence[Group]) -> tuple[Group, list[Job]] | None:
        """The group whose turn it is and its jobs that train, the least trained first.

        Returns:
            None where no job may train.
        """
        ready = [
            (group, jobs)
            for group in groups
            if (jobs := [job for job in group.jobs.values() if job.may_train])
        ]
        # A suspect first: if the worker dies of it, no other trial has lost an epoch to that.
        for group, jobs in ready:
            for job in jobs:
                if job.alone:
                    return group, [job]
        if not ready:
            return None
        self._turn += 1
        group, jobs = ready[self._turn % len(ready)]
        limits = [n for n in (group.limit, self.together) if n is not None]
        # Least trained first, so that a limit leaves nobody behind.
        return group, sorted(jobs, key=lambda job: job.member.epoch)[: min(limits, default=None)]
