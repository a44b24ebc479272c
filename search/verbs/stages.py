"""How far a long stage is: a bar on a terminal, and a line now and then in a log."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from search.terminal import StudyConsole, bytes_text, is_live, time_text

PLAIN_S = 10.0
"""Least time between two lines where there is no terminal; a verb that is faster prints none."""
DRAW_S = 0.1
"""Least time between two drawings of a bar: a stage may count a million images."""


class Stages:
    """Shows the long stages of a verb, one at a time: count, rate and time left.

    An instance is the `progress` that `load_dataset`, `plan_space` and others call. It writes to
    stderr, so that what a verb prints can be piped.

    Args:
        title: What is being done before the first stage.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._console = console or StudyConsole(stderr=True)
        self._title = title
        self._stage = ""
        self._unit = ""
        self._started = self._shown = time.monotonic()
        self._first = 0
        """What was done already when the stage began: it took none of the time."""
        self._is_told = False
        """A line has told of this stage, so that another one ends it."""
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if is_live(self._console):
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[count]}", markup=False),
                console=self._console,
                transient=True,
                redirect_stdout=False,  # what a verb prints goes where its user sends it
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None, count="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take how many of the stage's items are done; 0 of 0 where they cannot be counted."""
        self._update(stage, done, total, "")

    def bytes(self, stage: str, done: int, total: int) -> None:
        """Take how many of the stage's bytes are done."""
        self._update(stage, done, total, "B")

    def say(self, text: str) -> None:
        """Print a line that stays, above the bar; in a log to stdout, as it is no error."""
        console = self._console if self._bar else StudyConsole()
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _update(self, stage: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if is_new := stage != self._stage:
            self._stage, self._unit, self._first = stage, unit, done
            self._started, self._is_told = now, False
        is_last = 0 < total <= done
        since = now - self._shown
        if self._bar and self._task is not None:
            if is_new or is_last or since >= DRAW_S:
                self._shown = now
                self._bar.update(
                    self._task,
                    description=stage,
                    completed=done,
                    total=total or None,
                    count=self._counted(done, total, now),
                )
        elif since >= PLAIN_S or (is_last and self._is_told):
            self._shown, self._is_told = now, not is_last
            self._console.print(
                f"{stage}: {self._counted(done, total, now)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _counted(self, done: int, total: int, now: float) -> str:
        """ "1,200 of 50,000, 340/s, 2 min left", or with bytes "12.3 MB of 170.5 MB, ..."."""
        if not total:
            return f"since {time_text(now - self._started)}"
        size = bytes_text if self._unit else "{:,}".format
        text = f"{size(done)} of {size(total)}"
        seconds = now - self._started
        if done <= self._first or seconds <= 0:
            return text
        rate = (done - self._first) / seconds
        if done >= total:
            return f"{text} in {time_text(seconds)}"
        shown = f"{bytes_text(rate)}/s" if self._unit else f"{rate:,.{0 if rate >= 10 else 1}f}/s"
        return f"{text}, {shown}, {time_text((total - done) / rate)} left"
