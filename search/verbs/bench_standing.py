"""Where the cells of a bench stand, from their files alone."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console

from search.study.bench_folder import BenchRecord
from search.study.folder import StudyDir
from search.terminal import one_line
from search.verbs.documents import SCHEMA
from search.verbs.look import Look
from spaces.confirmations import confirmed_name
from tcpa_core.errors import TcpaError
from tcpa_core.record import files

WAITING, SEARCHING, CONFIRMING = "waiting", "searching", "confirming"
DONE_CELL, FAILED_CELL = "done", "failed"
STATES = (DONE_CELL, CONFIRMING, SEARCHING, FAILED_CELL, WAITING)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a cell stands."""

    state: str
    """One of those above; "searching" and "confirming" also where nobody runs it now."""
    trials: int = 0
    """That have ended, of the search and its confirmation."""
    failed: int = 0
    is_run: bool = False
    """A driver runs it now."""
    search: Look | None = None
    confirmation: Look | None = None
    reason: str = ""
    """Why it failed."""


def standing_of(folder: Path, study: str) -> Standing:
    """Where a cell stands.

    Args:
        folder: Of the bench.
        study: Name of the cell's search.
    """
    try:
        search = _look(folder / study)
        confirmation = _look(folder / confirmed_name(study))
    except TcpaError as err:
        return Standing(FAILED_CELL, reason=str(err))
    if search is None:
        return Standing(WAITING)
    looks = [one for one in (search, confirmation) if one is not None]
    trials = sum(one.view.num_ended for one in looks)
    failed = sum(one.view.counts.get("failed", 0) for one in looks)
    is_run = any(one.driver for one in looks)
    state, reason = _state(search, confirmation)
    return Standing(state, trials, failed, is_run, search, confirmation, reason)


def _state(search: Look, confirmation: Look | None) -> tuple[str, str]:
    """State of a cell, and why it failed."""
    if not _is_over(search):
        return SEARCHING, ""
    if len(search.view.results.ranking().points) < 2:
        return FAILED_CELL, _joined(search) or "fewer than two points completed"
    if confirmation is None or not _is_over(confirmation):
        return CONFIRMING, ""
    if not tests_of(confirmation):
        return FAILED_CELL, _joined(confirmation) or "it has no test score"
    return DONE_CELL, ""


def tests_of(confirmation: Look) -> list[float]:
    """The score on test of the selected point, a value for each seed."""
    selected, trials = confirmation.view.selected, confirmation.view.state.trials
    scores = [trials[name].test_score for name in selected.trials] if selected else []
    return [score for score in scores if score is not None]


def cell_result(folder: Path, study: str) -> str:
    """What a cell has come to, in words."""
    found = standing_of(folder, study)
    if found.confirmation is None or found.state != DONE_CELL:
        return f"{found.state}{f': {found.reason}' if found.reason else ''}"
    scores = tests_of(found.confirmation)
    mean = sum(scores) / len(scores)
    spread = f", {min(scores):.4f} to {max(scores):.4f}" if len(scores) > 1 else ""
    name = found.confirmation.view.outline.score.test
    text = f"{name} {mean:.4f} ({len(scores)} seeds{spread})"
    if found.failed:
        text += f", {found.failed} trials failed"
    return text


def show_bench(record: BenchRecord, console: Console) -> None:
    """Print where a bench stands."""
    for line in bench_lines(record):
        console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)


def bench_lines(record: BenchRecord) -> Iterator[str]:
    """Where a bench stands, in words."""
    found = {one: standing_of(record.folder, one.study) for one in record.entries}
    counts = Counter(one.state for one in found.values())
    shown = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    trials = sum(one.trials for one in found.values())
    rows, columns = len(record.methods), len(record.datasets)
    yield f"{record.name}: bench of {rows} methods and {columns} data sets"
    yield f"{len(found)} cells: {shown}; {trials} trials ended"
    for dataset in record.datasets:
        cells = [(one, at) for one, at in found.items() if one.dataset == dataset]
        done = sum(at.state == DONE_CELL for _, at in cells)
        yield f"  {dataset}: {done} of {len(cells)} done"
    for one, at in found.items():
        if at.is_run:
            yield f"running: {one} ({at.state}, study {one.study})"
        elif at.state == FAILED_CELL:
            yield f"failed: {one}: {at.reason} (study {one.study})"
    if counts[DONE_CELL] < len(found):
        root = quote(str(record.folder.parent))
        yield f"next: tcpa bench {quote(record.source)} --name {record.name} --root {root}"


def bench_document(record: BenchRecord) -> dict[str, Any]:
    """The same as plain values."""
    found = {one: standing_of(record.folder, one.study) for one in record.entries}
    counts = Counter(one.state for one in found.values())
    return {
        "schema": SCHEMA,
        "bench": record.name,
        "folder": str(record.folder),
        "source": record.source,
        "baseline": record.baseline,
        "counts": {state: counts[state] for state in STATES},
        "cells": [
            {
                "method": one.method,
                "dataset": one.dataset,
                "backbone": one.backbone,
                "study": one.study,
                "state": at.state,
                "running": at.is_run,
                "trials": at.trials,
                "failed": at.failed,
                "test": tests_of(at.confirmation) if at.confirmation else [],
                "reason": at.reason or None,
            }
            for one, at in found.items()
        ],
    }


def _joined(look: Look) -> str:
    return "; ".join(map(str, look.view.failures))


def _is_over(look: Look) -> bool:
    state = look.view.state
    return state.is_finished and not state.without_score()


def _look(path: Path) -> Look | None:
    return Look.at(StudyDir(path)) if (path / files.DESCRIPTION).is_file() else None
