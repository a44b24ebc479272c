"""Small study folders, written as a driver would."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tcpa_core.record.events import encode_line
from tcpa_core.record.values import OF_SOME_TASKS, EpochReport, TrialResult

SPACE = {
    "name": "small",
    "base": {"data.name": "digits"},
    "axes": {
        "methods": {"choice": [["linear"], ["vpt"]]},
        "optim.lr": {"float": [0.001, 0.1], "log": True},
    },
    "objective": {"metric": "val_accuracy", "goal": "maximize"},
}


def planned(
    number: int, *, seed: int = 0, cells: Sequence[Mapping[str, Any]] = (), **params: Any
) -> dict[str, Any]:
    """The "planned" event of a trial; `params` by dotted path with __ for the dot."""
    flat = {key.replace("__", "."): value for key, value in params.items()}
    settings = {"methods": ["vpt"], "optim.lr": 0.01, **flat, "seed": seed}
    point = str(sorted((k, str(v)) for k, v in settings.items() if k != "seed"))
    return {
        "kind": "planned", "trial": f"{number:05d}", "params": settings, "seed": seed,
        "digest": f"{point}{seed}", "point": point, "labels": {"cells": list(cells)},
        "origin": "sampler", "draw": {},
    }  # fmt: skip


def epoch(number: int, at: int, accuracy: float, **more: Any) -> dict[str, Any]:
    """An "epoch" event."""
    report = EpochReport(
        epoch=at, train_loss=1.0, ce_loss=0.9, match_loss=0.1, val_loss=1 - accuracy,
        val_accuracy=accuracy, lr=0.01, duration_s=1.0, images_per_s=100.0,
        **more,
    )  # fmt: skip
    fields = {name: getattr(report, name) for name in EpochReport.__dataclass_fields__}
    return {"kind": "epoch", "trial": f"{number:05d}", **_of_task(fields)}


def final(number: int, status: str, accuracy: float | None = None, **more: Any) -> dict[str, Any]:
    """A final event."""
    result = TrialResult(
        status=status, val_accuracy=accuracy, best_epoch=1, num_epochs=2, num_trainable=10, **more
    )
    return {"kind": status, "trial": f"{number:05d}", **_of_task(result.as_dict())}


def _of_task(fields: Mapping[str, Any]) -> dict[str, Any]:
    """As a journal has them: without what is not measured for the trial's task."""
    return {k: v for k, v in fields.items() if v is not None or k not in OF_SOME_TASKS}


def cell(factor: str, level: str, order: int, baseline: bool = False) -> dict[str, Any]:
    """One cell of a design."""
    return {"factor": factor, "level": level, "order": order, "baseline": baseline}


def write(
    folder: Path,
    events: Sequence[Mapping[str, Any]],
    kind: str = "search",
    space: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Make a study folder with these events; `more` is what its study.yaml says besides."""
    folder.mkdir(parents=True)
    space = space or (SPACE if kind == "search" else {"name": "small"})
    document = {"schema": 1, "name": folder.name, "kind": kind, "versions": {"torch": "0"},
                "git": "", "space": dict(space), **(more or {})}  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    lines = [encode_line({"n": n, "t": float(n), **event}) for n, event in enumerate(events)]
    (folder / "journal.jsonl").write_bytes(b"".join(lines))
    return folder


def components(values: Mapping[str, Mapping[int, float]]) -> list[dict[str, Any]]:
    """Events of a components ablation: row -> seed -> val accuracy; the first row is baseline."""
    events, number = [], 0
    for order, (level, seeds) in enumerate(values.items()):
        for seed, accuracy in seeds.items():
            at = cell("components", level, order, order == 0)
            events += [planned(number, seed=seed, cells=[at], tcpa__row=level)]
            events += [epoch(number, 1, accuracy / 2), epoch(number, 2, accuracy)]
            events += [final(number, "completed", accuracy, test_accuracy=accuracy - 0.05)]
            number += 1
    return events


def over_datasets(values: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """Events of a components design: data set -> row -> val accuracy by seed."""
    events: list[dict[str, Any]] = []
    number = 0
    for dataset, rows in values.items():
        for order, (level, seeds) in enumerate(rows.items()):
            for seed, accuracy in enumerate(seeds):
                at = cell("components", level, order, order == 0) | {"dataset": dataset}
                events += [planned(number, seed=seed, cells=[at], row=level, data__root=dataset)]
                tested = {"test_accuracy": accuracy - 0.1}
                events += [final(number, "completed", accuracy, **tested)]
                number += 1
    return events
