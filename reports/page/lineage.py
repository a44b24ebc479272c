"""The line of the selected trial of a population: which trials its training ran through."""

from typing import Any

from reports.frames import Frames
from reports.labels import is_missing
from reports.tables import ranking
from reports.verdicts.words import searched_settings


def lineage(found: Frames) -> list[dict[str, Any]]:
    """Its trials from the first one on, each with the epochs that belong to the line and its
    settings; [] where the selected trial began from its seed, or none is selected."""
    chosen = ranking(found.trials, found.study).selected
    trials: dict[str, Any] = {row["trial"]: row for row in found.trials.to_dict("records")}
    name = chosen.trials[0] if chosen else ""
    if name not in trials or not trials[name]["from_trial"]:
        return []
    settings = searched_settings(found.trials, found.study)
    last = int(trials[name]["from_epoch"]) + int(trials[name]["num_epochs"])
    rows: list[dict[str, Any]] = []
    while name in trials:
        begins = trials[name]["from_epoch"]
        first = 1 if is_missing(begins) else int(begins) + 1
        rows.insert(0, {"trial": name, "first": first, "last": last, "setting": settings[name]})
        name, last = trials[name]["from_trial"], first - 1
    return rows
