"""What all figures share: size, colours, data, and how a figure becomes files.

A figure is a public module of this package; its name is the figure's file name. It has

    TITLE           caption
    KINDS           reports that show it: "search", "ablation", "inspection" (of trained trials),
                    "bench"
    PLACE           number by which the figures of a report are ordered
    WIDE            optional: True for the width of two columns
    prepare(source) the numbers that are shown, without drawing; of a study a DataFrame
    draw(data, source)   a matplotlib Figure of them, or the sentence that stands in its place
    sentence(data, source)   optional: what there is to see, as text above the figure
    outline(data)   optional: lines, limits and legend of thousands of points, see `reports.draw`

`source` has all tables of a study (`reports.frames.Frames`); for "inspection" it has what was found
in each trial (`tcpa_core.inspection`), by the trial's label; for "bench" it has the tables of one
backbone (`reports.bench.tables.BackboneTables`).
"""

import json
import textwrap
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from reports.frames import Frames
from reports.labels import COMBINATION, group_column, heading, methods_label, on_val
from reports.parquet import write_atomic
from tcpa_core.record.scores import CALLED, is_share

PLOTS = "reports.plots"
"""The package whose public files are the figures."""
KINDS = ("search", "ablation", "inspection", "bench")
"""Kinds of reports."""
WIDTH = 3.25
"""Column width of a paper in inches."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette, whose colours colour-blind readers can distinguish."""
MARKERS = "osD^vP*X"
"""Differ with the colour, so that a figure also reads in grey."""
GREY = "#BBBBBB"
INK = "#444444"
"""Of what is no method's and no level's."""
FORMATS = ("svg", "png", "pdf")
NAMES = {
    **{name: f"{called} (%)" for name, called in CALLED.items()},
    "val_loss": "val loss (nat)",
    "train_loss": "training loss (nat)",
}
FEW = 0.1
"""Share of the values that may have another scale than the others."""
IN_LEGEND = 46
"""Letters of a name that stand in one line of a legend."""
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


def squeeze(axes: Axes, values: pd.Series) -> None:
    """Set the y axis so that it holds all values; a few far off get a seventh of it, shaded.

    Far off is what lies more than 1.5 times the middle half's range beyond it, at most a tenth of
    the values, where that would more than halve the room of all others.
    """
    low, quarter, three, high = map(float, values.quantile([0, 0.25, 0.75, 1]))
    reach = 1.5 * (three - quarter)
    bottom = float(values[values >= quarter - reach].min())
    top = float(values[values <= three + reach].max())
    core = top - bottom
    is_few = ((values < bottom) | (values > top)).mean() <= FEW
    far_low = is_few and 0 < core < bottom - low
    far_high = is_few and 0 < core < high - top
    is_whole = not (far_low or far_high)
    # what the axis shows at one scale; a marker at its end must not be cut
    span = high - low if is_whole else core
    room = 0.06 * span if span > 0 else 0.02 * abs(high) or 1.0
    if is_whole:
        axes.set_ylim(low - room, high + room)
        return
    start, end = (
        (bottom - room if far_low else low - room),
        (top + room if far_high else high + room),
    )
    share = (end - start) / 6
    known, placed = [start, end], [start, end]
    if far_low:
        known, placed = [low, *known], [start - share, *placed]
    if far_high:
        known, placed = [*known, high], [*placed, end + share]
    # beyond its ends the scale goes on as it is there, so that margins have a place
    known = [2 * known[0] - known[1], *known, 2 * known[-1] - known[-2]]
    placed = [2 * placed[0] - placed[1], *placed, 2 * placed[-1] - placed[-2]]
    axes.set_yscale("function", functions=(partial(np.interp, xp=known, fp=placed),
                                           partial(np.interp, xp=placed, fp=known)))  # fmt: skip
    axes.set_ylim(low - 0.15 * (start - low) if far_low else start,
                  high + 0.15 * (high - end) if far_high else end)  # fmt: skip
    inner = MaxNLocator(5).tick_values(start, end)
    ends = [low] * far_low + [high] * far_high
    axes.yaxis.set_major_locator(FixedLocator([*(t for t in inner if start <= t <= end), *ends]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.3g}"))
    for is_far, edge in ((far_low, start), (far_high, end)):
        if is_far:
            outer = axes.get_ylim()[0 if edge == start else 1]
            axes.axhspan(*sorted((edge, outer)), color="#EEEEEE", lw=0, zorder=0)


def course(name: str, x: Sequence[float], y: Sequence[float]) -> str:
    """How values run along a setting: 'rises with NAME to 0.02 and falls after'.

    Args:
        x: Values of the setting, ascending.
        y: Values there; changes below a tenth of their range are passed over.
    """
    values = np.asarray(y, float)
    slack = 0.1 * float(np.ptp(values))
    top, low = int(values.argmax()), int(values.argmin())
    start, end = float(values[0]), float(values[-1])
    if min(values[top] - start, values[top] - end) > slack:
        return f"rises with {name} to {x[top]:.3g} and falls after"
    if min(start - values[low], end - values[low]) > slack:
        return f"falls with {name} to {x[low]:.3g} and rises after"
    if slack == 0:
        return f"does not change with {name}"
    word, near = (
        ("rises", values >= end - slack) if end > start else ("falls", values <= end + slack)
    )
    first = int(np.flatnonzero(near)[0])
    # flat over more than a third of its values is worth a word
    flat = f" to {x[first]:.3g} and changes little after" if first < 2 * len(values) / 3 - 1 else ""
    return f"{word} with {name}{flat}"


def wrapped(label: str, letters: int) -> str:
    """A name in lines of at most so many letters."""
    return "\n".join(textwrap.wrap(label, letters)) or label


def legend_columns(labels: Iterable[str]) -> int:
    """Columns of a legend that a figure of column width has room for."""
    longest = max(map(len, labels), default=0)
    return 3 if longest <= 14 else 2 if longest <= 22 else 1


def spoken(group: str, tables: Frames) -> str:
    """A group's name in a sentence: of a level that is a number also its factor."""
    factors = tables.ablation["factor"].unique()
    is_number = group.replace(".", "").replace("e-", "").isdigit()
    return f"{factors[0]} = {group}" if is_number and len(factors) == 1 else group


def value_text(value: float, metric: str) -> str:
    """'83.3 %' of a score given as a fraction, '0.412' of another metric."""
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.3g}"


def plain_name(metric: str) -> str:
    """A metric's name without its unit, for a sentence."""
    return NAMES.get(metric, metric).split(" (")[0]


def listed(names: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


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


def level_styles(tables: Frames) -> dict[tuple[str, str], tuple[str, str]]:
    """The colour and marker of each (factor, level); none in a factorial, whose runs have them."""
    styles, found = styles_of(tables), dict[tuple[str, str], tuple[str, str]]()
    labels = dict(zip(tables.trials["cells"], group_column(tables.trials), strict=True))
    for text, label in labels.items():
        cells = json.loads(text)
        if not any(cell["factor"] == COMBINATION for cell in cells):
            for cell in cells:
                found.setdefault((cell["factor"], cell["level"]), styles[label])
    return found


def levels(tables: Frames) -> pd.DataFrame:
    """Rows of the ablation table on val that have a mean.

    `factor` names the data set, too, where there are several; `setting` does not.
    """
    rows = on_val(tables.ablation)
    rows = rows[rows["n"] > 0]
    names = [heading(f, d) for f, d in zip(rows["factor"], rows["dataset"], strict=True)]
    return rows.assign(setting=rows["factor"], factor=names)


def shown_values(values: pd.Series, metric: str) -> pd.Series:
    """Scores in percent, others as they are."""
    return 100 * values if is_share(metric) else values


def name_of(metric: str) -> str:
    """A metric's name with its unit, for an axis."""
    return NAMES.get(metric, metric)
