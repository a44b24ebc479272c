"""Ray Tune's classes with what this package changes in them, by names that Tune keeps to itself.

`tests/search/test_private_names_of_ray.py` says which of these names a new version has moved.
"""

from types import SimpleNamespace
from typing import Any, cast

from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from search.workers.trial_progress import LAST


class Controller(TuneController):  # type: ignore[misc]
    """Tune's controller without snapshots, questions to Ray's head and a memory of what has ended.

    A study is taken up from its journal alone. Tune keeps every trial for its snapshots and its
    final analysis, 40 KiB each, which are not used here.
    """

    _trials: list[Any]

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Write nothing."""

    def on_step_begin(self) -> None:
        """Count no resources, for `Slots` grants whatever is asked.

        Tune would ask the head every 10 s, in the thread that has to end a study whose head is
        gone: the question hangs until Ray ends the process.
        """

    def on_step_end(self) -> None:
        """Forget trials that have ended."""
        super().on_step_end()
        # Not at every step: with thousands of trials the list would be copied each time.
        if len(self._trials) > 2 * len(self._live_trials) + 100:
            self._trials = [trial for trial in self._trials if not trial.is_finished()]
            for ended in (self._stopped_trials, self._failed_trials, self._trials_to_cache):
                ended.clear()


class Asha(ASHAScheduler):  # type: ignore[misc]
    """ASHA that knows trials by our names, so that one taken up again counts once at each rung."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.due: dict[str, int] = {}
        """Trials that an earlier driver was about to stop when it ended, and at which epoch."""

    def counts(self, trial: str, epoch: int, value: float) -> str:
        """Let a value count at its rung; whether the trial goes on from there."""
        # Straight to the bracket: the scheduler itself knows trials by Tune's ids.
        (bracket,) = self._brackets
        named = SimpleNamespace(trial_id=trial)
        return cast(str, bracket.on_result(named, epoch, self._metric_op * value))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Nothing: there is one bracket for all."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether a trial goes on after a decision epoch."""
        name, epoch, value = _name(trial), result.get("epoch"), result.get(self._metric)
        if epoch is None or value is None:
            return str(TrialScheduler.CONTINUE)
        # `due`: decided by the values of then, which later ones must not change.
        if epoch >= self._max_t or self.due.get(name) == epoch:
            return str(TrialScheduler.STOP)
        return self.counts(name, epoch, value)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let the last epoch count, as measured then; the result's own value is the selected."""
        value = result.get(f"{LAST}{self._metric}", result.get(self._metric))
        if "epoch" in result and value is not None:
            self.counts(_name(trial), result["epoch"], value)


def _name(trial: Any) -> str:
    """Our name of a Tune trial, whose own id is another one under every driver."""
    return str(getattr(trial, "config", {}).get("trial", trial.trial_id))
