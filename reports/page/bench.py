"""The page of a bench: who leads and whether it is shown, the table, pairs, figures, cost, gaps."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.bench.shown import ABOUT, MainTable, count_text, time_text
from reports.bench.tables import BenchTables
from reports.bench.texts import PAIRS, missing, pair_grid
from reports.draw import Drawn
from reports.labels import Row, is_missing, plural, text_or_nothing
from reports.page.cell_text import signed
from reports.page.rendering import render
from reports.parquet import write_text
from reports.statistics.paired_tests import ERROR
from reports.verdicts.words import p_said
from spaces.bench_cells import Cell


def write_bench(
    tables: BenchTables,
    shown: Sequence[MainTable],
    drawn: Mapping[str, Sequence[Drawn]],
    page: Path,
    live_s: float | None,
) -> list[str]:
    """Write the page; what the table says, in sentences.

    Args:
        drawn: Figures by backbone.
        live_s: Seconds until it is written again; None: it stays.
    """
    cells = tables.frames["cells"]
    whole = int((cells["missing"] == "").sum())
    sentences = [f"{whole} of {plural(len(cells), 'cell')} of {tables.bench.name} are whole."]
    sentences += [
        sentence
        for backbone in tables.backbones
        for metric in tables.metrics(backbone)[:1]
        for sentence in _lead(tables, backbone, metric)
    ]
    text = render(
        "bench",
        styles=("report", "evidence", "side_by_side", "bench", "live"),
        scripts=("live",),
        live_s=live_s,
        bench=tables.bench.name,
        sentences=sentences,
        parts=[_part(tables, backbone, shown, drawn) for backbone in tables.backbones],
        about=ABOUT,
        about_pairs=PAIRS,
        missing=list(missing(tables)),
        notes=tables.notes,
        cost=_total(tables),
        costs=[
            _cost(row, one.cell, page)
            for row, one in zip(cells.to_dict("records"), tables.found, strict=True)
        ],
    )
    write_text(page, text)
    return sentences


def _part(
    tables: BenchTables,
    backbone: str,
    shown: Sequence[MainTable],
    drawn: Mapping[str, Sequence[Drawn]],
) -> dict[str, Any]:
    mine = [one for one in shown if one.backbone == backbone]
    figures = drawn.get(backbone, ())
    metric = mine[0].metric if mine else ""
    return {
        "backbone": backbone,
        "main": mine[:1],
        "further": mine[1:],
        "pairs": pair_grid(tables, backbone, metric) if mine else {},
        "aggregates": _aggregates(tables, backbone, metric) if mine else [],
        "drawn": [one for one in figures if one.path],
        "undrawn": [one.sentence for one in figures if not one.path and one.sentence],
    }


def _lead(tables: BenchTables, backbone: str, metric: str) -> list[str]:
    """Who leads over the data sets, and whether that is shown."""
    rows = tables.of("methods", backbone, metric).to_dict("records")
    known = [row for row in rows if not is_missing(row["mean"])]
    over = f" over {backbone}" if len(tables.backbones) > 1 else ""
    if not known:
        return [f"No data set has a value of every compared method{over} yet."]
    best = max(known, key=lambda row: row["mean"])
    num = plural(int(best["n"]), "data set")
    text = (
        f"{best['method']} has the highest mean on {metric}{over}, {100 * best['mean']:.2f} %, on "
        f"{num}"
    )
    if len(known) < 2:
        return [f"{text}; it stands alone there."]
    base = next((row for row in known if row["is_baseline"]), None)
    if base is None:
        return [f"{text}."]
    others = [row for row in known if row is not base and not is_missing(row["p_holm"])]
    below = [row["method"] for row in others if row["p_holm"] < ERROR and row["diff"] < 0]
    above = [row["method"] for row in others if row["p_holm"] < ERROR and row["diff"] > 0]
    said = [f"{text}{_difference(best, base)}."]
    if above:
        said.append(f"Shown to be above {base['method']} over data sets: {', '.join(above)}.")
    if below:
        said.append(f"Shown to be below {base['method']} over data sets: {', '.join(below)}.")
    return said


def _difference(best: Row, base: Row) -> str:
    """How the leader stands to the baseline."""
    if best is base:
        return "; it is the baseline"
    text = f"; {signed(best['diff'], 100)} points to {base['method']}"
    if is_missing(best["p_holm"]):
        return f"{text}, not tested"
    if is_missing(best["diff_low"]):
        return f"{text}, of which so few data sets show nothing (Wilcoxon's test needs six)"
    shown = "shown" if best["p_holm"] < ERROR else "not shown"
    return (
        f"{text} [{signed(best['diff_low'], 100)}, {signed(best['diff_high'], 100)}], {shown} "
        f"({p_said(best['p_holm'])} after Holm)"
    )


AGGREGATES = {"median": "median", "iqm": "IQM", "optimality_gap": "optimality gap"}
"""Names of rliable's aggregates beside the mean."""


def _aggregates(tables: BenchTables, backbone: str, metric: str) -> list[list[str]]:
    """A row for each method: its aggregates, and the difference on these very data sets."""
    rows = []
    for row in tables.of("methods", backbone, metric).to_dict("records"):
        if is_missing(row["iqm"]):
            continue
        cells = [
            f"{100 * row[name]:.2f} [{100 * row[f'{name}_low']:.2f}, "
            f"{100 * row[f'{name}_high']:.2f}]"
            for name in AGGREGATES
        ]
        difference = "baseline" if row["is_baseline"] else "-"
        if not is_missing(row["seeds_low"]):
            ends = [signed(row[f"seeds_{end}"], 100) for end in ("low", "high")]
            difference = f"{signed(row['diff'], 100)} [{', '.join(ends)}]"
        fronts = {"parameters": row["on_parameter_front"], "time": row["on_time_front"]}
        on = [name for name, is_on in fronts.items() if not is_missing(is_on) and is_on]
        rows.append([row["method"], *cells, difference, ", ".join(on) or "-"])
    return rows


def _total(tables: BenchTables) -> str:
    """What all cells took, in a sentence."""
    cells = tables.frames["cells"]
    sums = cells[["trials", "epochs", "cost_s", "gpu_s", "reused"]].fillna(0).sum()
    on_gpus = f", {sums['gpu_s'] / 3600:.2f} of them on GPUs" if sums["gpu_s"] else ""
    return (
        f"{int(sums['trials']):,} trials and {int(sums['epochs']):,} epochs were trained in "
        f"{sums['cost_s'] / 3600:.2f} hours of training{on_gpus}"
        + (f"; {int(sums['reused']):,} were taken from other studies." if sums["reused"] else ".")
    )


def _cost(row: Row, cell: Cell, page: Path) -> dict[str, str]:
    """A cell's own row: what it found and took, and where its pages lie."""
    texts = ("trials", "epochs", "backbone", "method", "dataset", "missing", "setting", "deviation")
    return {
        **{name: text_or_nothing(row[name]) for name in texts},
        "parameters": count_text(row["num_trainable_no_head"]),
        "seed_time": time_text(row["train_s"]),
        "time": time_text(row["cost_s"]),
        "gpu": "-" if not row["gpu_s"] or is_missing(row["gpu_s"]) else time_text(row["gpu_s"]),
        "link": _link(cell.study, page),
        "confirmation": _link(cell.confirmation, page),
    }


def _link(folder: Path | None, page: Path) -> str:
    """Address of a study's own page from this one; "": it has none."""
    own = folder / "report" / "report.html" if folder else None
    return os.path.relpath(own, page.parent) if own is not None and own.is_file() else ""
