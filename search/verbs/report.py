"""Reports of a study: once, after a confirmation, or again and again while it runs."""

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from reports.build import build_report
from search.study.folder import StudyDir
from search.verbs.stages import Stages


def report_text(study: StudyDir) -> str:
    """Build a study's report; what it holds and where it is, in lines."""
    with Stages("report") as stages:
        return "\n".join(build_report(study.path, progress=stages).lines())


def report_confirmed(folder: Path, console: Console) -> None:
    """Build the report of a confirmation that has ended, and say where it is."""
    # Also where a trial has failed: the verdict says what it lacks.
    if StudyDir(folder).state().is_finished:
        with Stages("report") as stages:
            summary = build_report(folder, progress=stages)
        console.print(f"Intervals and paired tests: {summary.html}", markup=False, soft_wrap=True)


def follow(study: StudyDir, build: Callable[[], str], console: Console, every_s: float) -> None:
    """Build a study's report again whenever its journal has grown, until its driver ends.

    Args:
        build: Makes the report and says in a line what it holds.
        every_s: Seconds between two looks at the journal.
    """
    size = -1
    while True:
        # Asked before the size: what the driver wrote last is then seen by a further look.
        runs = study.driver() is not None
        now = study.journal_path.stat().st_size if study.journal_path.exists() else 0
        if now != size:
            console.print(build(), markup=False, soft_wrap=True)
            size = now
        elif not runs:
            return
        if runs:
            time.sleep(every_s)
