"""Text that a terminal can show: names and values in it cannot move the cursor or flood it."""

import os
import select
import sys
from typing import NoReturn

import typer
from rich.console import Console

MAX_SHOWN = 2_000
"""Characters of a message; a value in it may be a whole file."""


def printable(text: str) -> str:
    """The text with its control characters as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """A message as one line of bounded length."""
    shown = printable(text)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]} ..."


def bytes_text(count: float) -> str:
    """A size as people read it: "170.5 MB"."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.0f} B" if units[0] == "B" else f"{count:.1f} {units[0]}"


def time_text(seconds: float) -> str:
    """A time as people read it: "12 s", "4 min", "2 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def drop_lost_output() -> None:
    """Send what is still printed nowhere if its terminal is closed or nobody reads the pipe.

    A write there would raise, and end a study for the sake of a line.
    """
    for file in (sys.__stdout__, sys.__stderr__):
        if file is None or file.closed:
            continue
        output = select.poll()
        output.register(file, select.POLLOUT)
        if any(is_lost & (select.POLLERR | select.POLLHUP) for _, is_lost in output.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)


class StudyConsole(Console):
    """Of verbs that run studies: what nobody sees any more ends none of them."""

    def on_broken_pipe(self) -> None:
        """Print nowhere from now on; rich would end the process, or the thread that prints."""
        drop_lost_output()


_PLAIN = ("CI", "JPY_PARENT_PID")
"""Variables of build machines and notebooks: what they show of a terminal is a log."""


def is_live(console: Console) -> bool:
    """Whether lines may be drawn again: only where somebody watches a terminal that can.

    Not in a pipe or a file, whatever FORCE_COLOR says, on a dumb terminal, on a build machine or in
    a notebook.
    """
    if console.is_dumb_terminal or any(os.environ.get(name) for name in _PLAIN):
        return False
    # rich takes a pipe for a terminal where colours are asked for
    is_forced = any(os.environ.get(name) for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))
    return console.is_terminal and (console.file.isatty() or not is_forced)


def leave(code: int) -> NoReturn:
    """End the command with an exit code."""
    raise typer.Exit(code)
