"""One self-contained page: the answer first, then the evidence, then every trial."""

import base64
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from reports import ablation
from reports.plots.base import Tables, methods_label
from reports.tables import varied

if TYPE_CHECKING:
    from reports.build import ReportSummary


def write_html(summary: "ReportSummary", tables: Tables, figures: Mapping[str, Path]) -> None:
    """Write report.html beside the figures; everything is inside it."""
    source = (files("reports.templates") / "report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(source).render(
        summary=summary,
        study=tables.study,
        ablation=ablation_rows(tables.ablation),
        trials=trial_rows(tables, summary),
        figures={title: _image(path) for title, path in figures.items()},
        versions=tables.study.document.get("versions", {}),
        git=tables.study.document.get("git", ""),
    )
    summary.html.parent.mkdir(parents=True, exist_ok=True)
    temporary = summary.html.with_name(".report.html")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(summary.html)


def ablation_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Per factor its heading and cells, as `ablation.to_markdown` shows them."""
    return [
        {"factor": factor, "rows": [ablation.cells(row) for row in rows],
         "best": ablation.best_level(rows)}
        for factor, rows in ablation.shown(table)
    ]  # fmt: skip


def trial_rows(tables: Tables, summary: "ReportSummary") -> dict[str, Any]:
    """Header and rows of the trial table; test values of the selected configuration only."""
    chosen = set(summary.selected.trials) if summary.selected else set(tables.trials["trial"])
    settings = varied(tables.trials)
    fixed = ["trial", "status", "seed", "val_accuracy", "test_accuracy", "best_epoch"]
    tail = ["num_trainable", "duration_s", "reason"]
    columns = [*fixed, *settings, *tail]
    rows = []
    for record in tables.trials.to_dict("records"):
        if record["trial"] not in chosen:
            record["test_accuracy"] = None
        rows.append([_text(name, record.get(name)) for name in columns])
    return {"columns": columns, "rows": rows}


def _text(name: str, value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    if name == "methods":
        return methods_label(value)
    if name.endswith("accuracy"):
        return f"{100 * value:.2f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _image(path: Path) -> str:
    data = path.with_suffix(".svg").read_bytes()
    return "data:image/svg+xml;base64," + base64.b64encode(data).decode()
