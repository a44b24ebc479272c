"""Our own Tune searcher: hands over what is prepared, and never starts a trial twice."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.result import AUTO_RESULT_KEYS
from ray.tune.search import Searcher

from search.proposals.source import Outcome
from search.proposals.suggestions import Suggestions
from tcpa_core.record.events import Planned


class StudySearcher(Searcher):  # type: ignore[misc]
    """Hands planned trials to Ray Tune and tells their outcomes.

    Args:
        suggestions: New trials.
        unfinished: Trials that earlier drivers left; they go on first.
        plan: Called with every new trial before it starts (writes the journal); gives its outcome
            where it need not start, because an earlier study has it.
        stop: Called with a trial that the scheduler ended early.
        may_start: Asked before every new trial (budget, interrupt).
        population: Trials that run at once, where others may follow on each; None: there is no
            such number.
    """

    def __init__(
        self,
        suggestions: Suggestions,
        unfinished: Iterable[Planned],
        *,
        plan: Callable[[Planned], Outcome | None],
        stop: Callable[[str], None],
        may_start: Callable[[], bool],
        population: int | None = None,
    ) -> None:
        super().__init__()
        self._suggestions = suggestions
        self._first = deque(unfinished)
        self._plan = plan
        self._stop = stop
        self._may_start = may_start
        self._population = population
        self._running: dict[str, str] = {}
        """Names of the running trials by Tune's own ids, which differ under every driver."""
        self.trials: dict[str, Planned] = {}
        """The running trials by name."""
        self.num_handed = 0
        """Trials that Tune was given."""
        self.is_exhausted = False
        """Whether no other follows."""

    def begin(self, planned: Planned) -> None:
        """Have a trial that is planned start before all new ones."""
        self._first.append(planned)

    def suggest(self, trial_id: str) -> Any:
        """The next trial for Tune; None to be asked again, or FINISHED."""
        found = self._next(trial_id)
        self.is_exhausted = found == Searcher.FINISHED
        return found

    def _next(self, trial_id: str) -> Any:
        if self._first:
            planned = self._first.popleft()
        else:
            new = self._new()
            if not isinstance(new, Planned):
                return new
            planned = new
        self._running[trial_id] = planned.trial
        self.trials[planned.trial] = planned
        self.num_handed += 1
        return {"trial": planned.trial}

    def _new(self) -> Any:
        """The next trial that has to be trained, or what Tune is told where there is none."""
        if self._population is None:
            return self._next_suggested()
        if len(self._running) >= self._population:
            return None
        found = self._next_suggested()
        # As long as one runs, another may follow on it.
        return None if found == Searcher.FINISHED and self._running else found

    def _next_suggested(self) -> Any:
        while self._may_start():
            planned = self._suggestions.take(len(self._running), self._may_start)
            if planned is None:
                return Searcher.FINISHED if self._suggestions.is_exhausted else None
            # In the journal before it starts: a driver that is killed now repeats no trial.
            outcome = self._plan(planned)
            if outcome is None:
                return planned
            self._suggestions.tell(planned, outcome)
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn from a trial that has ended, whichever way."""
        name = self._running.pop(trial_id, None)
        if name is None:
            return
        planned = self.trials.pop(name)
        # Released by a halt, not ended: the next driver takes it up, and nothing is learnt of it.
        if (result or {}).get("interrupted"):
            return
        outcome = {k: v for k, v in (result or {}).items() if k not in AUTO_RESULT_KEYS}
        if error:
            outcome["status"] = "failed"
        elif "status" not in outcome:  # the scheduler has ended it; its worker trains on
            outcome |= {"status": "pruned", "num_epochs": outcome.get("epoch")}
            self._stop(planned.trial)
        if planned.parent is None:  # no sampler has drawn another
            self._suggestions.tell(planned, outcome)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Intermediate results need nothing: every epoch is in the journal."""

    def save(self, checkpoint_path: str) -> None:
        """The journal is the only state; Tune's own snapshots are not used."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""
