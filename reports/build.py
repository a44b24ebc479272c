"""`tcpa report`: journal -> Parquet -> statistics -> tables, figures and one offline HTML page."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa

from reports import tables
from reports.draw import draw_all
from reports.frames import Frames, frames
from reports.page import data_set_tables, level_tables
from reports.page.facts import again
from reports.page.html import write_html
from reports.page.markup import frame_markdown
from reports.parquet import write_table, write_text
from reports.records.journal import load_journal
from reports.samples.gather import TABLE_NAME, missing, table_of_samples
from reports.samples.regions import REGION_TABLE, table_of_regions
from reports.statistics.published_comparison import Published, comparable
from reports.summary import ReportSummary, select
from reports.verdict import verdict_of
from spaces.confirmations import confirmation_of
from spaces.record import space_text
from tcpa_core.errors import RecordError, StudyError

Progress = Callable[[str, int, int], None]
"""Called with (step, done, total); 0 of 0 where a step cannot be counted."""

OPTIMISTIC = (
    "The value of a selected setting is the largest of many noisy ones and therefore optimistic; "
    "fresh seeds give an honest one."
)


class Stopwatch:
    """Seconds by step; says which one begins."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        if self._progress:
            self._progress(step, 0, 0)
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


def build_report(
    study_dir: Path,
    progress: Progress | None = None,
    live_s: float | None = None,
    bring: Callable[[Sequence[str]], str] = lambda names: "",
) -> ReportSummary:
    """Gather a study into tables/ and report/ of its folder.

    Args:
        progress: Told of what is being done.
        live_s: Seconds until it is built again; the page then reloads itself. None: it stays.
        bring: Given names of files of tested trials that are not here, brings those that lie
            elsewhere; a sentence where that fails, else "".

    Raises:
        StudyError: There is no such study, it has no journal, or its folder cannot be written.
        RecordError: The journal is damaged.
    """
    timed, folder = Stopwatch(progress), study_dir / "tables"
    with timed("read"):
        records = load_journal(study_dir, progress)
    found, arrow = frames(records, timed, folder)
    # Of 500,000 epochs a second copy; the frames have them by now.
    del records
    with timed("single images"):
        absent = missing(study_dir, found.trials, found.study)
        not_brought = bring(absent) if absent else ""
        of_images = {}
        if found.samples.trials:
            of_images[TABLE_NAME] = table_of_samples(found.samples, found.study)
        if found.regions.trials:
            of_images[REGION_TABLE] = table_of_regions(found.regions, found.study)
        arrow = arrow | of_images
        for name in {TABLE_NAME, REGION_TABLE} - of_images.keys():
            # of a report that was made before another setting was selected
            (folder / f"{name}.parquet").unlink(missing_ok=True)
    # Arrow writes outside of Python's lock, so tables are written while figures are drawn.
    with ThreadPoolExecutor(1) as background:
        writing = background.submit(_write_tables, arrow, folder)
        with timed("statistics"):
            selected = select(found.trials, found.study) if found.study.selects else None
            published, about = comparable(found.used, found.epochs)
            notes = [
                *found.notes,
                not_brought,
                *found.samples.notes,
                *found.regions.notes,
                *_warnings(found.trials),
                *about,
            ]
            if selected:
                notes += [OPTIMISTIC] if found.study.kind == "search" else []
                notes += filter(None, [selected.note])
            markdown = _write_texts(found, published, folder)
            confirmation, lacking = confirming(study_dir, found)
            notes += lacking
            verdict = verdict_of(found, confirmation)
        with timed("figures"):
            drawn = draw_all(found, study_dir / "report" / "figures", progress)
            notes += [one.sentence for one in drawn if one.is_broken]
        summary = ReportSummary(
            name=found.study.name,
            html=study_dir / "report" / "report.html",
            counts=tables.counts(found.trials),
            selected=selected,
            ablation_markdown=markdown,
            # statistics and figures may give the same note
            notes=tuple(dict.fromkeys(filter(None, notes))),
            seconds=timed.seconds,
            verdict=verdict,
        )
        with timed("page"):
            write_html(summary, found, drawn, published, live_s, confirmation)
            _write_space(found, study_dir / "report" / "space.yaml")
        # Raises what the background raised, so that a full disk is reported and not passed over.
        with timed("writing tables"):
            writing.result()
    return summary


def confirming(study_dir: Path, found: Frames) -> tuple[Frames | None, list[str]]:
    """The study that confirms a search, where it lies beside it, and why it could not be read."""
    folder = confirmation_of(study_dir, found.study.document)
    if found.study.kind != "search" or folder is None:
        return None, []
    try:
        return frames(load_journal(folder))[0], []
    except (StudyError, RecordError) as err:  # its own report says more
        return None, [f"The confirmation {folder.name} could not be read: {err}"]


def _write_space(found: Frames, path: Path) -> None:
    """The study's space beside the page, as `tcpa search` and `tcpa ablate` take it."""
    study = found.study
    about = f"The space of study {study.name}, as it was resolved when the study was made."
    write_text(path, space_text(study.space, f"{about}\n{again(found)}"))


def _write_tables(arrow: Mapping[str, pa.Table], folder: Path) -> None:
    for name, table in arrow.items():
        # Of millions of rows a CSV would be larger than the study.
        write_table(table, folder, name, csv=name not in (TABLE_NAME, REGION_TABLE))


def _write_texts(found: Frames, published: Sequence[Published], folder: Path) -> str:
    """Markdown and LaTeX of the tables that a paper prints; the ablation's Markdown is returned."""
    texts = {}
    markdown = level_tables.to_markdown(found.ablation, published, found.effects)
    if markdown:
        latex = level_tables.to_latex(found.ablation, published, found.effects)
        texts = {"ablation.md": markdown, "ablation.tex": latex}
    across = data_set_tables.data_set_tables(found.across, found.scores, found.ranks, found.groups)
    if across:
        texts["across.md"] = data_set_tables.to_markdown(across)
        texts["across.tex"] = data_set_tables.to_latex(across)
    for name in ("importance", "ranks", "groups"):
        frame: pd.DataFrame = getattr(found, name)
        if not frame.empty:
            texts[f"{name}.md"] = frame_markdown(frame, frame.columns)
    for name, text in texts.items():
        write_text(folder / name, text)
    return markdown


def _warnings(trials: pd.DataFrame) -> list[str]:
    """What trials ask every table to say."""
    found: list[str] = []
    for text in trials["warnings"].unique():
        found += json.loads(text)
    for text, n in trials["deviation"][trials["deviation"] != ""].value_counts().items():
        found.append(f"† {n} trials deviate from what they claim: {text}.")
    if "train.selection" in trials and (trials["train.selection"] == "best_test_epoch").any():
        found.append("Some trials selected their epoch on the test split (best_test_epoch).")
    reasons = trials["left_out"][trials["status"] == "completed"]
    for reason, n in reasons[reasons != ""].value_counts().items():
        found.append(f"{n} completed trials enter no statistic: {reason}.")
    return found
