"""What signals do to a command that runs a study: an orderly end, wherever it stands.

Ctrl-C and SIGTERM are an end that somebody waits for, so that a second one ends at once. SIGUSR1,
which batch systems send some time before the limit, and SIGHUP of a terminal that closes only
announce one: another signal after them is the first of its kind.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from search.terminal import drop_lost_output
from tcpa_core.errors import StoppedError

ENDING = (signal.SIGINT, signal.SIGTERM)
ANNOUNCING = (signal.SIGUSR1, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal came while no study ran; libraries clean up after it as after Ctrl-C."""


class _Handler:
    """Gives the reason for an end to `interrupt` when a signal comes."""

    def __init__(self, interrupt: Callable[[str], None]) -> None:
        self._interrupt = interrupt
        self.reason = ""
        """Of the last signal that came; "": none has."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # First, so that a second signal ends the process even if `interrupt` does not return.
        if number in ENDING:
            for name in ENDING:
                signal.signal(name, signal.SIG_DFL)
        drop_lost_output()
        self.reason = f"interrupted by {signal.Signals(number).name}"
        self._interrupt(self.reason)


@contextmanager
def on_interrupt(interrupt: Callable[[str], None]) -> Iterator[None]:
    """Call `interrupt` with a reason when a signal asks for the end.

    Only in the main thread; elsewhere signals stay as they are. So does a SIGHUP that is ignored,
    as `nohup` has it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, handler = signal.getsignal(ANNOUNCING[0]), _Handler(interrupt)
    with _handled(handler):
        # An exception raised by a handler is lost where Python cannot raise, as in a finalizer.
        if isinstance(outer, _Handler) and outer.reason:
            interrupt(outer.reason)
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Before a study runs and after, let a signal end the command where it stands.

    Raises:
        StoppedError: A signal came.
    """

    def leave(reason: str) -> None:
        raise Interrupted(reason)

    try:
        with on_interrupt(leave):
            yield
    except Interrupted as err:
        raise StoppedError(
            f"{err}; what is recorded is kept. Go on with the same command and --resume, or with "
            "'tcpa resume'."
        ) from None


@contextmanager
def put_off(until: str = "") -> Iterator[None]:
    """Let a signal wait until something is done that must not be torn; a second one does not.

    Args:
        until: What the user reads at once that it waits for: "Ray has started".
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number in ENDING and number in came:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if until and not came:
            # Written past Python's buffers, which the thread that was interrupted may hold.
            second = "; a second one ends at once" if number in ENDING else ""
            name = signal.Signals(number).name
            with suppress(OSError):
                os.write(2, f"\n{name}: stopping once {until}{second}\n".encode())
        came.append(number)

    try:
        with _handled(note):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextmanager
def announcements_blocked() -> Iterator[None]:
    """Start processes meanwhile that do not die of what is sent to all of a terminal or a job."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, ANNOUNCING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    old = {
        number: signal.signal(number, handler)
        for number in (*ENDING, *ANNOUNCING)
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
