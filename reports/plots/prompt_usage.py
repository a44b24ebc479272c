"""How often each prompt group was chosen, block by block."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from reports.plots._inspected import POOLS, Array, Inspections, ticks, wrapped
from reports.plots.base import WIDTH

TITLE = "Use of prompt groups"
KINDS = ("inspection",)
PLACE = 5

Usage = Mapping[tuple[str, str], Array]
"""By trial and pool: share of the choices (blocks, groups)."""


def prepare(trials: Inspections) -> Usage:
    """Shares of choices, each block's largest first: the groups of two blocks differ anyway."""
    return {
        (label, pool): -np.sort(-found[f"usage_{pool}"], axis=1)
        for label, found in trials.items()
        for pool in POOLS
        if f"usage_{pool}" in found
    }


def draw(data: Usage, trials: Inspections) -> Figure | str:
    """A panel for each trial and pool; groups never chosen are crossed."""
    if not data:
        return "No trial matches tokens with prompts, so there is no usage to show."
    across = min(2, len(data))
    down = -(-len(data) // across)
    figure = Figure(figsize=(WIDTH * across, 1.8 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, ((label, pool), shares) in zip(panels, data.items(), strict=False):
        extent = (0.5, shares.shape[1] + 0.5, len(shares) + 0.5, 0.5)
        image = axes.imshow(100 * shares, cmap="viridis", aspect="auto", vmin=0, extent=extent)
        unused = never_chosen(shares)
        axes.set_title(
            f"{wrapped(label)}, {POOLS[pool]}\n{unused.sum()} of {unused.size} never chosen"
        )
        axes.set_xlabel("group, the busiest first")
        axes.set_ylabel("block")
        axes.set_xticks(ticks(shares.shape[1]))
        axes.set_yticks(ticks(len(shares)))
        if unused.any():
            blocks, groups = np.nonzero(unused)
            # Of a share of 0.1 % and one of 0 the colours are the same.
            axes.plot(groups + 1, blocks + 1, "x", color="white", ms=3, mew=0.6)
        figure.colorbar(image, ax=axes, label="share of choices (%)")
    for axes in panels[len(data) :]:
        axes.remove()
    return figure


def never_chosen(shares: Array) -> Array:
    """True where no token of the images chose a group."""
    found: Array = shares == 0
    return found
