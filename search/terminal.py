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


def leave(code: int) -> NoReturn:
    """End the command with an exit code."""
    raise typer.Exit(code)
