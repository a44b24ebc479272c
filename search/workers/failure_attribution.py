"""What a lost worker is counted against: a trial, too many of them together, or nothing.

An epoch of a pack can be fatal to the whole process: a fault of the device, memory that the kernel
takes back by a kill, a step that never ends. Who of the pack was the cause is not to be seen from
the death itself; it shows when the trials of the epoch are trained again, first together, then one
by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from search.workers.trial_progress import TrialProgress

MAX_RESTARTS = 3
"""Times that a trial may lose its worker within an epoch before it is taken for the cause."""
RESTARTS_OF_HANG = 2
"""What an epoch that never ends counts: finding it out takes much longer than a death."""


@dataclass(frozen=True, slots=True)
class WorkerLoss:
    """How a worker was lost."""

    reason: str
    """A clause, for messages."""
    with_node: bool = False
    """Its whole node is gone, or cannot be reached."""
    hung_in: tuple[str, ...] = ()
    """Trials of the epoch that did not end, if it was killed for that."""
    is_wanted: bool = False
    """It was ended on purpose, between two epochs."""
    of_node: bool = False
    """Its node has not what the study needs, and is refused for that."""
    gpu: str = ""
    """Name of its GPU, where it was lost before it was ready."""

    @property
    def counts(self) -> bool:
        """Whether a trial or the device may have been the cause."""
        return not (self.with_node or self.is_wanted or self.of_node)


def count_loss(
    loss: WorkerLoss, held: Sequence[TrialProgress], hung: Sequence[TrialProgress]
) -> int:
    """Count a loss against the trials that may have caused it.

    Those of the epoch that hung; else the suspect, whose epoch came first; else all. That a node is
    gone or lacks something, or that a worker was ended on purpose, is the fault of no trial.

    Args:
        loss: How the worker was lost.
        held: The trials that it held.
        hung: Those of `loss.hung_in`.

    Returns:
        How many trials have lost another worker in the same epoch together: perhaps too many.
    """
    if not loss.counts:
        return 0
    counted = hung or [trial for trial in held if trial.is_suspect] or held
    for trial in counted:
        trial.restarts += RESTARTS_OF_HANG if hung else 1
    is_repeated = not hung and all(trial.is_suspect for trial in counted)
    return len(counted) if is_repeated else 0
