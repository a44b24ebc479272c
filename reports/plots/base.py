"""What all figures share: size, colours, data, and the sentence drawn where there is nothing."""

from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.study import Study

WIDTH = 3.25
"""Column width of a paper in inches."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""

matplotlib.rcParams.update(
    {
        "svg.fonttype": "none",
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)


@dataclass(frozen=True, slots=True)
class Tables:
    """What a figure may read."""

    study: Study
    trials: pd.DataFrame
    epochs: pd.DataFrame
    ablation: pd.DataFrame
    importance: pd.DataFrame


def new_figure(height: float = 2.3, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def sentence(text: str) -> Figure:
    """A figure that says why there is nothing to see."""
    figure, axes = new_figure(1.2)
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, color="#555555")
    return figure


def methods_label(value: Any) -> str:
    """'["vpt"]' as "vpt", '["vp", "tcpa"]' as "vp+tcpa"."""
    text = "" if value is None or value is pd.NA else str(value)
    return "+".join(part.strip(' "') for part in text.strip("[]").split(","))
