"""Text that a terminal can show: names and values in it cannot move the cursor or flood it."""

from typing import NoReturn

import typer

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


def leave(code: int) -> NoReturn:
    """End the command with an exit code."""
    raise typer.Exit(code)
