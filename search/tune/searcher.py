"""Our own Tune searcher: prepares trials ahead of demand and never starts one twice."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.result import AUTO_RESULT_KEYS
from ray.tune.search import Searcher

from search.proposals.planner import Planner
from search.proposals.source import Later, Source
from tcpa_core.record.events import Planned

CLOSE_S = 10.0
"""Some samplers think for minutes; an orderly end has half a minute in all."""


class StudySearcher(Searcher):  # type: ignore[misc]
    """Hands planned trials to Ray Tune and tells their outcomes.

    A thread of its own prepares trials ahead of demand, because a suggestion may take longer than a
    short trial; the source is used by that thread alone.

    Args:
        source: What to run.
        fingerprints: Identities of data and weights.
        plan: Called with every planned trial before it starts (writes the journal).
        stop: Called with a trial that the scheduler ended early.
        limit: Most trials of the study; None: until the source is exhausted.
        past: Trials of earlier drivers with their outcomes; those without go on first.
        may_start: Asked before every new trial (budget, interrupt).
        ahead: Trials to hold ready. Each is chosen without the trials that run meanwhile.
    """

    def __init__(
        self,
        source: Source,
        *,
        fingerprints: Mapping[str, str],
        plan: Callable[[Planned], None],
        stop: Callable[[str], None],
        limit: int | None,
        past: Sequence[tuple[Planned, Mapping[str, Any] | None]],
        may_start: Callable[[], bool],
        ahead: int,
    ) -> None:
        super().__init__()
        self._source = source
        self._planner = Planner(source, fingerprints, limit)
        self._past = past
        self._plan = plan
        self._stop = stop
        self._unfinished = deque(planned for planned, outcome in past if outcome is None)
        self._may_start = may_start
        self._ahead = ahead
        self._running: dict[str, str] = {}
        """Names of the running trials by Tune's own ids."""
        self._ready: deque[Planned] = deque()
        self._finished: deque[tuple[Planned, Mapping[str, Any]]] = deque()
        self._changed = threading.Condition()
        self._is_exhausted = False
        self._must_learn = False
        """The source waits for the end of a running trial."""
        self._is_closed = False
        self._failure: BaseException | None = None
        self.trials: dict[str, Planned] = {}
        """The running trials by name."""
        self.waited_s = 0.0
        """Time that places stood free because no suggestion was ready."""
        self._thread = threading.Thread(target=self._prepare, name="suggestions", daemon=True)
        self._thread.start()

    def suggest(self, trial_id: str) -> Any:
        """The next trial for Tune; None to be asked again, or FINISHED."""
        if self._unfinished:
            planned = self._unfinished.popleft()
        elif not self._may_start():
            return Searcher.FINISHED
        else:
            taken = self._take()
            if taken is None:
                return Searcher.FINISHED if self._is_exhausted else None
            planned = taken
            self._plan(planned)
        self._running[trial_id] = planned.trial
        self.trials[planned.trial] = planned
        return {"trial": planned.trial}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn from a trial that has ended, whichever way."""
        name = self._running.pop(trial_id, None)
        if name is None:
            return
        planned = self.trials.pop(name)
        if (result or {}).get("interrupted"):
            return
        outcome = {k: v for k, v in (result or {}).items() if k not in AUTO_RESULT_KEYS}
        if error:
            outcome["status"] = "failed"
        elif "status" not in outcome:
            outcome |= {"status": "pruned", "num_epochs": outcome.get("epoch")}
            self._stop(planned.trial)
        with self._changed:
            self._finished.append((planned, outcome))
            self._changed.notify_all()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Intermediate results need nothing: every epoch is in the journal."""

    def save(self, checkpoint_path: str) -> None:
        """The journal is the only state; Tune's own snapshots are not used."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def close(self) -> None:
        """End the thread; what has finished until now is still told.

        A suggestion that takes longer than `CLOSE_S` is not waited for.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._source.close()

    def _take(self) -> Planned | None:
        """A prepared trial. Waits for it only while no trial runs: Tune would sleep for longer."""
        started = time.monotonic()
        with self._changed:
            while not self._ready and not self._is_exhausted and not self._failure:
                self._changed.wait(0.02 if self._running else 0.2)
                if self._running or not self._may_start():
                    break
            self.waited_s += time.monotonic() - started
            if self._failure is not None:
                raise self._failure
            taken = self._ready.popleft() if self._ready else None
            self._changed.notify_all()
        return taken

    def _prepare(self) -> None:
        """The thread: tell what has finished, then prepare the next trial, one at a time."""
        try:
            self._planner.replay(self._past)
            self._past = ()
            while True:
                with self._changed:
                    while not self._finished and not self._is_closed and not self._wants_more():
                        self._changed.wait()
                    finished, closed = list(self._finished), self._is_closed
                    self._finished.clear()
                self._must_learn = self._must_learn and not finished
                for planned, outcome in finished:
                    self._planner.tell(planned, outcome)
                if closed:
                    return
                if self._wants_more():
                    new = self._planner.new()
                    with self._changed:
                        if new is None:
                            self._is_exhausted = True
                        elif isinstance(new, Later):
                            self._must_learn = True
                        else:
                            self._ready.append(new)
                        self._changed.notify_all()
        except BaseException as err:  # `suggest` raises it in the main thread
            with self._changed:
                self._failure = err
                self._changed.notify_all()

    def _wants_more(self) -> bool:
        if self._is_exhausted or self._must_learn:
            return False
        return len(self._ready) < self._ahead
