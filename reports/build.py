"""`tcpa report`: journal -> Parquet -> statistics -> tables, figures and one offline HTML page."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from reports import ablation, importance, tables
from reports.html import write_html
from reports.load import Records, load_journal
from reports.parquet import read_table, write_table
from reports.plots.base import Tables
from reports.study import Study
from tcpa_core import plugins

PLOTS = "reports.plots"


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

    @property
    def num_failed(self) -> int:
        """Trials that failed."""
        return self.counts.get("failed", 0)

    def lines(self) -> list[str]:
        """For a terminal."""
        counts = ", ".join(f"{n} {status}" for status, n in self.counts.items()) or "none"
        found = [f"{self.name}: {sum(self.counts.values())} trials read ({counts})"]
        if self.selected:
            settings = ", ".join(f"{k}={_short(v)}" for k, v in self.selected.settings.items())
            found.append(f"selected on val: {settings or 'the only setting'}")
            found.append(
                f"  {self.selected.metric} {self.selected.value:.4f} over "
                f"{len(self.selected.trials)} seed(s); test accuracy "
                + _percent(self.selected.test_accuracy)
            )
        found += [f"note: {note}" for note in self.notes]
        return [*found, f"report: {self.html}"]


def build_report(study_dir: Path) -> ReportSummary:
    """Gather a study into tables/ and report/ of its folder.

    Raises:
        StudyError: There is no such study, or it has no journal.
        RecordError: The journal is damaged.
    """
    records = load_journal(study_dir)
    _write_tables(records, study_dir / "tables")
    found = _read_tables(records.study, study_dir / "tables")
    notes = [*records.notes, *ablation.notes(found.ablation), *_warnings(found.trials)]
    selected = None if records.study.kind == "ablation" else select(found.trials, records.study)
    if selected:
        notes.append(
            "The value of a selected setting is the largest of many noisy ones and therefore "
            "optimistic; confirm it on fresh seeds."
        )
    markdown = ablation.to_markdown(found.ablation)
    if not found.ablation.empty:
        (study_dir / "tables" / "ablation.md").write_text(markdown, encoding="utf-8")
        tex = ablation.to_latex(found.ablation)
        (study_dir / "tables" / "ablation.tex").write_text(tex, encoding="utf-8")
    figures = _draw(found, study_dir / "report" / "figures", _levels(records))
    summary = ReportSummary(
        name=records.study.name,
        html=study_dir / "report" / "report.html",
        counts=tables.counts(found.trials),
        selected=selected,
        ablation_markdown=markdown,
        notes=tuple(dict.fromkeys(notes)),
    )
    write_html(summary, found, figures)
    return summary


def select(trials: pd.DataFrame, study: Study) -> Selected | None:
    """The best point on the leading objective; a point's value is the mean over its seeds."""
    objective = study.objectives[0]
    metric = objective.metric
    done = trials[(trials["status"] == "completed") & trials[metric].notna()]
    if done.empty:
        return None
    means = done.groupby("point", sort=False)[metric].mean()
    point = means.idxmax() if objective.maximize else means.idxmin()
    rows = done[done["point"] == point]
    first = rows.iloc[0]
    settings = {a: first[a] for a in study.axes if a in rows and pd.notna(first[a])}
    return Selected(
        trials=tuple(rows["trial"]),
        settings=settings,
        metric=metric,
        value=float(means.max() if objective.maximize else means.min()),
        val_accuracy=_mean(rows["val_accuracy"]),
        test_accuracy=_mean(rows["test_accuracy"]),
    )


def _write_tables(records: Records, folder: Path) -> None:
    trials = tables.trial_table(records)
    write_table(trials, folder / "trials")
    write_table(tables.epoch_table(records), folder / "epochs")
    write_table(ablation.ablation_table(records.trials), folder / "ablation", ablation.MEANING)
    shares, note = importance.importance_table(trials, records.study)
    if note and records.study.kind == "search":
        records.notes.append(note)
    write_table(shares, folder / "importance", importance.MEANING)


def _read_tables(study: Study, folder: Path) -> Tables:
    names = ("trials", "epochs", "ablation", "importance")
    return Tables(study, *(read_table(folder / f"{name}.parquet") for name in names))


def _levels(records: Records) -> dict[str, str]:
    """Trial -> level, in designs with one factor."""
    cells = {t["trial"]: (t.get("labels") or {}).get("cells", []) for t in records.trials}
    if any(len(found) != 1 for found in cells.values()):
        return {}
    return {trial: found[0]["level"] for trial, found in cells.items()}


def _draw(found: Tables, folder: Path, levels: Mapping[str, str]) -> dict[str, Path]:
    """Draw every figure as PNG and SVG.

    Returns:
        Title -> path without suffix.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if levels:
        labelled = found.trials.assign(level=found.trials["trial"].map(levels))
        found = Tables(found.study, labelled, found.epochs, found.ablation, found.importance)
    paths = {}
    for name in plugins.names(PLOTS):
        if found.study.kind == "ablation" and name in _SEARCH_ONLY:
            continue
        if found.study.kind == "search" and name in _DESIGN_ONLY:
            continue
        module = import_module(f"{PLOTS}.{name}")
        figure = module.draw(module.prepare(found), found)
        figure.savefig(folder / f"{name}.png", dpi=200)
        figure.savefig(folder / f"{name}.svg")
        paths[module.TITLE] = folder / name
    return paths


_SEARCH_ONLY = ("history", "parallel", "importance")
_DESIGN_ONLY = ("factors",)


def _warnings(trials: pd.DataFrame) -> list[str]:
    """What trials ask every table to say."""
    found: list[str] = []
    for text in trials["warnings"].dropna().unique():
        found += json.loads(text)
    if "train.selection" in trials and (trials["train.selection"] == "best_test_epoch").any():
        found.append("Some trials selected their epoch on the test split (best_test_epoch).")
    return found


def _mean(column: pd.Series) -> float | None:
    present = column.dropna()
    return float(present.mean()) if len(present) else None


def _percent(value: float | None) -> str:
    return "not read" if value is None else f"{100 * value:.2f} %"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
