"""Share of the attention that prompts take as their number grows."""

import pandas as pd
from matplotlib.figure import Figure

from reports.plots._inspected import ROLES, Inspections, legend, line, share_panels
from reports.plots.base import log_axis

TITLE = "Attention on prompts by their number"
KINDS = ("inspection",)
PLACE = 8


def prepare(trials: Inspections) -> pd.DataFrame:
    """Columns methods, role, prompts (per block), share (%), both means over the blocks.

    Methods are in the order met, each by the number of prompts.
    """
    rows = [
        (label.split(",")[0], role, found["num_prompts"].mean(),
         100 * found[f"prompt_share_{role}"].mean())
        for label, found in trials.items()
        for role in ROLES
        if f"prompt_share_{role}" in found
    ]  # fmt: skip
    data = pd.DataFrame(rows, columns=["methods", "role", "prompts", "share"])
    # sort_values alone would order methods by their names
    places = {name: place for place, name in enumerate(data["methods"].unique())}
    order = data.assign(place=data["methods"].map(places)).sort_values(
        ["place", "prompts"], kind="stable"
    )
    return data.loc[order.index]


def draw(data: pd.DataFrame, trials: Inspections) -> Figure | str:
    """A panel for each role, a line for each method."""
    if not (data.groupby("methods")["prompts"].nunique() > 1).any():
        return "No method has trials with different numbers of prompts."
    figure, panels = share_panels([role for role in ROLES if (data["role"] == role).any()])
    for role, axes in panels.items():
        for place, name in enumerate(data["methods"].unique()):
            rows = data[(data["methods"] == name) & (data["role"] == role)]
            line(axes, rows["prompts"], rows["share"], place, name)
        if data["prompts"].max() > 20:
            axes.set_xscale("symlog", linthresh=1)  # a trial without prompts stands at 0
            log_axis(axes.xaxis)
        axes.set_xlabel("prompts per block")
    legend(figure)
    return figure
