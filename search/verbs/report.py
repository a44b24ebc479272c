"""Reports of studies: once, after a confirmation, or again and again while they run."""

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from rich.console import Console

from reports.build import build_report
from reports.build_bench import build_bench
from reports.build_side_by_side import build_side_by_side
from reports.summary import ReportSummary
from search.study.bench_folder import BenchRecord
from search.study.folder import StudyDir
from search.study.storage import SHORT_PATIENCE_S, Storage
from search.verbs.stages import Stages
from tcpa_core.errors import StorageError

AT_ONCE = 8
"""Small files that are fetched from a storage at once."""
LONGEST = 160
"""Characters of a folder's name, below what file systems take."""


def report_text(study: StudyDir, live_s: float | None = None) -> str:
    """Build a study's report; what it holds and where it is, in lines.

    Args:
        live_s: Seconds until it is built again; None: it is not.
    """
    with Stages("report") as stages:
        return "\n".join(_built(study, stages, live_s).lines())


def side_by_side_text(studies: Sequence[StudyDir], root: Path, live_s: float | None = None) -> str:
    """Build one report of several studies below `root`; what it holds and where it is, in lines."""
    with Stages("report") as stages:
        folders = [study.path for study in studies]
        return "\n".join(build_side_by_side(folders, root / joint_name(studies), stages, live_s))


def bench_text(record: BenchRecord, live_s: float | None = None) -> str:
    """Build the table of a bench in its folder; what it says and where it is, in lines."""
    with Stages("table") as stages:
        return "\n".join(build_bench(record.bench(), record.folder, stages, live_s))


def joint_name(studies: Sequence[StudyDir]) -> str:
    """Name of the folder for several studies, "a+b+c": no study can be called so."""
    names = "+".join(study.name for study in studies)
    if len(names) <= LONGEST:
        return names
    digest = hashlib.sha256(names.encode()).hexdigest()[:8]
    return f"{studies[0].name}+{len(studies) - 1}_more+{digest}"


def report_confirmed(folder: Path, search: Path, console: Console) -> None:
    """Build the report of a confirmation that has ended, and say where it is.

    Args:
        search: Folder of the search; where it has a report, that is made again with the outcome.
    """
    # Also where a trial has failed: the verdict says what it lacks.
    if StudyDir(folder).state().is_finished:
        with Stages("report") as stages:
            summary = _built(StudyDir(folder), stages)
            if (search / "report" / "report.html").is_file():
                _built(StudyDir(search), stages)
        console.print(f"Intervals and paired tests: {summary.html}", markup=False, soft_wrap=True)


def _built(study: StudyDir, stages: Stages, live_s: float | None = None) -> ReportSummary:
    """Build a study's report, with what its storage has of single images."""
    bring = partial(_bring_found, study)
    return build_report(study.path, progress=stages, live_s=live_s, bring=bring)


def _bring_found(study: StudyDir, names: Sequence[str]) -> str:
    """Have here what tested trials found, where the study lies in a storage.

    Args:
        names: Of files, below the study's folder.

    Returns:
        A sentence where the storage does not answer; else "".
    """
    if not study.address:
        return ""

    def fetch(name: str) -> None:
        there.fetch(name, study.path / name)

    try:
        there = Storage(study.address, SHORT_PATIENCE_S)
        with ThreadPoolExecutor(AT_ONCE) as fetchers:
            list(fetchers.map(fetch, names))
    except StorageError as err:
        return f"What tested trials found in single images is not all here: {err}"
    return ""


def follow(
    studies: Sequence[StudyDir],
    build: Callable[[float | None], str],
    console: Console,
    every_s: float,
) -> None:
    """Build a report again whenever a journal has grown, until the drivers of its studies end.

    Args:
        build: Makes the report and says in a line what it holds; told the seconds until it is made
            again, or None for the last one.
        every_s: Seconds between two looks at the journals.
    """
    shown = None
    while True:
        # Asked before the sizes: what a driver wrote last is then seen by a further look.
        runs = any(study.driver() is not None for study in studies)
        paths = [study.journal_path for study in studies]
        now = runs, *(path.stat().st_size if path.exists() else 0 for path in paths)
        if now != shown:
            console.print(build(every_s if runs else None), markup=False, soft_wrap=True)
            shown = now
        elif not runs:
            return
        if runs:
            time.sleep(every_s)
