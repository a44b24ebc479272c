"""What the page shows below its first screen: tables of levels and data sets, and the figures."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from reports.draw import Drawn
from reports.frames import Frames
from reports.labels import group_column
from reports.page.cell_text import stars
from reports.page.data_set_tables import ABOUT, data_set_tables
from reports.page.level_tables import (
    INTERACTIONS,
    adjusted_head,
    caption,
    effect_tables,
    intervals,
    level_tables,
)
from reports.page.lineage import lineage
from reports.page.trials import searched_columns
from reports.plots.base import styles_of
from reports.statistics.published_comparison import Published


def evidence(
    found: Frames, drawn: Sequence[Drawn], published: Sequence[Published]
) -> dict[str, Any]:
    """What evidence.html.j2 shows."""
    met = set(group_column(found.trials))
    values = found.trials[found.study.objectives[0].metric]
    is_search = found.study.kind == "search"
    is_parallel = is_search and values.notna().sum() > 1 and bool(searched_columns(found))
    return {
        "effects": effect_tables(found.effects),
        "about_effects": INTERACTIONS,
        "intervals": intervals(found.ablation),
        "lineage": lineage(found) if is_search else [],
        "published": published,
        "about_published": caption(published),
        "across": data_set_tables(found.across, found.scores, found.ranks, found.groups),
        "about_across": ABOUT,
        "styles": {name: style for name, style in styles_of(found).items() if name in met},
        "is_parallel": is_parallel,
        "drawn": [one for one in drawn if one.path],
        "undrawn": [one for one in drawn if not one.path and one.sentence],
    }


def ablation_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Per factor what the template needs: title, head of the adjusted p, notes, rows of cells."""
    return [
        {
            "factor": one.title,
            "adjusted": adjusted_head(one.family),
            "notes": one.notes(),
            "heads": one.heads,
            "metrics": one.metrics[1:],
            "rows": [{**level.cells(), "tests": level.tested(), "place": place,
                      "stars": stars(level.val), "mean": level.val["mean"],
                      "diff": level.val["diff"]}
                     for level, place in zip(one.levels, one.places(), strict=True)],
        }
        for one in level_tables(table)
    ]  # fmt: skip
