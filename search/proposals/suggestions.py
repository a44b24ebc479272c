"""Trials prepared ahead of demand, because a suggestion may take longer than a short trial."""

import threading
import time
from collections import deque
from collections.abc import Callable

from search.proposals.planner import Planner
from search.proposals.source import Later, Outcome, Past
from tcpa_core.record.events import Planned

CLOSE_S = 10.0
"""Some samplers think for minutes; an orderly end has half a minute in all."""


class Suggestions:
    """A thread that tells the planner what has ended and keeps the next trials ready.

    From its start on, the planner is used by that thread alone. The order of what it is told and
    asked is recorded with each trial, so that a later driver can repeat it.

    Args:
        planner: Fresh.
        past: Trials of earlier drivers; told first.
        ahead: Trials to hold ready. Each is chosen without the trials that run meanwhile.
    """

    def __init__(self, planner: Planner, past: Past, ahead: int) -> None:
        self._planner = planner
        self._past = past
        self._ahead = ahead
        self._ready: deque[Planned] = deque()
        self._finished: deque[tuple[Planned, Outcome]] = deque()
        self._changed = threading.Condition()
        """Guards all that follows, and wakes whoever waits for it."""
        self._must_learn = False
        """The source waits for the end of a running trial."""
        self._is_closed = False
        self._failure: BaseException | None = None
        self.is_exhausted = False
        """Whether no trial will follow those that are ready."""
        self.waited_s = 0.0
        """Time that places stood free because no suggestion was ready."""
        self._thread = threading.Thread(target=self._work, name="suggestions", daemon=True)
        self._thread.start()

    def take(self, num_running: int, may_start: Callable[[], bool]) -> Planned | None:
        """A prepared trial; None: there is none yet, or none any more (`is_exhausted`).

        Waits for it only while no trial runs: Tune would sleep for longer.

        Raises:
            BaseException: What the source raised in its thread.
        """
        started = time.monotonic()
        with self._changed:
            while not self._ready and not self.is_exhausted and not self._failure:
                self._changed.wait(0.02 if num_running else 0.2)
                if num_running or not may_start():
                    break
            self.waited_s += time.monotonic() - started
            if self._failure is not None:
                raise self._failure
            taken = self._ready.popleft() if self._ready else None
            self._changed.notify_all()
        return taken

    def tell(self, planned: Planned, outcome: Outcome) -> None:
        """Let the source learn from a trial that has ended; returns at once."""
        with self._changed:
            self._finished.append((planned, outcome))
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread; what has finished until now is still told.

        A suggestion that takes longer than `CLOSE_S` is not waited for.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._planner.close()

    def _work(self) -> None:
        """The thread: tell what has finished, then prepare the next trial, one at a time."""
        try:
            self._planner.replay(self._past)
            self._past = ()  # thousands of trials, not needed any more
            while True:
                with self._changed:
                    while not self._finished and not self._is_closed and not self._wants_more():
                        self._changed.wait()
                    finished, is_closed = list(self._finished), self._is_closed
                    self._finished.clear()
                # Outside the lock: the driver must never wait for a sampler that thinks.
                self._must_learn = self._must_learn and not finished
                for planned, outcome in finished:
                    self._planner.tell(planned, outcome)
                if is_closed:
                    return
                if self._wants_more():
                    self._prepare()
        except BaseException as err:  # `take` raises it in the main thread
            with self._changed:
                self._failure = err
                self._changed.notify_all()

    def _prepare(self) -> None:
        new = self._planner.new()
        with self._changed:
            if new is None:
                self.is_exhausted = True
            elif isinstance(new, Later):
                self._must_learn = True
            else:
                self._ready.append(new)
            self._changed.notify_all()

    def _wants_more(self) -> bool:
        if self.is_exhausted or self._must_learn:
            return False
        return len(self._ready) < self._ahead
