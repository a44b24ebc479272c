"""What a user sees while a study runs: a live view, or plain lines where there is no terminal."""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from search.study.outline import Outline
from search.terminal import drop_lost_output, is_live, one_line, time_text
from search.verbs.live_view import live_page
from search.verbs.run_lines import (
    closing_lines,
    ended_line,
    progress_line,
    recalled_line,
    stop_line,
)
from search.verbs.stages import PLAIN_S
from search.verbs.standing import View
from spaces.space import Space
from tcpa_core.record.events import Ended, Epoch, Event, Notice, Resumed
from tcpa_core.record.state import StudyState

REMIND_S = 60.0
"""A log says again that workers wait for a place after so long without a line."""
LOOK_S = 0.25
"""How often it is looked whether a signal has come."""
DRAW_S = 0.5
"""Least time between two drawings of the live view."""
DRAW_SHARE = 0.05
"""Most of a core that drawing may take: that of a large study is drawn more seldom."""


class Watch:
    """Listens to a study's events and shows where it stands.

    Args:
        title: Name of the study.
        space: For the objective and the varied settings.
        total: Trials planned; None: not known.
        live: Whether the view is drawn again and again; None: where the console is a terminal.
        again: The command that goes on with the study once it was stopped.
        clock: Unix time in seconds, as events have it.
    """

    is_brief = False
    """Only what needs a reader is printed, and nothing stays of what was drawn."""

    def __init__(
        self,
        title: str,
        space: Space,
        total: int | None,
        console: Console | None = None,
        *,
        live: bool | None = None,
        again: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._console = console or Console(file=sys.stdout)
        self._is_live = is_live(self._console) if live is None else live
        self._title = title
        self._outline = Outline.model_validate(space.as_dict())
        self._total = total
        self._again = again or f"tcpa resume {title}"
        self._clock = clock
        self._lock = threading.Lock()
        self._state = StudyState(self._outline.metric)
        # Every epoch asks for the best point: it is ranked again only when a result has changed.
        self._results = self._outline.results(self._state)
        self._is_run = True
        self._message = ""
        self._begun = clock()
        self._before_s = 0.0
        """Seconds that earlier drivers ran."""
        self._last_line = time.monotonic() if self.is_brief else 0.0
        self._is_told = False
        """An event of this driver has come."""
        self._reason = ""
        """Why the study is to stop; "": it is not."""
        self._ended = threading.Event()
        self._live = Live(console=self._console, auto_refresh=False, transient=self.is_brief)
        self._thread = threading.Thread(target=self._look, name="view", daemon=True)

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._is_run = False
        if self._is_live:
            self._draw()
            self._live.stop()
        for line in closing_lines(self._view()) if self._is_told else ():
            self._line(line)

    def say(self, line: str) -> None:
        """Show a line that the user can act on, for example that the tracker is down."""
        with self._lock:
            self._message = line
        if not self._is_live:
            self._line(line)

    def stop(self, reason: str) -> None:
        """Say that the study stops, and how; called where a signal is handled.

        Nothing is printed or locked here: the thread that was interrupted may be doing that.
        """
        self._reason = reason

    def __call__(self, event: Event) -> None:
        """Take a journal event."""
        self._is_told = True
        with self._lock:
            self._update(event)
        if not self._is_live:
            self._print_plain(event)

    def recall(self, events: Iterable[Event]) -> None:
        """Take what earlier drivers recorded: it is shown as it stands, and nothing of it is new.

        Trials that they left wait for a place, and none of theirs counts for the rate.
        """
        with self._lock:
            for event in events:
                self._update(event)
            self._state.new_driver()
            self._before_s = 3600 * self._state.spent.hours()
            self._message = ""

    def _update(self, event: Event) -> None:
        self._state.take(event)
        if isinstance(event, Ended) and event.kind == "failed":
            self._message = f"trial {event.trial} failed: {event.result.reason}"
        elif isinstance(event, Notice) and not event.waits:  # else it has a line of its own
            self._message = event.text

    def _view(self) -> View:
        return View(
            self._state,
            self._outline,
            self._total,
            is_run=self._is_run,
            now=self._clock(),
            results=self._results,
        )

    def _look(self) -> None:
        """Draw the live view, remind of what is waited for, and tell that a signal has come."""
        is_told, drawn, pause = False, 0.0, 0.0
        while not self._ended.wait(min(LOOK_S, REMIND_S / 12)):
            try:
                if self._reason and not is_told:
                    is_told = True
                    self._tell_stop()
                if self._is_live and time.monotonic() - drawn >= pause:
                    drawn = time.monotonic()
                    self._draw()
                    pause = max(DRAW_S, (time.monotonic() - drawn) / DRAW_SHARE)
                elif not self._is_live:
                    self._remind()
            except OSError:  # of a closed terminal
                drop_lost_output()

    def _draw(self) -> None:
        self._live.update(self._render(), refresh=True)

    def _tell_stop(self) -> None:
        with self._lock:
            line = stop_line(self._reason, self._view(), self._again)
        self._line(line)
        if self._is_live:
            # A second Ctrl-C ends this process before it could give the cursor back.
            self._console.show_cursor(True)

    def _remind(self) -> None:
        with self._lock:
            text = self._waiting_line()
            is_silent = time.monotonic() - self._last_line >= REMIND_S
        if text and is_silent:
            self._line(text)

    def _waiting_line(self) -> str:
        """What workers wait for, and for how long already."""
        waiting, since = self._state.waiting, self._state.waiting_since
        if waiting is None or since is None:
            return ""
        return f"{waiting.text} (for {max(0.0, self._clock() - since) / 60:.0f} min)"

    def _best_line(self) -> str:
        return self._view().best_text()

    def _elapsed(self) -> str:
        here = max(0.0, self._clock() - self._begun)
        before = f" ({time_text(self._before_s + here)} in all)" if self._before_s >= 1 else ""
        return f"elapsed {time_text(here)}{before}"

    def _render(self) -> Text:
        size = self._console.size
        with self._lock:
            return live_page(
                self._title,
                self._view(),
                (size.width, size.height),
                elapsed=self._elapsed(),
                waiting=self._waiting_line(),
                note=self._message,
                stopping=bool(self._reason) and self._is_run,
                draw_bar=not self._console.options.ascii_only,
            ).text()

    def _print_plain(self, event: Event) -> None:
        pause = REMIND_S if self.is_brief else PLAIN_S
        if isinstance(event, Ended) and (event.kind == "failed" or not self.is_brief):
            with self._lock:
                line = ended_line(self._view(), event)
            self._line(line)
        elif isinstance(event, Notice):
            self._line(event.text)
        elif isinstance(event, Resumed):
            with self._lock:
                line = recalled_line(self._title, self._view())
            self._line(line)
        elif isinstance(event, Epoch) and time.monotonic() - self._last_line > pause:
            with self._lock:
                line = progress_line(self._view())
            self._line(f"{self._title}: {line}" if self.is_brief else line)

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)
