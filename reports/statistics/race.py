"""The table of a race: rows were compared on the way, so it has a verdict and no single tests."""

from collections.abc import Sequence

import pandas as pd

from reports.labels import NewRow, Row
from reports.records.study import Study
from reports.statistics.contest import decided, row_values
from spaces.verdict import looks

_UNTESTED = {"test": "", "p": None, "p_holm": None, "family": 0}


def untested(rows: Sequence[Row]) -> list[NewRow]:
    """Rows of ABLATION_COLUMNS without their tests."""
    return [{**row, **_UNTESTED} for row in rows]


def verdict(trials: pd.DataFrame, study: Study) -> str:
    """How the race stands, in words; "" before a row has a cell."""
    values = row_values(trials, study)
    if not values:
        return ""
    num_looks = looks(len(study.seeds))
    return (
        "This is a race: rows are compared before every further seed and drop out once clearly "
        "worse, so the table has no p, and its intervals are those of one look of up to "
        f"{num_looks}. Corrected for rows and looks: {decided(values, study, races=True)}"
    )
