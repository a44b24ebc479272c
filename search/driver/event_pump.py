"""The thread that carries events from the dispatcher to the journal."""

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError

from search.driver.head import Head
from search.driver.recorder import Recorder
from search.driver.stop_reason import StopReason
from tcpa_core.errors import StoppedError

POLL_S = 0.5
ANSWER_S = 30.0
"""A dispatcher that does not answer in this time, and could ask the head, is lost."""
LAST_ANSWER_S = 8.0
"""The same after a signal to stop: it may have ended Ray, and who sent it often waits 30 s."""


class EventPump:
    """A thread that records events while the main thread stands in Tune's loop.

    What goes wrong here is a reason to stop, which the main thread sees at its next step.

    Args:
        dispatcher: Handle of the actor that has the events.
        recorder: Gets them.
        stop: Learns why the run cannot go on.
        head: Of the cluster.
    """

    def __init__(
        self,
        dispatcher: ActorHandle,
        recorder: Recorder,
        stop: StopReason,
        head: Head,
    ) -> None:
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._stop = stop
        self._head = head
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Record what the dispatcher still has, then end."""
        self._closing.set()
        self._thread.join()

    def _work(self) -> None:
        while True:
            # Read before the call: what comes in after `close` is fetched by one call more.
            closing = self._closing.is_set()
            try:
                events = self._next_events(0.0 if closing else POLL_S)
            except RayError as err:
                self._stop.lose_cluster(self._head.explained(err), self._recorder.record)
                return
            except BaseException as err:  # the main thread raises it
                self._stop.fail(err)
                return
            if closing and not events:
                return

    def _next_events(self, wait_s: float) -> int:
        """Record what has happened; the number of events."""
        call = self._dispatcher.next_events.remote(wait_s)
        events, fault = answer_of(call, POLL_S, self._stop, self._head.look)
        # What happened is recorded before it is said that no more can come.
        if events:
            self._recorder.record(*events)
        if fault is not None:
            raise StoppedError(fault)
        self._head.look()  # the dispatcher, on this machine, may go on without it
        return len(events)


def answer_of(
    call: Any, takes_s: float, stop: StopReason, is_silent: Callable[[], bool] = lambda: False
) -> Any:
    """What the dispatcher answers to a call that may take so long.

    `ray.get` alone would hang with a lost head until Ray ends the process.

    Args:
        is_silent: Whether the head is, to which the dispatcher may have a question.

    Raises:
        GetTimeoutError: It does not answer.
    """
    begun = time.monotonic()
    while not ray.wait([call], timeout=POLL_S)[0]:
        if is_silent() and not stop:
            begun = time.monotonic()
        patience = LAST_ANSWER_S if stop else ANSWER_S
        if stop.is_cluster_lost or time.monotonic() - begun > takes_s + patience:
            raise GetTimeoutError("its dispatcher does not answer")
    return ray.get(call)
