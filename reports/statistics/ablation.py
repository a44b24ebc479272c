"""The ablation table: every level of every factor over seeds, and against its baseline.

A trial's cells say which levels it counts for. Replicates are seeds, and levels are compared by the
differences of the seeds they share. Levels of a factorial design are means over its runs
(`reports.statistics.factorial`), and pairs of its factors have interactions, the table `effects`.
Where a design runs on several data sets, each of them has rows of its own.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from reports.labels import COMBINATION, NewRow, Row, heading, on_val
from reports.statistics import paired_tests as stats
from reports.statistics.factorial import Factorial, Run, Values
from spaces.fraction import Effect, alike_text, short_names
from tcpa_core.record.scores import SCORES, Score

TWO_LEVEL = "two-level factors"
"""Family of tests: two-level factors of one design, which have one test each."""
PAIRS = "two-factor interactions"


@dataclass(slots=True)
class _Level:
    """The trials of one level of one factor."""

    name: str
    order: int
    is_baseline: bool
    trials: list[tuple[Row, str]] = field(default_factory=list)
    """Each with the levels of the other factors, which distinguish it from others of its seed."""

    def by_seed(self, metric: str) -> dict[int, float]:
        """Mean value by seed, over completed trials with a finite value."""
        found: defaultdict[int, list[float]] = defaultdict(list)
        for trial, _ in self.trials:
            if not _lack(trial, metric):
                found[int(trial["seed"])].append(float(trial[metric]))
        return {seed: sum(found[seed]) / len(found[seed]) for seed in sorted(found)}

    def units(self) -> set[tuple[int, str]]:
        return {(int(trial["seed"]), others) for trial, others in self.trials}

    def missing(self, metric: str, planned: set[tuple[int, str]]) -> str:
        """Planned units without a value, each with the reason."""
        reasons: dict[tuple[int, str], str] = dict.fromkeys(planned | self.units(), "not planned")
        for trial, others in self.trials:
            unit = int(trial["seed"]), others
            if reasons.get(unit):
                reasons[unit] = _lack(trial, metric)
        return "; ".join(
            f"seed {seed}{others and ', '}{others} ({why})"
            for (seed, others), why in sorted(reasons.items())
            if why
        )


@dataclass(slots=True)
class _Design:
    """All levels on one data set, and the runs of a factorial."""

    factors: dict[str, list[_Level]] = field(default_factory=dict)
    runs: dict[tuple[str, ...], list[Row]] = field(default_factory=dict)
    """Trials of each run, by a level of each factor; {}: no factorial."""
    factorial: Factorial | None = None
    is_part: bool = False
    """Whether levels of the factorial have different runs: a fraction, or what is there of it."""

    def values(self, metric: str) -> Values:
        """Mean value by seed and run of the factorial."""
        found: defaultdict[tuple[int, Run], list[float]] = defaultdict(list)
        for run, trials in self.runs.items():
            for trial in trials:
                if not _lack(trial, metric):
                    found[int(trial["seed"]), run].append(float(trial[metric]))
        return {key: sum(values) / len(values) for key, values in found.items()}


def compared(trials: pd.DataFrame, score: Score) -> tuple[str, ...]:
    """Columns of `trials` by which levels are compared: the score on val, then on test, and there
    also its variants that some trial has."""
    variants = (name for name in score.variants if trials[name].notna().any())
    return score.val, score.test, *variants


def ablation_tables(
    trials: pd.DataFrame, score: Score = SCORES["classify"], *, fraction: bool = False
) -> tuple[list[NewRow], list[NewRow]]:
    """Rows of ABLATION_COLUMNS and of EFFECT_COLUMNS; trials as in `trials`.

    The first has one per factor, data set, metric and level. The second has one per data set,
    metric and pair of levels of a factorial's factors. Of pairs that are aliased in a fraction
    the first stands for all, and pairs that are aliased with a main effect have no row.

    Args:
        score: By which levels are compared.
        fraction: The design is one, also while some of its runs are still to come.
    """
    designs, metrics = _designs(trials, fraction), compared(trials, score)
    rows = [
        {"factor": factor, "dataset": dataset, **row}
        for dataset, design in designs.items()
        for factor in design.factors
        for metric in metrics
        for row in _level_rows(design, factor, metric)
    ]
    effects = [
        {"dataset": dataset, "metric": metric, **row}
        for dataset, design in designs.items()
        for metric in metrics
        for row in _pair_rows(design, metric)
    ]
    _adjust(rows)
    _adjust(effects)
    _add_hints(rows, effects)
    return rows, effects


def _adjust(rows: Sequence[NewRow]) -> None:
    """Add Holm's p within data set, metric and family."""
    families: defaultdict[tuple[str, str, str], list[NewRow]] = defaultdict(list)
    for row in rows:
        families[row["dataset"], row["metric"], row["family_of"]].append(row)
    for family in families.values():
        p_values = [row["p"] for row in family]
        # A test that could not be made is none that could err: it does not count.
        num_tests = sum(p is not None for p in p_values)
        for row, adjusted in zip(family, stats.holm(p_values), strict=True):
            row |= {"p_holm": adjusted, "family": num_tests}


def notes(table: pd.DataFrame) -> list[str]:
    """Sentences that a reader of the table needs."""
    if table.empty:
        return []
    val = on_val(table)
    found = []
    few = int(val["n"].min())
    if few < 2:
        found.append("A level with n < 2 has no interval and no test: one seed shows no spread.")
    elif few < stats.FEW:
        found.append(f"Some levels have n = {few}: their intervals are very wide.")
    for row in val.to_dict("records"):
        found += _level_notes(row)
    for (factor, dataset), levels in val.groupby(["factor", "dataset"], sort=False):
        found += _factor_notes(heading(str(factor), str(dataset)), levels)
    for dataset, levels in val[val["aliases"] != ""].groupby("dataset", sort=False):
        factors = levels.drop_duplicates("factor").set_index("factor")["aliases"]
        each = "; ".join(f"{factor} with {names}" for factor, names in factors.items())
        found.append(
            f"{heading('A fraction of all runs', str(dataset))} shows sums of effects that it "
            f"cannot tell apart (aliases): {each}. Interactions name theirs."
        )
    return found


def _factor_notes(name: str, levels: pd.DataFrame) -> Iterator[str]:
    first = levels.iloc[0]
    if not levels["is_baseline"].any():
        yield f"{name} has no baseline level, so it has no differences."
    if first["left_out"] and not levels["n"].any():
        yield f"{name} has no means: no seed has all runs that they are over."
    elif first["left_out"]:
        yield (
            f"Means and differences of {name} leave out {first['left_out']}: each is over "
            "seeds that have all runs of it."
        )
    if first["hint"]:
        yield f"{name} {first['hint']}."


def _level_notes(row: Row) -> Iterator[str]:
    place = f" on {row['dataset']}" if row["dataset"] else ""
    name = f"{row['factor']} = {row['level']}{place}"
    if row["missing"]:
        yield f"{name} lacks {row['missing']}."
    if row["shift"]:
        yield (
            f"The mean of {name} is moved by {100 * row['shift']:+.2f}: what the seeds that it "
            "lacks are worth to the other levels."
        )
    if row["n_paired"] > 1 and pd.isna(row["diff_low"]):
        yield (
            f"The differences of {name} to the baseline are equal in all {row['n_paired']} seeds, "
            "so they have neither interval nor test."
        )


def _designs(trials: pd.DataFrame, fraction: bool) -> dict[str, _Design]:
    """The design on each data set, factors and levels in their order."""
    found: defaultdict[str, _Design] = defaultdict(_Design)
    for trial in trials[trials["cells"] != "[]"].to_dict("records"):
        for cells in _entries(json.loads(trial["cells"])):
            design = found[cells[0].get("dataset", "")]
            run = {c["factor"]: c["level"] for c in cells if c["factor"] != COMBINATION}
            for cell in cells:
                others = {f: name for f, name in run.items() if f != cell["factor"]}
                text = ", ".join(f"{f}={name}" for f, name in sorted(others.items()))
                level = _level(design.factors.setdefault(cell["factor"], []), cell)
                level.trials.append((trial, "" if cell["factor"] == COMBINATION else text))
            if len(run) < len(cells):
                design.runs.setdefault(tuple(run.values()), []).append(trial)
    for design in found.values():
        for levels in design.factors.values():
            levels.sort(key=lambda level: level.order)
        # A factorial's contrasts begin with the baseline, wherever the design puts it.
        if design.runs:
            factors = [factor for factor in design.factors if factor != COMBINATION]
            levels_of = tuple(
                tuple(
                    level.name
                    for level in sorted(design.factors[f], key=lambda v: not v.is_baseline)
                )
                for f in factors
            )
            design.factorial = Factorial(tuple(factors), levels_of, tuple(design.runs))
            design.is_part = fraction or design.factorial.is_fraction
    return found


def _entries(cells: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Cells that belong together, a run of a factorial or one; a trial may count for several."""
    if not any(cell["factor"] == COMBINATION for cell in cells):
        yield from ([cell] for cell in cells)
        return
    run: list[Mapping[str, Any]] = []
    for cell in cells:
        run.append(cell)
        if cell["factor"] == COMBINATION:
            yield run
            run = []


def _level(levels: list[_Level], cell: Mapping[str, Any]) -> _Level:
    for level in levels:
        if level.name == cell["level"]:
            return level
    levels.append(_Level(cell["level"], int(cell["order"]), bool(cell["baseline"])))
    return levels[-1]


def _level_rows(design: _Design, factor: str, metric: str) -> Iterator[NewRow]:
    levels, factorial = design.factors[factor], design.factorial
    shift, left_out, alias = [0.0] * len(levels), "", ""
    planned = {unit for level in levels for unit in level.units()}
    if factorial is None or factor == COMBINATION:
        by_seed = [level.by_seed(metric) for level in levels]
        shift = seed_shifts(by_seed)
    else:
        place = factorial.factors.index(factor)
        means, left_out = factorial.level_means(place, design.values(metric))
        by_seed = [means[factorial.levels[place].index(level.name)] for level in levels]
        if design.is_part:
            planned = set()  # other levels have other runs
        if factorial.is_fraction:
            alias = alike_text(factorial.aliases[(place,)], short_names(factorial.factors))
    is_single = sum(len(one) == 2 for one in design.factors.values()) == 1
    pooled = len(levels) == 2 and factor != COMBINATION and not is_single
    baseline = next((found for level, found in zip(levels, by_seed, strict=True)
                     if level.is_baseline), {})  # fmt: skip
    for level, found, moved in zip(levels, by_seed, shift, strict=True):
        paired = asdict(stats.compare_paired({} if level.is_baseline else found, baseline))
        renamed = {"n": "n_paired", "low": "diff_low", "high": "diff_high"}
        yield {
            "level": level.name,
            "order": level.order,
            "is_baseline": level.is_baseline,
            "metric": metric,
            "missing": level.missing(metric, planned),
            "shift": moved,
            "left_out": left_out,
            "aliases": alias,
            "family_of": TWO_LEVEL if pooled else f"levels of {factor}",
            "trials": json.dumps([trial["trial"] for trial, _ in level.trials]),
            **asdict(stats.summarise(list(found.values())).moved(moved)),
            **{renamed.get(name, name): value for name, value in paired.items()},
        }


def seed_shifts(by_seed: Sequence[Mapping[int, float]]) -> list[float]:
    """What to add to each level's mean so that all are over the same seeds.

    Levels and seeds are fitted as a sum, by least squares. A level that has every seed stays as it
    is; one that lacks some is moved by what the other levels show these to be worth.
    """
    seeds = sorted({seed for values in by_seed for seed in values})
    if all(len(values) in (0, len(seeds)) for values in by_seed):
        return [0.0] * len(by_seed)
    # A level without any value would make the equations singular.
    rows = [[values.get(seed, math.nan) for seed in seeds] for values in by_seed if values]
    given = np.isfinite(rows).astype(float)
    # Each level's mean is taken off; what is left of the normal equations is about the seeds.
    shares = given / given.sum(axis=1, keepdims=True)
    centred = given * (np.nan_to_num(rows) - (shares * np.nan_to_num(rows)).sum(axis=1)[:, None])
    normal = np.diag(given.sum(axis=0)) - shares.T @ given
    # The pseudo-inverse: the worth of seeds is known up to a constant, which cancels below.
    worth = dict(zip(seeds, np.linalg.pinv(normal) @ centred.sum(axis=0), strict=True))
    shifts = []
    for i, one in enumerate(by_seed):
        others = {seed for k, values in enumerate(by_seed) if k != i for seed in values}
        if len(one) in (0, len(seeds)) or not others & one.keys():
            shifts.append(0.0)  # nothing to do, or nothing that it could be compared with
        else:
            own = sum(worth[seed] for seed in one) / len(one)
            shifts.append(float(sum(worth.values()) / len(seeds) - own))
    return shifts


def _pair_rows(design: _Design, metric: str) -> Iterator[NewRow]:
    factorial, values = design.factorial, design.values(metric)
    # An interaction is a difference of differences to the baselines.
    has_baseline = [any(level.is_baseline for level in one) for one in design.factors.values()]
    if factorial is None or not all(has_baseline):
        return
    covered: set[Effect] = set()
    for places in combinations(range(len(factorial.factors)), 2):
        alike = factorial.aliases.get(places, ())
        if places in covered or any(len(effect) == 1 for effect in alike):
            continue
        covered.update(alike)
        for levels, found in factorial.interactions(places, values).items():
            paired = asdict(stats.compare_paired(found, dict.fromkeys(found, 0.0)))
            yield {
                "factor": factorial.factors[places[0]],
                "level": levels[0],
                "other": factorial.factors[places[1]],
                "other_level": levels[1],
                "aliases": alike_text(alike, short_names(factorial.factors)),
                "pairs": [
                    [factorial.factors[place] for place in pair]
                    for pair in (places, *alike)
                    if len(pair) == 2
                ],
                "family_of": PAIRS,
                "effect": paired.pop("diff"),
                **paired,
            }


def _add_hints(rows: Sequence[NewRow], effects: Sequence[NewRow]) -> None:
    """Mark main effects that depend on each other, where an interaction is not 0.

    Of pairs that are aliased in a fraction, each may be the one that interacts.
    """
    found: defaultdict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    verb = "depends on"
    for effect in effects:
        if effect["p_holm"] is not None and effect["p_holm"] < stats.ERROR:
            verb = verb if len(effect["pairs"]) == 1 else "may depend on"
            for pair in effect["pairs"]:
                for factor, other in (pair, reversed(pair)):
                    found[effect["dataset"], effect["metric"], factor][other] = None
    for row in rows:
        others = ", ".join(found[row["dataset"], row["metric"], row["factor"]])
        row["hint"] = f"{verb} {others} (see the interactions)" if others else ""


def _lack(trial: Row, metric: str) -> str:
    """Why a trial gives no value; "" if it does."""
    if trial["status"] != "completed":
        return str(trial["status"])
    value = trial[metric]
    return "" if pd.notna(value) and math.isfinite(value) else f"no finite {metric}"
