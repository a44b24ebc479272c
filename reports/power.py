"""What a design will be able to see, told from studies that were made before.

Of each earlier study the settings that have several seeds count: all rows of a design, of a search
its best points, since bad settings spread more. Settings of several studies on one data set with
the same seeds are compared with each other as well.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from reports.labels import group_column, method_column, plural
from reports.statistics.across_data_sets import dataset_of
from reports.statistics.paired_tests import ERROR
from reports.statistics.power import (
    Spread,
    across,
    between,
    pooled,
    seeds_for,
    seen_by_data_sets,
    seen_by_seeds,
    spread_of,
)
from reports.study_trials import StudyTrials
from reports.tables import ranking
from reports.verdicts.words import quantity
from tcpa_core.errors import RecordError, StudyError

BEST = 5
"""Points of a search that count."""
FEW = 10
"""Degrees of freedom below which lines say that the spread itself is uncertain."""
LADDER = (3, 5, 10, 20)
"""Numbers of seeds that are told beside the planned one."""
SETS = (6, 10, 19)
"""Numbers of data sets that are told beside the planned one."""


@dataclass(frozen=True, slots=True)
class Design:
    """What is planned."""

    metric: str
    """The objective, by which settings are compared."""
    datasets: tuple[str, ...]
    """As `dataset_of` names them."""
    num_seeds: int
    comparisons: int = 1
    """Settings that are compared with one other: the family of Holm's adjustment."""
    backbones: tuple[str, ...] = ()
    """Values of backbone.name; (): any."""

    @classmethod
    def of(
        cls, metric: str, settings: Sequence[Mapping[str, object]], num_seeds: int, comparisons: int
    ) -> Self:
        """A design of trials with these settings, by dotted path."""
        sets = dataset_of(pd.DataFrame(settings)).fillna("")
        backbones = dict.fromkeys(str(one.get("backbone.name", "")) for one in settings)
        return cls(metric, tuple(sets.unique()), num_seeds, comparisons, tuple(backbones))


@dataclass(frozen=True, slots=True)
class Power:
    """What it will see."""

    design: Design
    by_data: Mapping[str, Spread]
    """How differences spread over seeds, by data set; "other data": of none that is planned."""
    of_data: Spread | None
    """How differences vary from data set to data set; None: no earlier study tells."""
    sources: tuple[str, ...]
    """Studies behind it."""
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For a terminal; the first ones say what is planned."""
        if not self.by_data:
            return list(self.notes)
        names = ", ".join(self.sources[:4]) + ", ..." * (len(self.sources) > 4)
        head = f"paired t test over seeds at 5 %, seen in 80 % of studies; from {names}"
        found = [head]
        for name, spread in self.by_data.items():
            found += self._of_seeds(name, spread)
        found += self._of_sets()
        return [*found, *self.notes]

    def document(self) -> dict[str, Any]:
        """As plain values; differences in the unit of the metric."""
        seeds = self._ladder()
        return {
            "metric": self.design.metric,
            "comparisons": self.design.comparisons,
            "data": [
                {
                    "name": name,
                    "spread": spread.value,
                    "spread_low": spread.interval()[0],
                    "spread_high": spread.interval()[1],
                    "df": spread.df,
                    "seen": [{"seeds": n, "difference": seen_by_seeds(spread, n)} for n in seeds],
                }
                for name, spread in self.by_data.items()
            ],
            "across": [
                {"data_sets": n, "seeds": self.design.num_seeds, "difference": seen}
                for n, seen in self._across()
            ],
            "sources": list(self.sources),
            "notes": list(self.notes),
        }

    def _ladder(self) -> list[int]:
        planned = [self.design.num_seeds] if self.design.num_seeds > 1 else []
        return sorted({*planned, *LADDER})

    def _of_seeds(self, name: str, spread: Spread) -> Iterator[str]:
        shown = quantity(self.design.metric)
        low, high = (shown.size(end) for end in spread.interval())
        yield (
            f"{name}: differences of one seed spread by {shown.size(spread.value)} "
            f"({low.removesuffix(' points')} to {high})"
        )
        num = self.design.num_seeds
        if num < 2:
            yield "  1 seed sees nothing: it shows no spread"
        else:
            seen = seen_by_seeds(spread, num)
            half = seeds_for(spread, seen / 2)
            more = f", {half} would see {shown.size(seen / 2)}" if half else ""
            yield f"  {num} seeds see {shown.size(seen)}{more}"
            if spread.df < FEW:
                certain = seen_by_seeds(Spread(spread.value, math.inf), num)
                yield (
                    f"  of that a part is for how little is known of the spread; were it certain, "
                    f"{num} seeds would see {shown.size(certain)}"
                )
            if self.design.comparisons > 1:
                error = ERROR / self.design.comparisons
                yield (
                    f"  after Holm over {self.design.comparisons} comparisons at most "
                    f"{shown.size(seen_by_seeds(spread, num, error))}"
                )
        others = [n for n in LADDER if n != num]
        told = ", ".join(f"{n}: {shown.size(seen_by_seeds(spread, n))}" for n in others)
        yield f"  other numbers of seeds: {told}"

    def _of_sets(self) -> Iterator[str]:
        num = len(self.design.datasets)
        if self.of_data is None:
            if num > 1:
                yield (
                    "over data sets: not known, since no earlier study has the same settings on "
                    "two of them"
                )
            return
        shown = quantity(self.design.metric)
        seeds = plural(max(1, self.design.num_seeds), "seed")
        told = [
            f"{n} see nothing (Wilcoxon's test needs 6)" if seen is None
            else f"{n} see {shown.size(seen)}"
            for n, seen in self._across()
        ]  # fmt: skip
        yield f"over data sets, {seeds} on each, Wilcoxon's test: {', '.join(told)}"

    def _across(self) -> Iterator[tuple[int, float | None]]:
        """Mean differences that numbers of data sets see, the planned number first."""
        if self.of_data is None:
            return
        of_seeds = pooled(list(self.by_data.values()))
        spread = between(self.of_data, of_seeds, max(1, self.design.num_seeds))
        num = len(self.design.datasets)
        for n in dict.fromkeys([*([num] if num > 1 else []), *SETS]):
            yield n, seen_by_data_sets(spread, n)


def power_of(design: Design, folders: Sequence[Path], *, is_named: bool) -> Power:
    """What a design will see.

    Args:
        folders: Of earlier studies.
        is_named: Whether the user chose them: then all of them count, whatever their backbone.
            Those on planned data come first; only where there are none do others count.

    Raises:
        StudyError: A study that was named cannot be read or has no two settings that share seeds.
    """
    rows: dict[str, dict[str, dict[int, float]]] = defaultdict(dict)
    labels: dict[tuple[str, str], dict[int, float]] = {}
    sources: dict[str, set[str]] = {}
    for folder in folders:
        try:
            one = StudyTrials.of(folder)
        except (StudyError, RecordError) as err:
            if is_named:
                raise StudyError(f"tcpa plan --pilot {folder.name}: {err}") from err
            continue  # a folder among others: its own report says more
        found = _rows(one, design.metric, () if is_named else design.backbones)
        if is_named and not found:
            raise StudyError(
                f"tcpa plan --pilot {folder.name}: no two settings of it have {design.metric} for "
                "two seeds or more, so nothing is known of how differences spread; a pilot is an "
                "ablation of two rows with three seeds."
            )
        for dataset, name, label, values in found:
            rows[dataset][f"{one.study.name}/{name}"] = values
            labels.setdefault((label, dataset), values)
            sources.setdefault(dataset, set()).add(one.study.name)
    spreads = {data: spread for data, found in rows.items() if (spread := _spread(found))}
    planned = {data: spreads[data] for data in design.datasets if data in spreads}
    notes = _notes(design, spreads, planned)
    used = dict(planned)
    if not planned and spreads:
        used = {"other data": pooled(list(spreads.values()))}
    names = {study for data in (planned or spreads) for study in sources[data]}
    of_data = _of_data(labels, pooled(list(spreads.values()))) if spreads else None
    return Power(design, used, of_data, tuple(sorted(names)), tuple(notes))


def _notes(
    design: Design, spreads: Mapping[str, Spread], planned: Mapping[str, Spread]
) -> Iterator[str]:
    if not spreads:
        yield (
            f"No earlier study has two settings with {design.metric} for the same two seeds or "
            "more, so what this design will see is not known. A pilot tells: an ablation of two "
            "rows with three seeds, named with --pilot."
        )
    elif not planned:
        yield (
            f"No earlier study is on {', '.join(design.datasets) or 'this data'}; the spread is of "
            f"{', '.join(spreads)}, and another data set may spread otherwise."
        )
    else:
        lacking = [data for data in design.datasets if data not in planned]
        if lacking:
            yield f"No earlier study is on {', '.join(lacking)}."


Found = list[tuple[str, str, str, dict[int, float]]]
"""Data set, name within the study, label that other data sets share, and values by seed."""


def _rows(one: StudyTrials, metric: str, backbones: Sequence[str]) -> Found:
    """Settings of a study that have a value for several seeds, over these backbones."""
    if metric not in one.trials:
        return []
    used = one.trials[one.trials["left_out"] == ""]
    used = used[used[metric].notna()]
    if backbones and "backbone.name" in used:
        used = used[used["backbone.name"].isin(backbones)]
    names = method_column(used) if one.study.confirms else group_column(used)
    found: Found = []
    for dataset, part in used.groupby(dataset_of(used).fillna(""), sort=False):
        points = part.groupby(part["point"].fillna(part["trial"]), sort=False)
        several = [(str(p), rows) for p, rows in points if rows["seed"].nunique() > 1]
        if not several:
            continue
        order = {p.point: place for place, p in enumerate(ranking(part, one.study).points)}
        several.sort(key=lambda item: order.get(item[0], len(order)))
        for point, rows in several[:BEST] if one.study.kind == "search" else several:
            label = str(names[rows.index[0]])
            found.append((str(dataset), point, label, _by_seed(rows, metric)))
    return found


def _by_seed(rows: pd.DataFrame, metric: str) -> dict[int, float]:
    pairs = zip(rows["seed"].fillna(0), rows[metric].astype(float), strict=True)
    return {int(seed): float(value) for seed, value in pairs if np.isfinite(value)}


def _spread(rows: Mapping[str, Mapping[int, float]]) -> Spread | None:
    """Of one data set: settings with the same seeds are compared with each other."""
    same: dict[tuple[int, ...], dict[str, Mapping[int, float]]] = defaultdict(dict)
    for name, values in rows.items():
        same[tuple(sorted(values))][name] = values
    found = [spread for group in same.values() if (spread := spread_of(group))]
    return pooled(found) if found else None


def _of_data(
    labels: Mapping[tuple[str, str], Mapping[int, float]], of_seeds: Spread
) -> Spread | None:
    """How the differences of labels to one of them vary over data sets that both have."""
    sets: dict[str, dict[str, Mapping[int, float]]] = defaultdict(dict)
    for (label, dataset), values in labels.items():
        sets[label][dataset] = values
    if not sets:
        return None
    base = max(sets, key=lambda label: len(sets[label]))
    means, seeds = [], []
    for label, found in sets.items():
        pairs = {d: (found[d], sets[base][d]) for d in found if label != base and d in sets[base]}
        shared = {d: sorted(set(a) & set(b)) for d, (a, b) in pairs.items()}
        known = [d for d in pairs if shared[d]]
        means.append(
            [float(np.mean([pairs[d][0][s] - pairs[d][1][s] for s in shared[d]])) for d in known]
        )
        seeds += [len(shared[d]) for d in known]
    return across(of_seeds, means, round(float(np.mean(seeds)))) if seeds else None
