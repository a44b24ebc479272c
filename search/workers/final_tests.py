"""Scores on the test split that are still to come, and the worker that reads each of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from search.workers.failure_attribution import MAX_RESTARTS, WorkerLoss
from tcpa_core.record.events import Planned, Tested
from tcpa_core.training.commands import Test


@dataclass(slots=True)
class _Awaited:
    planned: Planned
    worker: int | None = None
    """To which it was sent; None: it waits for one."""
    losses: int = 0
    """Workers that have ended over it."""


class FinalTests:
    """Trials that have ended and whose selected state is to be scored."""

    def __init__(self) -> None:
        self._awaited: dict[str, _Awaited] = {}

    def ask(self, planned: Planned) -> None:
        """Have a trial scored."""
        self._awaited[planned.trial] = _Awaited(planned)

    def is_new(self, tested: Tested) -> bool:
        """Take a score; whether anybody waits for it."""
        return self._awaited.pop(tested.trial, None) is not None

    def send_to(self, worker: int) -> Iterator[Test]:
        """What a worker that is ready is to score: all that it was not told to already.

        One that is sent to another worker, too, may be lost with the first: one answer counts.
        """
        for test in self._awaited.values():
            if test.worker != worker:
                test.worker = worker
                yield Test(trial=test.planned.trial, params=test.planned.params)

    def held_by(self, worker: int) -> list[str]:
        """Trials whose score a worker is to find."""
        return [trial for trial, test in self._awaited.items() if test.worker == worker]

    def lose(self, worker: int, loss: WorkerLoss) -> Iterator[Tested]:
        """A worker is gone: its tests wait for another; the end of those that no worker survives.

        What counts against no trial counts against none of them.
        """
        for trial, test in list(self._awaited.items()):
            if test.worker != worker:
                continue
            test.worker = None
            test.losses += loss.counts
            if test.losses > MAX_RESTARTS:
                del self._awaited[trial]
                reason = f"the worker ended {test.losses} times over it: {loss.reason}"
                yield Tested(trial=trial, test_loss=None, test_accuracy=None, reason=reason)
