"""Whether a GPU or one of its trials was the cause of a worker's end, as far as can be told."""

from collections.abc import Collection, Mapping, Sequence

from search.workers.failure_attribution import WorkerLoss
from search.workers.quarantine import Quarantine
from search.workers.sentences import fault_of_last, notice_of_aside, notice_of_loss
from search.workers.trial_progress import TrialProgress
from tcpa_core.record.events import Event, Notice


class DeviceBlame:
    """Books the ends of workers on GPUs or on trials; processors are never to blame.

    Args:
        quarantine: Follows the GPUs.
        num_gpus: Of the cluster, as far as it is known: with fewer workers some may be unused.
    """

    def __init__(self, quarantine: Quarantine, num_gpus: int) -> None:
        self._quarantine = quarantine
        self._num_gpus = num_gpus
        self.fault: str | None = None
        """Why the study cannot go on; None: it can."""

    def count_out_gpu(self) -> None:
        """A GPU of the cluster cannot be used at all."""
        self._num_gpus -= 1

    def is_doubted(self, gpu: str) -> bool:
        """Whether a worker has ended on a GPU and no epoch was trained there since."""
        return self._quarantine.is_doubted(gpu)

    def is_aside(self, gpu: str) -> bool:
        """Whether a GPU is set aside and has trained no epoch since."""
        return self._quarantine.is_aside(gpu)

    def can_wait_for(self, gpu: str, used: Collection[str]) -> bool:
        """Whether a GPU has been in use, and the study has others while it is not.

        Args:
            gpu: Its name.
            used: The GPUs of all workers that are ready.
        """
        return self._quarantine.is_doubted(gpu) and not self._is_last(gpu, used)

    def convict(self, name: str) -> None:
        """A trial, or the test of one, was the cause of its ends."""
        self._quarantine.convict(name)

    def take_end(
        self,
        worker: int,
        gpu: str,
        loss: WorkerLoss,
        trials: Mapping[str, TrialProgress],
        before: Mapping[str, int],
        *,
        tests: Sequence[str],
        used: Collection[str],
    ) -> list[Event]:
        """Set a GPU aside if it is the cause of a loss, and clear the trials of it.

        Args:
            worker: That was lost.
            gpu: Its GPU; "": the processor.
            loss: How it was lost.
            trials: All.
            before: What had been counted against the trials that the worker held.
            tests: Trials whose score it was to find.
            used: The GPUs of the other workers that are ready.

        Returns:
            What the user is told.
        """
        if loss.of_node:
            return []  # said when the node was refused
        notice = notice_of_loss(worker, loss, sorted(before))
        if not gpu or not loss.counts:
            return [notice]
        counted = {name: trials[name].restarts - was for name, was in before.items()}
        counted |= {test_of(trial): 1 for trial in tests}
        for name in before:
            trials[name].lost_on.add(gpu)
        verdict = self._quarantine.take_end(
            gpu,
            counted,
            ended_elsewhere=[name for name in before if trials[name].lost_on != {gpu}],
            is_last=self._is_last(gpu, used),
        )
        if verdict == "hopeless":
            self.fault = fault_of_last(gpu, loss)
        if not self._quarantine.is_aside(gpu):
            return [notice]
        for name, count in self._quarantine.taken_back(gpu):
            if trial := trials.get(name):  # else it is a test
                trial.restarts = max(0, trial.restarts - count)
        if verdict == "still aside":  # said when it began: nothing has changed
            return []
        return [notice_of_aside(gpu, loss, self._quarantine.pause_s(gpu), notice.trials)]

    def clear(self, gpu: str, waiting: Collection[TrialProgress]) -> list[Event]:
        """An epoch was trained on a GPU: it was no cause of what ended there before.

        Args:
            gpu: Its name.
            waiting: Trials that may go there again.
        """
        if not self._quarantine.is_doubted(gpu):
            return []
        was_aside = self._quarantine.is_aside(gpu)
        self._quarantine.clear(gpu)
        for trial in waiting:
            trial.lost_on.discard(gpu)
        if not was_aside:
            return []
        return [Notice(text=f"{gpu} is in use again: it has trained an epoch")]

    def _is_last(self, gpu: str, used: Collection[str]) -> bool:
        """Whether no other device is in use, nor one that nobody has tried."""
        others, aside = set(used) - {gpu}, self._quarantine.aside()
        return others <= aside and self._num_gpus <= len((others | aside | {gpu}) - {""})


def test_of(trial: str) -> str:
    """What the quarantine knows a test by, as it does a trial."""
    return f"test of {trial}"
