"""Where a study stands, and how to end the driver that runs it: nothing heavy is loaded."""

import os
import signal
import socket
import time
from collections import Counter

from rich.console import Console

from search.study.folder import StudyDir
from tcpa_core.errors import StudyError


def show_status(study: StudyDir, console: Console) -> None:
    """Print counts, the selected point and the last failure."""
    state = study.state()
    results = study.outline().results(state)
    last = state.last.kind if state.last else "planned"
    # The journal cannot tell a trial that runs from one whose driver died: the lock can.
    names = {"planned": "waiting", "running": "running" if study.driver() else "interrupted"}
    found = Counter(names.get(one.status, one.status) for one in state.trials.values())
    counts = ", ".join(f"{n} {name}" for name, n in sorted(found.items()))
    console.print(f"{study.name}: {counts or 'no trial yet'}; last event: {last}.", markup=False)
    if state.waiting and state.waiting_since and study.driver():
        minutes = max(0.0, time.time() - state.waiting_since) / 60
        text = f"{state.waiting.text} (for {minutes:.0f} min)"
        console.print(text, markup=False, soft_wrap=True)
    ranking = results.ranking()
    if ranking.selected:
        best = f"best {results.objective.metric} {ranking.selected.text()}"
        console.print(best, markup=False, soft_wrap=True)
        if ranking.note:
            console.print(ranking.note, markup=False, soft_wrap=True)
    failed = [one.ended for one in state.trials.values() if one.ended and one.status == "failed"]
    if failed:
        last_one = max(failed, key=lambda event: event.n or 0)
        text = f"last failure, trial {last_one.trial}: {last_one.result.reason}"
        console.print(text, markup=False)


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
