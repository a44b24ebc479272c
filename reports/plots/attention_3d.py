"""The first image's attention maps of the last block as surfaces."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reports.plots._inspected import ROLES, Array, Inspections, wrapped

TITLE = "Attention as surfaces"
KINDS = ("inspection",)
PLACE = 3

Surfaces = Mapping[str, Mapping[str, Array]]
"""Maps (rows, columns) by role and trial."""


def prepare(trials: Inspections) -> Surfaces:
    """The map of each role and trial; roles that no trial has are left out."""
    maps = {
        role: {n: found[f"{role}_maps"][-1, 0] for n, found in trials.items()
               if f"{role}_maps" in found}
        for role in ROLES
    }  # fmt: skip
    return {role: found for role, found in maps.items() if found}


def draw(data: Surfaces, trials: Inspections) -> Figure | str:
    """A row for each role, whose surfaces have one scale; a column for each trial."""
    figure = Figure(figsize=(1.75 * len(trials), 1.8 * len(data)))
    for down, (role, maps) in enumerate(data.items()):
        # One scale for a role, since heights are compared between trials.
        top = max(float(values.max()) for values in maps.values())
        for across, label in enumerate(trials):
            if label not in maps:
                continue
            place = down * len(trials) + across + 1
            axes: Any = figure.add_subplot(len(data), len(trials), place, projection="3d")
            values = maps[label]
            y, x = np.mgrid[: values.shape[0], : values.shape[1]]
            axes.plot_surface(x, y, values, cmap="viridis", vmin=0, vmax=top, lw=0, rstride=1,
                              cstride=1, rasterized=True)  # fmt: skip
            axes.set_zlim(0, top)
            axes.invert_yaxis()  # the image's first row at the back, as one reads it
            axes.set_title(f"{wrapped(label)}\n{ROLES[role]}", fontsize=7, y=0.98)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.tick_params("z", labelsize=5, pad=-1)
            axes.locator_params("z", nbins=4)
    # by hand: the constrained layout does not know how far 3D axes reach
    figure.subplots_adjust(0.02, 0.03, 0.93, 0.9, wspace=0.12, hspace=0.25)
    return figure
