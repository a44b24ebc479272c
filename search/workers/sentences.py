"""What the user reads of workers that are lost, devices that are set aside and tests that fail."""

from collections.abc import Sequence

from search.workers.failure_attribution import WorkerLoss
from search.workers.quarantine import MAX_ENDS, MAX_ENDS_OF_LAST
from tcpa_core.record.events import Ended, Notice, Tested
from tcpa_core.record.values import TrialResult


def notice_of_loss(worker: int, loss: WorkerLoss, held: Sequence[str]) -> Notice:
    """A worker was lost that held some trials."""
    what = "has ended" if loss.is_wanted else "was lost"
    text = f"worker {worker} {what} ({loss.reason})"
    if held:
        text += f"; trials {', '.join(held)} go on elsewhere from their last epoch"
    return Notice(text=text, trials=held)


def notice_of_aside(device: str, loss: WorkerLoss, pause_s: float, held: Sequence[str]) -> Notice:
    """A device is set aside for a while, whose last worker held some trials."""
    pause = f"{pause_s / 60:.0f} min" if pause_s >= 60 else f"{pause_s:.0f} s"
    text = (
        f"{device} is set aside: {MAX_ENDS} workers in a row ended on it before an epoch was "
        f"trained ({loss.reason}); it is tried again in {pause}, then after longer pauses"
    )
    if held:
        text += f"; trials {', '.join(held)} go on elsewhere from their last epoch"
    return Notice(text=text, trials=held)


def notice_of_no_score(tested: Tested) -> Notice:
    """A test has ended without a score."""
    return Notice(
        text=f"trial {tested.trial} has no score on the test split: {tested.reason.rstrip('.')}",
        trials=[tested.trial],
    )


def fault_of_last(device: str, loss: WorkerLoss) -> str:
    """The last device is of no use."""
    return (
        f"{MAX_ENDS_OF_LAST} workers in a row, with different trials, ended on {device} before an "
        f"epoch was trained ({loss.reason}), and no other device is left"
    )


def notice_of_limit(together: int, limit: int) -> Notice:
    """Fewer trials are trained together from here on."""
    return Notice(
        text=f"two workers died in the same epoch while training {together} trials together, "
        f"perhaps out of memory; at most {limit} will be trained together from now on"
    )


def failed(trial: str, restarts: int, loss: WorkerLoss) -> Ended:
    """The end of a trial that no worker survives."""
    reason = loss.reason
    if trial not in loss.hung_in:
        reason = f"its worker ended {restarts} times in one epoch: {reason}"
    return Ended(trial=trial, result=TrialResult(status="failed", reason=reason))
