"""What a report says in short: counts, the selected setting, notes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from reports.labels import methods_label, number
from reports.records.study import Study
from reports.tables import ranking
from reports.verdict import Verdict
from tcpa_core.record.scores import Score


@dataclass(frozen=True, slots=True)
class SelectedSetting:
    """The setting that the study selected on validation."""

    trials: tuple[str, ...]
    """Its replicates."""
    settings: Mapping[str, object]
    """Values of the settings that were searched, or the levels of a design."""
    metric: str
    value: float
    """Mean of the objective over the replicates."""
    note: str
    """What its choice passed over; "": nothing."""
    val_accuracy: float | None
    test_accuracy: float | None
    score: Score
    test_score: float | None
    """Of its task; None: test was not read."""


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What a report says in short, and where it lies."""

    name: str
    html: Path
    counts: Mapping[str, int]
    """Trials by status."""
    selected: SelectedSetting | None
    ablation_markdown: str
    notes: tuple[str, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time of each step; tables are written while the others run."""
    verdict: Verdict | None = None

    @property
    def num_failed(self) -> int:
        """Trials that failed."""
        return self.counts.get("failed", 0)

    def lines(self) -> list[str]:
        """For a terminal."""
        counts = ", ".join(f"{n} {status}" for status, n in self.counts.items()) or "none"
        found = [f"{self.name}: {sum(self.counts.values())} trials read ({counts})"]
        found += self.verdict.text.splitlines() if self.verdict else []
        if self.selected:
            settings = ", ".join(
                f"{k}={methods_label(number(v))}" for k, v in self.selected.settings.items()
            )
            found.append(f"selected on val: {settings or 'the only setting'}")
            test, score = self.selected.test_score, self.selected.score
            found.append(
                f"  {self.selected.metric} {self.selected.value:.4f} over "
                f"{len(self.selected.trials)} seed(s); test {score.label} "
                + ("not read" if test is None else f"{100 * test:.2f} %")
            )
        found += [f"note: {note}" for note in self.notes]
        return [*found, f"report: {self.html}"]


def select(trials: pd.DataFrame, study: Study) -> SelectedSetting | None:
    """What the study selected (`spaces.selection`), with what its replicates measured."""
    ranked = ranking(trials, study)
    best = ranked.selected
    if best is None:
        return None
    rows = trials[trials["trial"].isin(best.trials)]
    first = rows.iloc[0]
    settings = {a: first[a] for a in study.axes if a in rows and pd.notna(first[a])}
    # An ablation has no searched axes; its winner is named by the row of the design.
    settings |= {cell["factor"]: cell["level"] for cell in json.loads(first["cells"])}
    return SelectedSetting(
        trials=best.trials,
        settings=settings,
        metric=study.objectives[0].metric,
        value=best.value,
        note=ranked.note,
        val_accuracy=_mean(rows["val_accuracy"]),
        test_accuracy=_mean(rows["test_accuracy"]),
        score=study.score,
        test_score=_mean(rows[study.score.test]),
    )


def _mean(column: pd.Series) -> float | None:
    present = column.dropna()
    return float(present.mean()) if len(present) else None
