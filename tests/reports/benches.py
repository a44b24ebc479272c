"""Small benches: a search and its confirmation for every cell, as a driver would write them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from spaces.bench_cells import Bench, Cell
from tests.reports.studies import SPACE, cell, final, planned, write

SEEDS = (1, 2, 3)
"""Fresh ones; searches have seed 0."""
TRIALS = 8


def describe(folder: Path, **more: Any) -> None:
    """Say more in a study's description."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **more}))


def write_search(
    folder: Path, method: str, dataset: str, values: Sequence[float], *, is_finished: bool = True
) -> Path:
    """A search of so many trials; the last one is stopped early."""
    events: list[dict[str, Any]] = []
    for number, value in enumerate(values):
        status = "pruned" if number == len(values) - 1 else "completed"
        events.append(planned(number, methods=[method], optim__lr=0.01 * (number + 1),
                              data__name=dataset))  # fmt: skip
        events.append(final(number, status, float(value), duration_s=5.0))
    events += [{"kind": "finished"}] if is_finished else []
    space = {**SPACE, "base": {"data.name": dataset}, "budget": {"trials": len(values)}}
    write(folder, events, space=space)
    describe(folder, id=f"id of {folder.name}", fingerprints={"data": f"print of {dataset}"})
    return folder


def write_confirmation(
    folder: Path,
    search: Path,
    method: str,
    dataset: str,
    values: Mapping[int, float],
    *,
    size: int = 1000,
    is_finished: bool = True,
    **more: Any,
) -> Path:
    """A confirmation of two points; the first one has these values on test, a point less on val."""
    events: list[dict[str, Any]] = []
    number = 0
    for order, less in enumerate((0.01, 0.2)):
        at = [cell("components", f"point {order + 1}", order, order == 0)]
        for seed, value in values.items():
            events.append(
                planned(
                    number,
                    seed=seed,
                    cells=at,
                    methods=[method],
                    data__name=dataset,
                    optim__lr=0.02 * (order + 1),
                    **more,
                )
            )
            tested = {} if order else {"test_accuracy": float(value)}
            events.append(final(number, "completed", float(value) - less, duration_s=20.0,
                                num_trainable_no_head=size, **tested))  # fmt: skip
            number += 1
    events += [{"kind": "finished"}] if is_finished else []
    rows = {f"point {k + 1}": {"methods": [method], "optim.lr": 0.02 * (k + 1)} for k in range(2)}
    design = {"design": "components", "rows": rows, "seeds": list(values), "test": "winner"}
    write(folder, events, "ablation", {"name": folder.name, "ablation": design})
    describe(
        folder,
        confirms={"name": search.name, "id": f"id of {search.name}", "axes": ["optim.lr"]},
        fingerprints={"data": f"print of {dataset}"},
    )
    return folder


def write_bench(
    root: Path,
    methods: Mapping[str, float],
    datasets: Sequence[str],
    *,
    backbones: Sequence[str] = ("vit_b",),
    gaps: Sequence[tuple[str, str]] = (),
    groups: Mapping[str, tuple[str, ...]] | None = None,
    seeds: Sequence[int] = SEEDS,
) -> Bench:
    """A bench of methods, each with what it is worth; the cells of `gaps` have not begun."""
    random = np.random.default_rng(0)
    cells = []
    for backbone in backbones:
        for place, (method, worth) in enumerate(methods.items()):
            for column, dataset in enumerate(datasets):
                name = f"{backbone}_{place}_{column}"
                study, confirmation = root / name, root / f"{name}_confirm"
                cells.append(Cell(method, dataset, backbone, study, confirmation))
                level = 0.5 + 0.05 * (column % 8) + worth + random.normal(0, 0.01)
                tried = level - random.exponential(0.05, TRIALS)
                fresh = dict(zip(seeds, level + random.normal(0, 0.01, len(seeds)), strict=True))
                if (method, dataset) not in gaps:
                    write_search(study, "vpt", dataset, tried)
                    write_confirmation(confirmation, study, "vpt", dataset, fresh,
                                       size=1000 * (place + 1))  # fmt: skip
    return Bench("small", tuple(cells), groups=groups or {}, num_seeds=len(seeds))
