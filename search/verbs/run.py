"""Run a study with what a user wants around it: progress, MLflow mirror, what comes next."""

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from shlex import quote

from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.driver.driver import StudyOutcome, run_study
from search.driver.placement import Placement
from search.proposals.samplers.base import check_sampler
from search.study.address import (
    artifacts_of,
    default_uri,
    recorded_uri,
    resolved_uri,
    sqlite_file,
    sqlite_uri,
)
from search.study.folder import StudyDir
from search.study.identity import Change
from search.tracking.mirror import Mirror, check_tracker
from search.tracking.run_writer import relocate
from search.tracking.secrets import with_secrets
from search.verbs.progress import Watch
from spaces.selection import Results
from tcpa_core.data.base import load_dataset
from tcpa_core.errors import StudyError
from tcpa_core.settings import DataConfig

CLOSE_S = 60.0
"""How long a finished study waits for a tracker that takes nothing."""
HURRY_S = 2.0
"""The same after a fault or a signal: a preempted job is often given 30 s in all."""


def run_and_watch(
    study: StudyDir,
    root: Path,
    console: Console,
    *,
    address: str | None = None,
    tracking_uri: str | None = None,
    change: Change | None = None,
) -> int:
    """Run what is left of a study and show it.

    Args:
        change: Other data or weights than were recorded, with which the user goes on.

    Returns:
        The exit code: 0 done, 1 with failed trials or interrupted.
    """
    outcome = run_watched(
        study, root, console, address=address, tracking_uri=tracking_uri, change=change
    )
    return sum_up(study, root, outcome, console)


def sum_up(study: StudyDir, root: Path, outcome: StudyOutcome, console: Console) -> int:
    """Say how a run ended and what comes next; the exit code as of `run_and_watch`."""
    counts = ", ".join(f"{n} {status}" for status, n in sorted(outcome.counts.items())) or "none"
    console.print(f"{study.name}: trials {counts}; {outcome.reason}.", markup=False)
    shown = quote(str(root))
    if not outcome.finished:
        console.print(f"Continue with: tcpa resume {study.name} --root {shown}", markup=False)
        return 1
    console.print(f"Report: tcpa report {study.name} --root {shown}", markup=False)
    return 1 if outcome.counts.get("failed") else 0


def run_watched(
    study: StudyDir,
    root: Path,
    console: Console,
    *,
    address: str | None = None,
    tracking_uri: str | None = None,
    change: Change | None = None,
) -> StudyOutcome:
    """Run what is left of a study with a live table and the MLflow mirror."""
    space = study.space()
    check_sampler(space.sampler.name)
    if change:
        study.accept_change(asdict(change))
    uri, artifacts = tracking_of(study, root, tracking_uri)
    check_tracker(uri)  # the mirror makes a new local database while Ray starts
    total = len(space.design()) if space.ablation else space.budget.trials
    with Watch(study.name, space, total, console) as watch:
        mirror = Mirror(study.path, uri, artifact_root=artifacts, warn=watch.say)
        watch.recall(study.events())
        patience_s = HURRY_S
        try:
            outcome = run_study(
                space,
                study,
                placement=Placement(address=address),
                listeners=[watch, mirror.put],
                notices=[f"{change}; accepted."] if change else [],
            )
            patience_s = CLOSE_S if outcome.finished else HURRY_S
        finally:
            mirrored = mirror.close(patience_s)
    if not mirrored:
        console.print(
            f"MLflow lacks {mirror.lacking()}; complete it with: "
            f"tcpa sync {study.name} --root {quote(str(root))}",
            markup=False,
            soft_wrap=True,
        )
    return outcome


def tracking_of(study: StudyDir, root: Path, uri: str | None) -> tuple[str, Path | None]:
    """Tracking address of a study, and where a database of this machine keeps artifacts."""
    uri = recorded_uri(resolved_uri(uri or study.document()["tracking_uri"]), root)
    uri = with_secrets(uri) if uri else default_uri(root)
    database = sqlite_file(uri)
    return uri, database and artifacts_of(database)


def show_status(study: StudyDir, console: Console) -> None:
    """Print counts, the selected point and the last failure."""
    state = study.state()
    results = Results.of(study.space(), state)
    last = state.last.kind if state.last else "planned"
    names = {"planned": "waiting", "running": "running" if study.driver() else "interrupted"}
    found = Counter(names.get(one.status, one.status) for one in state.trials.values())
    counts = ", ".join(f"{n} {name}" for name, n in sorted(found.items()))
    console.print(f"{study.name}: {counts or 'no trial yet'}; last event: {last}.", markup=False)
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
    os.kill(found.pid, signal.SIGTERM)
    console.print(
        f"{study.name}: told pid {found.pid} to stop; it ends at the next epoch boundary. "
        f"Continue with: tcpa resume {study.name}",
        markup=False,
        soft_wrap=True,
    )


def run_pages(database: Path, server: str) -> list[str]:
    """Direct links to the runs of each study, since MLflow opens on an overview."""
    relocate(database)
    found = MlflowClient(tracking_uri=sqlite_uri(database.resolve())).search_experiments()
    return [
        f"{server}/#/experiments/{one.experiment_id}/runs  {one.name}"
        for one in sorted(found, key=lambda one: int(one.experiment_id))
        if one.experiment_id != "0"
    ]


def follow(study: StudyDir, build: Callable[[], str], console: Console, every_s: float) -> None:
    """Build a study's report again whenever its journal has grown, until its driver ends.

    Args:
        build: Makes the report and says in a line what it holds.
        every_s: Seconds between two looks at the journal.
    """
    size = -1
    while True:
        runs = study.driver() is not None
        now = study.journal_path.stat().st_size if study.journal_path.exists() else 0
        if now != size:
            console.print(build(), markup=False, soft_wrap=True)
            size = now
        elif not runs:
            return
        if runs:
            time.sleep(every_s)


FEW = 20
"""Classes that are all listed; of more, the smallest ones."""
SMALLEST = 10


def show_data(config: DataConfig, console: Console) -> None:
    """Decode a data set at a small size, so that every image is checked, and describe it."""
    summary = load_dataset(config, 32).summary
    names, counts = summary.class_names, summary.counts
    console.print(
        f"{summary.name}: {len(names)} classes, {summary.fingerprint}", markup=False, soft_wrap=True
    )
    for split, found in counts.items():
        low, middle, high = min(found), sorted(found)[len(found) // 2], max(found)
        each = f"{low}" if low == high else f"{low} to {high}, median {middle},"
        console.print(f"  {split}: {sum(found):,} images, {each} a class", markup=False)
    total = [sum(of) for of in zip(*counts.values(), strict=True)]
    shown = list(range(len(names)))
    if len(names) > FEW:
        shown = sorted(shown, key=lambda c: total[c])[:SMALLEST]
        console.print(f"the {SMALLEST} smallest of {len(names)} classes:")
    table = Table("class", *counts)
    for c in shown:
        table.add_row(Text(_printable(names[c])), *(str(found[c]) for found in counts.values()))
    console.print(table)
    for warning in summary.warnings():
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
