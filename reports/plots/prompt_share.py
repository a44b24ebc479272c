"""Share of the attention that prompts take, block by block; 0 where none stand in it."""

import pandas as pd
from matplotlib.figure import Figure

from reports.plots._inspected import (
    ROLES,
    Inspections,
    along_blocks,
    draw_along_blocks,
    legend,
    share_panels,
    ticks,
)

TITLE = "Attention on prompts"
KINDS = ("inspection",)
PLACE = 7


def prepare(trials: Inspections) -> pd.DataFrame:
    """Columns label, number, block, value: the share in percent, by role."""
    return along_blocks(trials, {f"prompt_share_{role}": 100 for role in ROLES})


def draw(data: pd.DataFrame, trials: Inspections) -> Figure | str:
    """A panel for each role, a line for each trial."""
    figure, panels = share_panels(
        [role for role in ROLES if (data["number"] == f"prompt_share_{role}").any()]
    )
    for role, axes in panels.items():
        draw_along_blocks(axes, data[data["number"] == f"prompt_share_{role}"], list(trials))
        axes.set_xticks(ticks(data["block"].max()))
    legend(figure)
    return figure
