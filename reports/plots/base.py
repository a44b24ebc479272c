"""What all figures share: size, colours, data, and how a figure becomes files.

A figure is a public module of this package; its name is the figure's file name. It has

    TITLE           caption
    KINDS           reports that show it: "search", "ablation", "inspection" (of trained trials)
    PLACE           number by which the figures of a report are ordered
    WIDE            optional: True for the width of two columns
    prepare(source) the numbers that are shown, without drawing; of a study a DataFrame
    draw(data, source)   a matplotlib Figure of them, or the sentence that stands in its place
    sentence(data, source)   optional: what there is to see, as text above the figure
    outline(data)   optional: lines, limits and legend of thousands of points, see `reports.draw`

`source` has all tables of a study (`reports.frames.Frames`); for "inspection" it has what was found
in each trial (`tcpa_core.inspection`), by the trial's label.
"""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from reports.frames import Frames
from reports.labels import group_column, heading, methods_label
from reports.parquet import write_atomic

PLOTS = "reports.plots"
"""The package whose public files are the figures."""
KINDS = ("search", "ablation", "inspection")
"""Kinds of reports."""
WIDTH = 3.25
"""Column width of a paper in inches."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette, whose colours colour-blind readers can distinguish."""
MARKERS = "osD^vP*X"
"""Differ with the colour, so that a figure also reads in grey."""
GREY = "#BBBBBB"
FORMATS = ("svg", "png", "pdf")
NAMES = {
    "val_accuracy": "val accuracy (%)",
    "test_accuracy": "test accuracy (%)",
    "val_loss": "val loss (nat)",
    "train_loss": "training loss (nat)",
}
DOTS = 2000
"""Points of a figure above which they are stored as pixels, not as shapes."""

STYLE: Any = {
    # Text stays text: it can be searched, and edited in a paper.
    "svg.fonttype": "none",
    # Without a salt of its own each run would give other ids, and equal figures other files.
    "svg.hashsalt": "tcpa",
    "pdf.fonttype": 42,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in a name is a dollar
}


def new_figure(height: float = 2.3, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def log_axis(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis: powers of ten are set as formulas, which is slow."""
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path) -> None:
    """Write PATH.svg, .png and .pdf, each replaced as a whole; the layout is computed once."""
    with matplotlib.rc_context(STYLE):
        for kind in FORMATS:
            write_atomic(path.with_suffix(f".{kind}"), partial(_write, figure, kind))
            # The layout is found while the first format is written, and takes as long as the
            # writing.
            figure.set_layout_engine("none")


def _write(figure: Figure, kind: str, path: Path) -> None:
    # without a date equal figures are equal files
    metadata: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    figure.savefig(path, format=kind, dpi=200, metadata=metadata)


def groups_of(labels: Iterable[Any]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each name, in the order met."""
    names = dict.fromkeys(str(label) for label in labels)
    return {
        name: (COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
        for i, name in enumerate(names)
    }


def styles_of(tables: Frames) -> dict[str, tuple[str, str]]:
    """The colour and marker of each method, or level of a design, on the page and in every figure.

    Keys are those of `reports.labels.group_column`. The order is the space's or the design's: a
    method has its colour before its first trial, and where all its trials failed.
    """
    chains = (tables.study.axes.get("methods") or {}).get("choice") or []
    known = [methods_label(json.dumps(chain)) for chain in chains if isinstance(chain, list)]
    met = group_column(tables.trials).unique()
    # Levels are planned in the design's order; what a search drew has no order of its own.
    return groups_of([*known, *(met if tables.study.kind == "ablation" else sorted(met))])


def levels(tables: Frames) -> pd.DataFrame:
    """Rows of the ablation table on val accuracy that have a mean; data sets are in `factor`."""
    table = tables.ablation
    rows = table[(table["metric"] == "val_accuracy") & (table["n"] > 0)]
    names = [heading(f, d) for f, d in zip(rows["factor"], rows["dataset"], strict=True)]
    return rows.assign(factor=names)


def shown_values(values: pd.Series, metric: str) -> pd.Series:
    """Accuracies in percent, others as they are."""
    return 100 * values if metric.endswith("accuracy") else values


def name_of(metric: str) -> str:
    """A metric's name with its unit, for an axis."""
    return NAMES.get(metric, metric)
