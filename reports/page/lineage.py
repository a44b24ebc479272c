"""The line of the selected trial of a population: which trials its training ran through."""

from typing import Any

import pandas as pd

from reports.frames import Frames
from reports.labels import is_missing
from reports.tables import last_epochs, ranking
from reports.verdicts.words import searched_settings


def lineage(found: Frames) -> list[dict[str, Any]]:
    """Its trials from the first one on, each with the epochs that belong to the line and its
    settings; [] where the selected trial began from its seed, or none is selected."""
    chosen = ranking(found.trials, found.study).selected
    if chosen is None:
        return []
    trials: dict[str, Any] = {row["trial"]: row for row in found.trials.to_dict("records")}
    settings = searched_settings(found.trials, found.study)
    name, last = chosen.trials[0], int(_last(found.trials, chosen.trials[0]))
    rows: list[dict[str, Any]] = []
    while name in trials:
        begins = trials[name]["from_epoch"]
        first = 1 if is_missing(begins) else int(begins) + 1
        rows.insert(0, {"trial": name, "first": first, "last": last, "setting": settings[name]})
        name, last = trials[name]["from_trial"], first - 1
    return rows if len(rows) > 1 else []


def _last(trials: pd.DataFrame, name: str) -> Any:
    return last_epochs(trials)[trials["trial"] == name].iloc[0]
