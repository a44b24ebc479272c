"""The end of a driver whose main thread stands in a call of Ray that does not return."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from search.driver.stop_reason import StopReason
from search.exit_codes import FAILURES, STOPPED
from search.terminal import one_line
from search.tracking.secrets import hide
from tcpa_core.errors import FaultError

POLL_S = 0.5
LEAVE_S = 20.0
"""From the loss of a cluster on. Closing the connection took 8 s; Ray's own node, which takes this
process with it, lives 60 s without a head, of which 20 s have passed (Ray 2.60)."""


@contextmanager
def ended_if_stuck(stop: StopReason) -> Iterator[None]:
    """End the process where this block is not left soon after the cluster is lost.

    Ray and Tune ask the head in many places, some without a limit of time. All that is recorded is
    on disk already; what the user reads and the exit code are those of an orderly end.
    """
    left = threading.Event()

    def watch() -> None:
        while not left.wait(POLL_S):
            if stop.is_cluster_lost and not left.wait(LEAVE_S):
                _leave(stop)

    threading.Thread(target=watch, name="last exit", daemon=True).start()
    try:
        yield
    finally:
        left.set()


def _leave(stop: StopReason) -> None:
    text = str(stop.failure or f"{stop.text}, and the cluster does not answer any more")
    Console().show_cursor()  # the live view hides it
    print(f"error: {one_line(hide(text))}", file=sys.stderr, flush=True)
    os._exit(FAILURES if isinstance(stop.failure, FaultError) else STOPPED)
