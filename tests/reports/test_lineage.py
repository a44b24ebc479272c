"""The line of the selected trial of a population, as the page shows it."""

from types import SimpleNamespace
from typing import Any, cast

import pandas as pd

from reports.frames import Frames
from reports.page.lineage import lineage
from reports.records.study import Study

ROWS = [
    {"trial": "00000", "from_trial": "", "from_epoch": None, "num_epochs": 5, "lr": 0.1},
    {"trial": "00001", "from_trial": "", "from_epoch": None, "num_epochs": 8, "lr": 0.2},
    {"trial": "00000-4", "from_trial": "00001", "from_epoch": 4, "num_epochs": 3, "lr": 0.3},
    {"trial": "00001-6", "from_trial": "00000-4", "from_epoch": 6, "num_epochs": 2, "lr": 0.4},
]


def found(values: list[float]) -> Frames:
    rows: list[dict[str, Any]] = [
        {**row, "status": "completed", "point": row["trial"], "seed": 0, "val_accuracy": value}
        for row, value in zip(ROWS, values, strict=True)
    ]
    trials = pd.DataFrame(rows).rename(columns={"lr": "optim.lr"})
    trials["from_epoch"] = trials["from_epoch"].astype("Int64")
    objective = SimpleNamespace(metric="val_accuracy", utility=lambda value: value)
    study = SimpleNamespace(
        objectives=[objective], races=False, races_seeds=False, seeds=(0,), axes={"optim.lr": {}}
    )
    return cast(Frames, SimpleNamespace(trials=trials, study=cast(Study, study)))


def test_it_goes_back_to_the_trial_that_began_from_its_seed() -> None:
    rows = lineage(found([0.1, 0.2, 0.3, 0.4]))
    assert [(row["trial"], row["first"], row["last"]) for row in rows] == [
        ("00001", 1, 4),
        ("00000-4", 5, 6),
        ("00001-6", 7, 8),
    ]
    assert all(
        text in row["setting"] for row, text in zip(rows, ("0.2", "0.3", "0.4"), strict=True)
    )


def test_a_trial_that_began_from_its_seed_has_none() -> None:
    assert lineage(found([0.1, 0.4, 0.3, 0.2])) == []
