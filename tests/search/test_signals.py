"""Signals end a command that runs a study in order, wherever it stands and all the same way."""

import gc
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from search.driver.signals import ANNOUNCING, ENDING, interruptible, on_interrupt, put_off
from search.ray_internals import sigterm_left_alone
from search.terminal import drop_lost_output
from tcpa_core.errors import StoppedError

ALL = (*ENDING, *ANNOUNCING)


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    given = [signal.getsignal(number) for number in ALL]
    for number, handler in zip(ALL, given, strict=True):
        if handler == signal.SIG_IGN:  # the tests themselves run under nohup
            signal.signal(number, signal.SIG_DFL)
    before = [signal.getsignal(number) for number in ALL]
    yield
    assert [signal.getsignal(number) for number in ALL] == before
    for number, handler in zip(ALL, given, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_before_a_study_runs_ends_the_command(number: signal.Signals) -> None:
    with pytest.raises(StoppedError, match=rf"interrupted by {number.name}; .*--resume"):
        with interruptible():
            signal.raise_signal(number)
            pytest.fail("it went on")


@pytest.mark.parametrize("number", ALL)
def test_a_signal_while_it_runs_is_a_reason_to_stop(number: signal.Signals) -> None:
    reasons: list[str] = []
    with interruptible(), on_interrupt(reasons.append):
        signal.raise_signal(number)
        assert reasons == [f"interrupted by {number.name}"]
        # A second Ctrl-C or SIGTERM ends at once; one after an announcement is the first.
        expected = signal.SIG_DFL if number in ENDING else signal.getsignal(signal.SIGUSR1)
        assert [signal.getsignal(name) for name in ENDING] == [expected] * 2
        if number in ANNOUNCING:
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGTERM)
            assert reasons[1:] == [reasons[0], "interrupted by SIGTERM"]


def test_between_two_runs_a_signal_ends_the_command() -> None:
    with pytest.raises(StoppedError, match="SIGUSR1"), interruptible():
        with on_interrupt(lambda reason: None):
            pass
        signal.raise_signal(signal.SIGUSR1)


class _Finalized:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_comes_where_python_cannot_raise_is_not_lost() -> None:
    reasons: list[str] = []
    with interruptible():
        one = _Finalized()
        del one
        gc.collect()
        with on_interrupt(reasons.append):
            assert reasons == ["interrupted by SIGTERM"]


@pytest.mark.parametrize("number", ALL)
def test_a_signal_while_ray_starts_waits_until_it_has_started(number: signal.Signals) -> None:
    done = []
    with pytest.raises(StoppedError, match=number.name), interruptible():
        with put_off(), sigterm_left_alone():
            signal.raise_signal(number)
            done.append("started")
        done.append("went on")
    assert done == ["started"]


@pytest.mark.parametrize("number", ALL)
def test_a_signal_that_waits_is_answered_at_once(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StoppedError), interruptible():
        with put_off("Ray has started"):
            signal.raise_signal(number)
            said = capfd.readouterr().err
    second = "; a second one ends at once" if number in ENDING else ""
    assert said == f"\n{number.name}: stopping once Ray has started{second}\n"


WATCHED = """
import time
from rich.console import Console
from search.driver.signals import on_interrupt
from search.verbs.progress import Watch
from tests.journals import event
from tests.search.conftest import make_space

params = {"optim.lr": 0.1, "seed": 0, "train.epochs": 4}
with Watch("s", make_space(), 12, Console()) as watch, on_interrupt(watch.stop):
    for kind in ("planned", "started"):
        watch(event({"kind": kind, "trial": "00000", "params": params, "device": "cpu"}))
    for _ in range(100):  # a signal ends one of them
        time.sleep(1)
"""
SHOW_CURSOR = b"\x1b[?25h"


class Terminal:
    """A process on a terminal of its own, and what it has written there."""

    def __init__(self, code: str) -> None:
        self.said = b""
        env = {k: v for k, v in os.environ.items() if k not in ("CI", "JPY_PARENT_PID")}
        env |= {"TERM": "xterm", "COLUMNS": "100", "LINES": "24"}
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, "-c", code], env)

    def wait_for(self, text: bytes) -> None:
        """Read until it is there; a process that ends before fails the test."""
        while text not in self.said:
            self._read(text)

    def type(self, keys: bytes) -> None:
        os.write(self._end, keys)

    def finish(self) -> int:
        """The exit code, once nothing comes any more; of a signal its number, negative."""
        with suppress(OSError):
            while chunk := os.read(self._end, 4096):
                self.said += chunk
        os.close(self._end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self, wanted: bytes) -> None:
        try:
            self.said += os.read(self._end, 4096)
        except OSError:
            pytest.fail(f"it ended without {wanted!r}: {self.said!r}")


def test_ctrl_c_is_answered_and_a_second_one_leaves_the_terminal_its_cursor() -> None:
    terminal = Terminal(WATCHED)
    terminal.wait_for(b"00000    0/4")
    assert SHOW_CURSOR not in terminal.said
    terminal.type(b"\x03")
    terminal.wait_for(b"interrupted by SIGINT: stopping at the next epoch boundary; Ctrl-C again")
    terminal.wait_for(SHOW_CURSOR)
    terminal.type(b"\x03")
    assert terminal.finish() == -signal.SIGINT


def test_ray_does_not_take_sigterm_for_itself() -> None:
    from ray._private import utils

    before = signal.getsignal(signal.SIGTERM)
    with sigterm_left_alone():
        utils.set_sigterm_handler(lambda number, frame: sys.exit(number))
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_hang_up_that_is_ignored_stays_so() -> None:
    """As `nohup` starts a command."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible(), on_interrupt(lambda reason: pytest.fail("it was heard")):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_error_of_the_command_stays_its_error() -> None:
    with pytest.raises(KeyError), interruptible():
        raise KeyError("x")
    with suppress(KeyboardInterrupt), interruptible():
        raise KeyboardInterrupt  # of a library, not of a signal


LOST = """
import os, sys
from search.terminal import drop_lost_output
drop_lost_output()
print("read", flush=True)
sys.stdin.readline()
drop_lost_output()
print("nobody reads this", flush=True)
os.write(2, b"it went on")
"""


def test_output_that_nobody_reads_any_more_stops_nothing() -> None:
    command = [sys.executable, "-c", LOST]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        assert process.stdout.readline() == b"read\n", "what is read is not dropped"
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stderr.read() == b"it went on"
        assert process.wait(60) == 0


PRINTS = """
import sys, threading
from search.terminal import StudyConsole
console = StudyConsole()
console.print("read")
sys.stdin.readline()
for _ in range(9):
    thread = threading.Thread(target=console.print, args=["nobody reads this"])
    thread.start()
    thread.join()
    console.print("nor this")
print("it went on", file=sys.stderr)
"""


def test_a_study_goes_on_when_nobody_reads_what_it_prints() -> None:
    command = [sys.executable, "-c", PRINTS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        assert process.stdout.readline() == b"read\n"
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stderr.read() == b"it went on\n"
        assert process.wait(60) == 0


def test_output_that_is_read_is_left_alone() -> None:
    before = [os.fstat(fd) for fd in (1, 2)]
    drop_lost_output()
    assert [os.fstat(fd).st_ino for fd in (1, 2)] == [one.st_ino for one in before]
