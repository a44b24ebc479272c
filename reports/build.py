"""`tcpa report`: journal -> Parquet -> statistics -> tables, figures and one offline HTML page."""

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa

from reports import tables
from reports.frames import Frames, frames
from reports.page.data_set_tables import wide_latex, wide_markdown, wide_tables
from reports.page.html import Drawn, write_html
from reports.page.level_tables import (
    Reference,
    frame_markdown,
    methods_label,
    number,
    to_latex,
    to_markdown,
)
from reports.page.published_comparison import references_for
from reports.parquet import write_atomic, write_table
from reports.plots import base
from reports.plots.base import DOTS, FORMATS, STYLE, save
from reports.records.journal import load_journal
from reports.records.study import Study
from tcpa_core import plugins

PLOTS = "reports.plots"
NEW_POINTS = 0.01
"""Share of new points with which a running study's figure of thousands of points may wait."""
Gist = Callable[[pd.DataFrame], pd.DataFrame]
OPTIMISTIC = (
    "The value of a selected setting is the largest of many noisy ones and therefore optimistic; "
    "confirm it on fresh seeds."
)


@dataclass(frozen=True, slots=True)
class Selected:
    """The setting that the study selected on validation."""

    trials: tuple[str, ...]
    """Its replicates."""
    settings: Mapping[str, Any]
    """Values of the settings that were searched."""
    metric: str
    value: float
    """Mean of the objective over the replicates."""
    note: str
    """What its choice passed over; "": nothing."""
    val_accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What a report says in short, and where it lies."""

    name: str
    html: Path
    counts: Mapping[str, int]
    selected: Selected | None
    ablation_markdown: str
    notes: tuple[str, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time of each step; writing of tables goes on beside the others."""

    @property
    def num_failed(self) -> int:
        """Trials that failed."""
        return self.counts.get("failed", 0)

    def lines(self) -> list[str]:
        """For a terminal."""
        counts = ", ".join(f"{n} {status}" for status, n in self.counts.items()) or "none"
        found = [f"{self.name}: {sum(self.counts.values())} trials read ({counts})"]
        if self.selected:
            settings = ", ".join(
                f"{k}={methods_label(number(v))}" for k, v in self.selected.settings.items()
            )
            found.append(f"selected on val: {settings or 'the only setting'}")
            test = self.selected.test_accuracy
            found.append(
                f"  {self.selected.metric} {self.selected.value:.4f} over "
                f"{len(self.selected.trials)} seed(s); test accuracy "
                + ("not read" if test is None else f"{100 * test:.2f} %")
            )
        found += [f"note: {note}" for note in self.notes]
        return [*found, f"report: {self.html}"]


class Stopwatch:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


def build_report(study_dir: Path) -> ReportSummary:
    """Gather a study into tables/ and report/ of its folder.

    Raises:
        StudyError: There is no such study, it has no journal, or its folder cannot be written.
        RecordError: The journal is damaged.
    """
    timed, folder = Stopwatch(), study_dir / "tables"
    with timed("read"):
        records = load_journal(study_dir)
    found, arrow = frames(records, timed, folder)
    del records
    with ThreadPoolExecutor(1) as beside:  # Arrow writes without holding up the drawing
        writing = beside.submit(_write_tables, arrow, folder)
        with timed("statistics"):
            selected = select(found.trials, found.study) if found.study.selects else None
            references, about = references_for(found)
            notes = [*found.notes, *_warnings(found.trials), *about]
            if selected:
                notes += [OPTIMISTIC] if found.study.kind == "search" else []
                notes += filter(None, [selected.note])
            markdown = _write_texts(found, references, folder)
        with timed("figures"):
            drawn = draw_all(found, study_dir / "report" / "figures")
        summary = ReportSummary(
            name=found.study.name,
            html=study_dir / "report" / "report.html",
            counts=tables.counts(found.trials),
            selected=selected,
            ablation_markdown=markdown,
            notes=tuple(dict.fromkeys(notes)),
            seconds=timed.seconds,
        )
        with timed("page"):
            write_html(summary, found, drawn, references)
        with timed("writing tables"):
            writing.result()
    return summary


def select(trials: pd.DataFrame, study: Study) -> Selected | None:
    """What the study selected (`spaces.selection`), with what its replicates measured."""
    ranked = tables.ranking(trials, study)
    best = ranked.selected
    if best is None:
        return None
    rows = trials[trials["trial"].isin(best.trials)]
    first = rows.iloc[0]
    settings = {a: first[a] for a in study.axes if a in rows and pd.notna(first[a])}
    settings |= {cell["factor"]: cell["level"] for cell in json.loads(first["cells"])}
    return Selected(
        trials=best.trials,
        settings=settings,
        metric=study.objectives[0].metric,
        value=best.value,
        note=ranked.note,
        val_accuracy=_mean(rows["val_accuracy"]),
        test_accuracy=_mean(rows["test_accuracy"]),
    )


def draw_all(found: Frames, folder: Path) -> list[Drawn]:
    """Draw every figure that belongs to this kind of study.

    While a study runs, a figure of thousands of points is judged by its `gist`.
    """
    drawn = []
    is_running = found.trials["status"].isin(["planned", "running"]).any()
    modules = {name: import_module(f"{PLOTS}.{name}") for name in plugins.names(PLOTS)}
    for name, module in sorted(modules.items(), key=lambda item: item[1].PLACE):
        if found.study.kind not in module.KINDS:
            continue
        path, is_wide = folder / name, getattr(module, "WIDE", False)
        data = module.prepare(found).copy(deep=False)
        data.attrs["drawn_by"] = _drawn_by(module)
        gist = getattr(module, "gist", None) if is_running and len(data) > DOTS else None
        if not looks_same(data, path, gist):
            with matplotlib.rc_context(STYLE):
                figure = module.draw(data, found)
            if isinstance(figure, str):
                drawn.append(Drawn(name, module.TITLE, None, figure))
                continue
            save(figure, path)
            write_atomic(path.with_suffix(".parquet"), data.reset_index(drop=True).to_parquet)
        drawn.append(Drawn(name, module.TITLE, path, "", is_wide))
    return drawn


def _drawn_by(module: ModuleType) -> int:
    """Checksum of the code that draws a figure: what another version drew is drawn again."""
    sources = (module.__file__, base.__file__)
    return zlib.crc32(b"".join(Path(str(source)).read_bytes() for source in sources))


def looks_same(data: pd.DataFrame, path: Path, gist: Gist | None = None) -> bool:
    """Whether a figure drawn earlier, of the data kept beside it, would look the same.

    Numbers may differ by a five-hundredth of their column's range: less than a dot's width.

    Args:
        gist: The lines and limits of a figure of thousands of points. Given it, a hundredth more
            points than were drawn do not matter.
    """
    try:
        before = pd.read_parquet(path.with_suffix(".parquet"))
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError):
        return False  # none yet, or damaged: drawn anew
    if before.attrs.get("drawn_by") != data.attrs.get("drawn_by"):
        return False
    if not all(path.with_suffix(f".{kind}").is_file() for kind in FORMATS):
        return False
    if gist is not None and 0 <= len(data) - len(before) <= NEW_POINTS * len(before):
        data, before = gist(data), gist(before)
    return not data.empty and _nearly_equal(data, before)


def _nearly_equal(data: pd.DataFrame, before: pd.DataFrame) -> bool:
    if before.shape != data.shape or list(before) != list(data):
        return False
    for name in data:
        new, old = data[name], before[name]
        if not pd.api.types.is_numeric_dtype(new) or pd.api.types.is_bool_dtype(new):
            if new.astype(str).tolist() != old.astype(str).tolist():
                return False
            continue
        x, y = (one.to_numpy(float, na_value=np.nan) for one in (new, old))
        seen = x[np.isfinite(x)]
        reach = float(np.ptp(seen)) if len(seen) else 0.0
        if not np.allclose(x, y, rtol=0, atol=reach / 500, equal_nan=True):
            return False
    return True


def _write_tables(arrow: Mapping[str, pa.Table], folder: Path) -> None:
    for name, table in arrow.items():
        write_table(table, folder, name)


def _write_texts(found: Frames, references: tuple[Reference, ...], folder: Path) -> str:
    """Markdown and LaTeX of the tables that a paper prints; the ablation's Markdown is returned."""
    texts = {}
    markdown = to_markdown(found.ablation, references, found.effects)
    if markdown:
        latex = to_latex(found.ablation, references, found.effects)
        texts = {"ablation.md": markdown, "ablation.tex": latex}
    wide = wide_tables(found.across, found.scores, found.ranks, found.groups)
    if wide:
        texts |= {"across.md": wide_markdown(wide), "across.tex": wide_latex(wide)}
    for name in ("importance", "ranks", "groups"):
        frame: pd.DataFrame = getattr(found, name)
        if not frame.empty:
            texts[f"{name}.md"] = frame_markdown(frame, frame.columns)
    for name, text in texts.items():
        write_atomic(folder / name, partial(_write_text, text))
    return markdown


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


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


def _mean(column: pd.Series) -> float | None:
    present = column.dropna()
    return float(present.mean()) if len(present) else None
