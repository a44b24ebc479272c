"""The table of a race: rows were compared on the way, so it has a verdict and no single tests."""

import json
from collections.abc import Sequence

import pandas as pd

from reports.labels import NewRow, Row
from reports.records.study import Study
from reports.tables import replicates
from spaces.verdict import decide, looks

_UNTESTED = {"test": "", "p": None, "p_holm": None, "family": 0}


def untested(rows: Sequence[Row]) -> list[NewRow]:
    """Rows of ABLATION_COLUMNS without their tests."""
    return [{**row, **_UNTESTED} for row in rows]


def verdict(trials: pd.DataFrame, study: Study) -> str:
    """How the race stands, in words; "" before a row has a cell."""
    objective = study.objectives[0]
    values: dict[str, dict[int, float | None]] = {}
    # A trial that still runs is not a missing seed: the race waits for it.
    has_ended = ~trials["status"].isin(["planned", "running"])
    every = zip(trials["cells"], replicates(trials, objective.metric), has_ended, strict=True)
    for cells, one, ended in every:
        for cell in json.loads(cells):
            row = values.setdefault(cell["level"], {})
            if ended:
                row[one.seed] = None if one.value is None else objective.utility(one.value)
    if not values:
        return ""
    num_looks = looks(len(study.seeds))
    return (
        "This is a race: rows are compared before every further seed and drop out once clearly "
        "worse, so the table has no p, and its intervals are those of one look of up to "
        f"{num_looks}. Corrected for rows and looks: {decide(values, study.seeds, races=True)}"
    )
