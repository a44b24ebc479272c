"""Ray Tune's classes with what this package changes in them, by names that Tune keeps to itself.

`tests/search/test_private_names_of_ray.py` says which of these names a new version has moved.
"""

from typing import Any

from ray.tune.execution.tune_controller import TuneController


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
