"""What a user sees while a study runs: a live table, or plain lines where there is no terminal."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from search.verbs.stages import PLAIN_S
from spaces.selection import Results
from spaces.space import Space
from tcpa_core.record.events import Ended, Epoch, Event, Notice, TrialEvent
from tcpa_core.record.state import StudyState

REMIND_S = 60.0
"""A log says again that workers wait for a place after so long without a line."""


class Watch:
    """Listens to a study's events and shows where it stands.

    Args:
        title: Name of the study.
        space: For the objective and the varied settings.
        total: Trials planned; None: not known.
    """

    def __init__(
        self, title: str, space: Space, total: int | None, console: Console | None = None
    ) -> None:
        self._console = console or Console(file=sys.stdout)
        self._title = title
        self._metric = space.objective[0].metric
        self._axes = list(space.axes)
        self._total = total
        self._lock = threading.Lock()
        # Every epoch asks for the best point: it is ranked again only when a result has changed.
        self._results = Results.of(space, StudyState())
        self._state = self._results.state
        self._left: set[str] = set()
        """Trials that earlier drivers left running: they wait for a place."""
        self._message = ""
        self._started = time.monotonic()
        self._new_finals = 0
        self._last_line = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("trials", total=total)
        self._ended = threading.Event()
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        else:
            threading.Thread(target=self._remind, name="reminder", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._console.is_terminal:
            self._live.stop()

    def say(self, line: str) -> None:
        """Show a line that the user can act on, for example that the tracker is down."""
        with self._lock:
            self._message = line
        if not self._console.is_terminal:
            self._console.print(line, markup=False)

    def __call__(self, event: Event) -> None:
        """Take a journal event."""
        with self._lock:
            self._update(event)
        if not self._console.is_terminal:
            self._print_plain(event)

    def recall(self, events: Iterable[Event]) -> None:
        """Take what earlier drivers recorded: it is shown as it stands, and nothing of it is new.

        Trials that they left wait for a place, and none of theirs counts for the rate.
        """
        with self._lock:
            for event in events:
                self._update(event)
            trials = self._state.trials.items()
            self._left = {name for name, one in trials if one.status == "running"}
            # The rate and the time left are those of this driver alone.
            self._bar.reset(self._task, completed=self._new_finals, total=self._total)
            self._new_finals = 0
            self._message = ""

    def _update(self, event: Event) -> None:
        self._state.take(event)
        if isinstance(event, TrialEvent):
            self._left.discard(event.trial)
        if isinstance(event, Ended):
            self._new_finals += 1
            self._bar.update(self._task, advance=1)
            if event.kind == "failed":
                self._message = f"trial {event.trial} failed: {event.result.reason}"
        elif isinstance(event, Notice) and not event.waits:  # else it has a line of its own
            self._message = event.text

    def _remind(self) -> None:
        while not self._ended.wait(REMIND_S / 12):
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
        return f"{waiting.text} (for {max(0.0, time.time() - since) / 60:.0f} min)"

    def _counts(self) -> str:
        counts = Counter(map(self._shown, self._state.trials))
        return ", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "starting"

    def _shown(self, trial: str) -> str:
        status = self._state.trials[trial].status
        return "waiting" if status == "planned" or trial in self._left else status

    def _rate(self) -> str:
        hours = (time.monotonic() - self._started) / 3600
        return f"{self._new_finals / hours:.0f} trials/h" if self._new_finals else "-"

    def _best_line(self) -> str:
        best = self._results.ranking().selected
        if best is None:
            return "-"
        planned = self._state.trials[best.trials[0]].planned
        params = planned.params
        shown = [f"{path}={_short(params[path])}" for path in self._axes if path in params]
        shown += [f"{cell['factor']}={cell['level']}" for cell in planned.cells]  # of a design
        return f"{self._metric} {best.text(', '.join(shown))}"

    def _render(self) -> Group:
        with self._lock:
            table = Table(title=self._title, show_header=False, title_justify="left")
            table.add_row("trials", self._counts())
            table.add_row("best so far", Text(self._best_line()))
            table.add_row("rate", self._rate())
            if waiting := self._waiting_line():
                table.add_row("places", Text(waiting))
            if self._message:
                table.add_row("note", Text(self._message))
            return Group(table, self._bar)

    def _print_plain(self, event: Event) -> None:
        if isinstance(event, Ended):
            value = getattr(event.result, self._metric, None)
            shown = "" if value is None else f" {self._metric} {value:.4f}"
            reason = f": {event.result.reason}" if event.result.reason else ""
            self._line(f"trial {event.trial} {event.kind}{shown}{reason}")
        elif isinstance(event, Notice):
            self._line(event.text)
        elif isinstance(event, Epoch) and time.monotonic() - self._last_line > PLAIN_S:
            self._line(f"{self._counts()}; best {self._best_line()}; {self._rate()}")

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "+".join(value) if isinstance(value, list) else str(value)
