"""The live view as lines of text that fit a terminal: what the study has done, and who trains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from search.terminal import one_line, time_text
from search.verbs.pace import Pace
from search.verbs.standing import OpenTrial, Peak, View, counts_text, reused_text

INDENT = 10
"""Columns of the words in front of a line."""
WITH_LOSS, WITH_DEVICE = 50, 70
"""Columns of a terminal from which a trial's loss and device are shown."""
NOTE_LINES = 3
"""Most lines of a note."""


@dataclass(slots=True)
class Page:
    """Lines of a terminal, each no longer than it is wide."""

    width: int
    lines: list[tuple[str, str]] = field(default_factory=list)
    """Text and style."""

    def add(self, text: str, style: str = "") -> None:
        """A line, cut where the terminal ends."""
        text = one_line(text)
        if cell_len(text) > self.width:
            text = f"{set_cell_size(text, max(0, self.width - 1)).rstrip()}…"
        self.lines.append((text, style))

    def say(self, word: str, text: str, most: int = 2) -> None:
        """A sentence behind a word, in as many lines as it takes up to `most`."""
        width = max(10, self.width - INDENT)
        parts = wrap(one_line(text), width, max_lines=most, placeholder=" …") or [""]
        for number, part in enumerate(parts):
            self.add(f"{'' if number else word:<{INDENT}}{part}")

    def text(self) -> Text:
        """All of it for rich."""
        found = Text(no_wrap=True, overflow="crop")
        for number, (line, style) in enumerate(self.lines):
            found.append("\n" * bool(number) + line, style)
        return found


def live_page(
    title: str,
    view: View,
    size: tuple[int, int],
    *,
    elapsed: str,
    waiting: str = "",
    note: str = "",
    stopping: bool = False,
    draw_bar: bool = True,
) -> Page:
    """The view of a moment.

    Args:
        size: Columns and lines of the terminal.
        waiting: What workers wait for.
        stopping: Whether it ends at the next epoch boundary.
        draw_bar: Whether the terminal has the characters of a bar.
    """
    width, height = size
    page = Page(width)
    left = "stopping" if stopping else left_text(view.pace) if view.is_run else ""
    times = f"{elapsed}{', ' * bool(left)}{left}"
    gap = max(2, width - cell_len(title) - cell_len(times))
    page.add(f"{title}{' ' * gap}{times}", "bold")
    of = f"{view.num_ended}/{view.total}" if view.total else str(view.num_ended)
    reused = f"; {reused_text(view)}" if view.reused else ""
    page.say("trials", f"{of} ended: {counts_text(view.counts) or 'starting'}{reused}")
    page.say("epochs", _epochs(view, width if draw_bar else 0), most=1)
    peak, best = view.leading, view.best_text()
    if best != "-" or peak is None:
        page.say("best", best)
    if peak is not None:
        page.say("leading", peak_text(view, peak))
    tail = Page(width)
    if waiting:
        tail.say("places", waiting)
    if note:
        tail.say("note", note, NOTE_LINES)
    _rows(page, view, height - len(page.lines) - len(tail.lines) - 1)
    page.lines += tail.lines
    del page.lines[max(1, height - 1) :]
    return page


def left_text(pace: Pace) -> str:
    """ "about 4 min left"; "": not known."""
    return "" if pace.left_s is None else f"about {time_text(pace.left_s)} left"


def rate_text(pace: Pace) -> str:
    """ "24 epochs/min"; "": not known."""
    if pace.epochs_per_h is None:
        return ""
    per_min = pace.epochs_per_h / 60
    rate, unit = (per_min, "min") if per_min >= 2 else (pace.epochs_per_h, "h")
    return f"{rate:,.{0 if rate >= 10 else 1}f} epochs/{unit}"


def progress_text(pace: Pace) -> str:
    """ "31 of about 62 epochs"."""
    if pace.epochs_left is None:
        return f"{pace.epochs} epochs"
    about = "about " * (pace.epochs_left > 0)
    return f"{pace.epochs} of {about}{pace.epochs + round(pace.epochs_left)} epochs"


def peak_text(view: View, peak: Peak) -> str:
    """ "val_accuracy 0.8340 at epoch 3 of 4 (trial 00005, still running: vpt, lr 0.01)"."""
    settings = view.settings_text(peak.state.planned)
    how = "still running" if view.is_run else "interrupted"
    of = f" of {peak.state.epochs}" if peak.state.epochs else ""
    named = f"trial {peak.name}, {how}{': ' * bool(settings)}{settings}"
    return f"{view.outline.metric} {peak.value:.4f} at epoch {peak.epoch}{of} ({named})"


def _epochs(view: View, width: int) -> str:
    pace = view.pace
    text = progress_text(pace)
    if view.is_run and (rate := rate_text(pace)):
        text += f", {rate.replace(' epochs', '')}"
    room = min(30, width - INDENT - cell_len(text) - 1)
    if pace.epochs_left is None or room < 5:
        return text
    share = pace.epochs / max(1.0, pace.epochs + pace.epochs_left)
    done = int(share * room)
    return f"{'━' * done}{'─' * (room - done)} {text}"


def _rows(page: Page, view: View, room: int) -> None:
    """A line for each trial that is open, as far as there is room for all of them."""
    trials: Sequence[OpenTrial] = view.open
    if not trials or room < 2:
        if trials and room == 1:
            page.add(f"{len(trials)} trials {'run' if view.is_run else 'are open'}")
        return
    shown = trials if len(trials) < room else trials[: max(0, room - 2)]
    columns = _columns(view, page.width)
    cells = [[heading, *(of(one) for one in shown)] for heading, of, _ in columns]
    widths = [max(map(cell_len, cell)) for cell in cells]
    fixed = sum(widths) + 2 * (len(widths) - 1)
    flexible = next(i for i, (heading, _, _) in enumerate(columns) if heading == "setting")
    widths[flexible] = max(8, min(widths[flexible], widths[flexible] + page.width - fixed))
    for number, row in enumerate(zip(*cells, strict=True)):
        parts = [
            f"{' ' * (width - cell_len(cell))}{cell}" if is_right else _cut(cell, width)
            for cell, width, (_, _, is_right) in zip(row, widths, columns, strict=True)
        ]
        page.add("  ".join(parts).rstrip(), "" if number else "dim")
    if len(shown) < len(trials):
        rest = len(trials) - len(shown)
        page.add(f"... and {rest} more {'run' if view.is_run else 'are open'}", "dim")


Column = tuple[str, Callable[[OpenTrial], str], bool]
"""Heading, text of a trial, whether it is flush right."""


def _columns(view: View, width: int) -> list[Column]:
    metric = view.outline.metric
    hosts = {one.host for one in view.open}
    columns: list[Column] = [
        ("trial", lambda one: one.name, False),
        ("epoch", lambda one: one.epochs_text, True),
    ]
    if width >= WITH_LOSS:
        columns.append(("loss", lambda one: _number(_loss(one)), True))
    if (view.state.metric or "").startswith("val_"):  # it is measured each epoch
        columns.append((metric, lambda one: _number(one.state.values.get(one.state.epoch)), True))
    columns.append(("setting", lambda one: one.settings or "-", False))
    if width >= WITH_DEVICE:
        columns.append(("device", lambda one: _place(one, len(hosts) > 1), False))
    return columns


def _place(one: OpenTrial, with_host: bool) -> str:
    host = one.host.partition(".")[0]
    return f"{one.device} {host}" if with_host and host else one.device or "-"


def _loss(one: OpenTrial) -> float | None:
    return one.state.report.train_loss if one.state.report else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _cut(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text + " " * (width - cell_len(text))
    return set_cell_size(text, max(0, width - 1)) + "…"
