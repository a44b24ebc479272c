"""The ablation table: every level of every factor over seeds, and against its baseline.

A trial's cells say which levels it counts for. Replicates are seeds: where a cell has several
trials of one seed (the levels of a full factorial), it is compared with the baseline only where the
other factors agree, and the differences are averaged by seed first. Where a design runs on several
data sets, each of them has rows of its own.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from reports import stats

METRICS = ("val_accuracy", "test_accuracy")
COMBINATION = "combination"
"""Factor that a full factorial adds: its levels are the combinations themselves."""

Unit = tuple[int, tuple[tuple[str, str], ...]]
"""A seed and the levels of the other factors."""


@dataclass(slots=True)
class _Level:
    """The trials of one level of one factor."""

    name: str
    order: int
    is_baseline: bool
    trials: list[Mapping[Any, Any]] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    """What each trial is compared by."""

    def values(self, metric: str) -> dict[Unit, float]:
        """Mean value by unit, over completed trials with a finite value."""
        found: defaultdict[Unit, list[float]] = defaultdict(list)
        for trial, unit in zip(self.trials, self.units, strict=True):
            if not _lack(trial, metric):
                found[unit].append(float(trial[metric]))
        return {unit: sum(values) / len(values) for unit, values in found.items()}

    def missing(self, metric: str, values: Mapping[Unit, float], planned: set[Unit]) -> str:
        """Planned units without a value, each with the reason."""
        reasons: dict[Unit, str] = {unit: "not planned" for unit in planned - set(values)}
        for trial, unit in zip(self.trials, self.units, strict=True):
            if unit in reasons:
                reasons[unit] = _lack(trial, metric)
        return "; ".join(f"{_unit_name(unit)} ({why})" for unit, why in sorted(reasons.items()))


def ablation_rows(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """One row of ABLATION_COLUMNS per factor, data set, level and metric; trials as in `trials`."""
    rows: list[dict[str, Any]] = []
    for (factor, dataset), levels in _factors(trials).items():
        planned = {unit for level in levels for unit in level.units}
        for metric in METRICS:
            family = [
                {"factor": factor, "dataset": dataset, **_row(level, metric, levels, planned)}
                for level in levels
            ]
            p_values = [row["p"] for row in family]
            num_tests = sum(p is not None for p in p_values)
            for row, adjusted in zip(family, stats.holm(p_values), strict=True):
                row |= {"p_holm": adjusted, "family": num_tests}
            rows += family
    return rows


def notes(table: pd.DataFrame) -> list[str]:
    """Sentences that a reader of the table needs."""
    if table.empty:
        return []
    val = table[table["metric"] == METRICS[0]]
    found = []
    few = int(val["n"].min())
    if few < 2:
        found.append("A level with n < 2 has no interval and no test: one seed shows no spread.")
    elif few < stats.FEW:
        found.append(f"Some levels have n = {few}: their intervals are very wide.")
    for row in val[val["missing"] != ""].to_dict("records"):
        place = f" on {row['dataset']}" if row["dataset"] else ""
        found.append(f"{row['factor']} = {row['level']}{place} lacks {row['missing']}.")
    for (factor, dataset), levels in val.groupby(["factor", "dataset"], sort=False):
        if not levels["is_baseline"].any():
            name = heading(str(factor), str(dataset))
            found.append(f"{name} has no baseline level, so it has no differences.")
    return found


def heading(factor: str, dataset: str) -> str:
    """Name of a table: the factor, and the data set where there are several."""
    return f"{factor} on {dataset}" if dataset else factor


def _factors(trials: pd.DataFrame) -> dict[tuple[str, str], list[_Level]]:
    """Levels in their order, by factor and data set in the order met."""
    found: dict[tuple[str, str], dict[str, _Level]] = {}
    for trial in trials[trials["cells"] != "[]"].to_dict("records"):
        cells = json.loads(trial["cells"])
        is_factorial = any(cell["factor"] == COMBINATION for cell in cells)
        for cell in cells:
            others = [(c["factor"], c["level"]) for c in cells
                      if c["factor"] not in (cell["factor"], COMBINATION)]  # fmt: skip
            apart = is_factorial and cell["factor"] != COMBINATION
            level = found.setdefault((cell["factor"], cell.get("dataset", "")), {}).setdefault(
                cell["level"], _Level(cell["level"], int(cell["order"]), bool(cell["baseline"]))
            )
            level.trials.append(trial)
            level.units.append((int(trial["seed"]), tuple(sorted(others)) if apart else ()))
    return {
        key: sorted(levels.values(), key=lambda level: level.order) for key, levels in found.items()
    }


def _row(
    level: _Level, metric: str, levels: Sequence[_Level], planned: set[Unit]
) -> dict[str, Any]:
    values = level.values(metric)
    baseline = next((one.values(metric) for one in levels if one.is_baseline), {})
    shared = {} if level.is_baseline else values.keys() & baseline.keys()
    paired = stats.compare_paired(
        _by_seed({unit: values[unit] for unit in shared}),
        _by_seed({unit: baseline[unit] for unit in shared}),
    )
    differences = asdict(paired)
    renamed = {"n": "n_paired", "low": "diff_low", "high": "diff_high"}
    return {
        "level": level.name,
        "order": level.order,
        "is_baseline": level.is_baseline,
        "metric": metric,
        "missing": level.missing(metric, values, planned),
        "trials": json.dumps([trial["trial"] for trial in level.trials]),
        **asdict(stats.summarise(list(_by_seed(values).values()))),
        **{renamed.get(name, name): value for name, value in differences.items()},
    }


def _by_seed(values: Mapping[Unit, float]) -> dict[Any, float]:
    """Mean over the units of each seed, seeds in order."""
    found: defaultdict[int, list[float]] = defaultdict(list)
    for seed, others in sorted(values):
        found[seed].append(values[seed, others])
    return {seed: sum(one) / len(one) for seed, one in found.items()}


def _lack(trial: Mapping[Any, Any], metric: str) -> str:
    """Why a trial gives no value; "" if it does."""
    if trial["status"] != "completed":
        return str(trial["status"])
    value = trial[metric]
    return "" if pd.notna(value) and math.isfinite(value) else f"no finite {metric}"


def _unit_name(unit: Unit) -> str:
    seed, others = unit
    return ", ".join([f"seed {seed}", *(f"{factor}={level}" for factor, level in others)])
