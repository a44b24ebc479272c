"""Why a run ends before its budget is used up."""

from collections.abc import Callable

from ray.exceptions import RayError

from search.workers.ray_errors import is_code_fault, reason_of
from tcpa_core.errors import FaultError, StoppedError
from tcpa_core.record.events import Notice


class StopReason:
    """False until somebody gives a reason to stop; the first one counts.

    The main thread, the event pump and signal handlers give and read it, without a lock: every
    field is set once, and who reads it too early asks again within half a second.

    Args:
        study: Its name.
    """

    def __init__(self, study: str) -> None:
        self._study = study
        self.text = ""
        """The reason; "": there is none."""
        self.failure: BaseException | None = None
        """What the run raises in the end."""
        self.is_cluster_lost = False
        """Whether no call of Ray is worth waiting for any more."""

    def __bool__(self) -> bool:
        return bool(self.text)

    def give(self, text: str) -> None:
        """Stop in order for this reason, unless there is one already."""
        self.text = self.text or text

    def fail(self, err: BaseException) -> None:
        """Stop, and raise this in the end."""
        self.failure = err
        self.give(f"the driver failed: {err}")

    def lose_cluster(self, err: RayError, record: Callable[[Notice], None]) -> None:
        """Stop, because the cluster does not answer. A signal to us may have been one to Ray, too.

        Recorded at once: the main thread may stand in a call of Ray, which then ends the process.
        """
        self.is_cluster_lost = True
        if self:
            return
        text = f"the Ray cluster of study {self._study!r} does not answer any more"
        why, is_fault = str(err).strip().splitlines()[0], is_code_fault(err)
        if is_fault:
            text = f"a fault in the code or the installation has ended study {self._study!r}"
            why = reason_of(err)
        # First, for it may raise: a full disk is then the error that the user sees.
        record(Notice(text=f"{text}; this driver ends"))
        told = f"{text} ({why}); what is recorded is kept: 'tcpa resume {self._study}'."
        self.failure = FaultError(told) if is_fault else StoppedError(told)
        self.give(text)
