"""What Ctrl-C and SIGTERM do while a study runs."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_interrupt(interrupt: Callable[[str], None]) -> Iterator[None]:
    """Call `interrupt` with a reason on the first Ctrl-C or SIGTERM; the second ends at once.

    Only in the main thread; elsewhere signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        # First, so that a second signal ends the process even if `interrupt` does not return.
        for name in old:
            signal.signal(name, signal.SIG_DFL)
        interrupt(f"interrupted by {signal.Signals(number).name}")

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
