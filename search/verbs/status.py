"""Where a study stands, and how to end the driver that runs it: nothing heavy is loaded."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from datetime import datetime

from rich.console import Console

from search.study.folder import StudyDir
from search.terminal import one_line, time_text
from search.verbs.live_view import left_text, peak_text, progress_text, rate_text
from search.verbs.look import Look
from search.verbs.standing import OpenTrial, View, counts_text, reused_text
from tcpa_core.errors import StudyError

SHOWN = 10
"""Open trials that have a line of their own."""


def show_status(study: StudyDir, console: Console) -> None:
    """Print what runs and where, what is selected, what failed or was stopped, and what is next."""
    for line in status_lines(Look.at(study)):
        console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)


def status_lines(look: Look) -> Iterator[str]:
    """A look at a study in words."""
    view, state = look.view, look.view.state
    last = state.last.kind if state.last else "planned"
    yield f"{look.study.name}: {counts_text(view.counts) or 'no trial yet'}; last event: {last}."
    yield f"{look.kind}, {look.phase}{_of_total(view)}, {_times(view)}"
    if look.driver:
        yield f"run by pid {look.driver.pid} of {look.driver.host} since {look.driver.since}"
    if state.waiting and state.waiting_since and look.driver:
        minutes = max(0.0, time.time() - state.waiting_since) / 60
        yield f"{state.waiting.text} (for {minutes:.0f} min)"
    yield from _open_lines(view)
    yield from _best_lines(view)
    if peak := view.leading:
        yield f"leading {peak_text(view, peak)}"
    for reason in view.failures:
        yield f"failed: {reason}"
    if view.reused:
        yield f"trials: {reused_text(view)}"
    if view.stopped_at:
        parts = [f"{n} after epoch {epoch}" for epoch, n in view.stopped_at.items()]
        yield f"stopped early: {', '.join(parts)}"
    confirmation = look.confirmation()
    if confirmation is not None:
        yield f"confirmed by {confirmation.study.name}, {confirmation.phase}"
    yield f"next: {' | '.join(look.next_commands(confirmation))}"


def _best_lines(view: View) -> Iterator[str]:
    selected, trials = view.selected, view.state.trials
    if selected is None:
        return
    yield f"best {view.outline.metric} {selected.text()}"
    settings = view.settings_text(trials[selected.trials[0]].planned, len(selected.trials))
    if settings:
        yield f"  its setting: {settings}"
    score = view.outline.score
    for name in (score.test, *score.variants):
        known = [
            value for one in selected.trials if (value := trials[one].on_test(name)) is not None
        ]
        if known:
            yield f"  its {name}: {sum(known) / len(known):.4f}"
    if note := view.results.ranking().note:
        yield note


def _of_total(view: View) -> str:
    of = f" of {view.total}" if view.total else ""
    return f": {view.num_ended}{of} trials ended"


def _times(view: View) -> str:
    pace = view.pace
    parts = [progress_text(pace), f"elapsed {time_text(view.elapsed_s)}"]
    if view.is_run:
        parts += [rate_text(pace), left_text(pace)]
    elif view.num_left and left_text(pace):
        parts.append(f"{left_text(pace)} at its pace so far")
    return ", ".join(filter(None, parts))


def _open_lines(view: View) -> Iterator[str]:
    for one in view.open[:SHOWN]:
        yield f"  {_open_line(view, one)}"
    if len(view.open) > SHOWN:
        yield f"  ... and {len(view.open) - SHOWN} more"


def _open_line(view: View, one: OpenTrial) -> str:
    value = one.state.values.get(one.state.epoch)
    parts = [f"trial {one.name}: epoch {one.epochs_text}"]
    if value is not None:
        parts.append(f"{view.outline.metric} {value:.4f}")
    parts += filter(None, (one.settings,))
    if view.is_run and one.state.started:
        since = datetime.fromtimestamp(one.state.started.t).strftime("%H:%M:%S")
        place = f"{one.device} of {one.host}" if one.host else one.device or "a worker"
        parts.append(f"on {place} since {since}")
    return ", ".join(parts)


def stop_driver(study: StudyDir, console: Console) -> None:
    """Send SIGTERM to the driver that runs a study.

    Raises:
        StudyError: Nobody runs it, or another machine does.
    """
    found = study.driver()
    if found is None:
        raise StudyError(f"study {study.name!r} is not running.")
    if found.host != socket.gethostname() or not study.is_held_by(found):
        raise StudyError(
            f"study {study.name!r} is run on {found.host} (pid {found.pid}), by no process that "
            "can be seen from here; run 'tcpa stop' there."
        )
    # The driver ends as on Ctrl-C: at an epoch boundary, with all that is trained on disk.
    os.kill(found.pid, signal.SIGTERM)
    console.print(
        f"{study.name}: told pid {found.pid} to stop; it ends at the next epoch boundary. "
        f"Continue with: tcpa resume {study.name}",
        markup=False,
        soft_wrap=True,
    )
