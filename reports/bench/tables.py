"""From the cells of a bench to its tables: each backbone is a table of its own.

Over data sets only those count that all compared methods have; a method that has less than half of
the data sets of the most complete one would take nearly all of them away and stands aside, which is
said. The statistics themselves know nothing of benches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import permutations

import numpy as np
import pandas as pd
import pyarrow as pa

from reports.bench.cells import SPLITS, CellFound
from reports.bench.columns import BENCH_COLUMNS
from reports.columns import SCHEMA_VERSION
from reports.labels import NewRow
from reports.statistics import across_data_sets as cross
from reports.statistics.expected_best import expected_best, mean_curve
from reports.statistics.fronts import on_front
from reports.statistics.paired_tests import compare_paired, summarise
from reports.statistics.profiles import AGGREGATES, Interval, Runs, aggregates, improvement, profile
from reports.statistics.wins import Values, mean_difference, wins
from reports.tables import frame_of, of_columns
from spaces.bench_cells import Bench

MEAN_OF_DATA_SETS = "mean of data sets"
MEAN_OF_GROUPS = cross.MEAN_OF_GROUPS
TAUS = np.linspace(0, 1, 101)
"""Thresholds of a performance profile."""
ENOUGH = 0.5
"""Share of the data sets of the most complete method that a method needs to be compared."""


@dataclass(frozen=True)
class BenchTables:
    """All numbers of a bench; each table has the columns of BENCH_COLUMNS."""

    bench: Bench
    found: tuple[CellFound, ...]
    arrow: Mapping[str, pa.Table]
    notes: tuple[str, ...]
    """Sentences that a reader of the tables needs."""

    @cached_property
    def frames(self) -> Mapping[str, pd.DataFrame]:
        """The tables by name."""
        return {name: frame_of(table) for name, table in self.arrow.items()}

    @property
    def backbones(self) -> list[str]:
        """In the order of the suite."""
        return list(dict.fromkeys(one.cell.backbone for one in self.found))

    def of(self, name: str, backbone: str, metric: str = "") -> pd.DataFrame:
        """Rows of a table for a backbone, and a metric where the table has several."""
        frame = self.frames[name]
        frame = frame[frame["backbone"] == backbone]
        return frame[frame["metric"] == metric] if metric else frame

    def metrics(self, backbone: str) -> list[str]:
        """Splits on which some cell has a value, test first."""
        cells = self.of("cells", backbone)
        return [split for split in SPLITS if cells[split].notna().any()]


@dataclass(frozen=True, slots=True)
class BackboneTables:
    """What a figure of a bench shows: one backbone, on one split."""

    tables: BenchTables
    backbone: str
    metric: str

    def of(self, name: str) -> pd.DataFrame:
        """Rows of a table."""
        by_split = any(column.name == "metric" for column in BENCH_COLUMNS[name])
        return self.tables.of(name, self.backbone, self.metric if by_split else "")

    @property
    def methods(self) -> list[str]:
        """All of them, in the order of the suite."""
        return list(dict.fromkeys(self.of("cells")["method"]))


def bench_tables(bench: Bench, found: Sequence[CellFound]) -> BenchTables:
    """All tables of a bench, whole or not."""
    rows: dict[str, list[NewRow]] = {name: [] for name in BENCH_COLUMNS}
    rows["cells"] = [_cell_row(one) for one in found]
    rows["seeds"] = [row for one in found for row in _seed_rows(one)]
    notes: list[str] = []
    for backbone in dict.fromkeys(one.cell.backbone for one in found):
        cells = [one for one in found if one.cell.backbone == backbone]
        rows["expected_best"] += _expected_rows(backbone, cells)
        rows["published"] += _published_rows(backbone, cells)
        compared = [_Table(bench, backbone, metric, cells) for metric in SPLITS]
        compared = [table for table in compared if table.values]
        for table in compared:
            rows["methods"] += table.method_rows()
            rows["groups"] += table.group_rows()
            rows["wins"] += table.pair_rows()
            rows["profiles"] += table.profile_rows()
        notes += compared[0].notes() if compared else []
        notes += _cell_notes(cells)
    about = {"tcpa.schema_version": str(SCHEMA_VERSION), "tcpa.bench": bench.name}
    arrow = {
        name: of_columns(rows[name], columns, about | {"tcpa.table": name})
        for name, columns in BENCH_COLUMNS.items()
    }
    return BenchTables(bench, tuple(found), arrow, tuple(dict.fromkeys(filter(None, notes))))


class _Table:
    """One backbone and metric: what is compared, and over which data sets."""

    def __init__(
        self, bench: Bench, backbone: str, metric: str, cells: Sequence[CellFound]
    ) -> None:
        self.key = {"backbone": backbone, "metric": metric}
        self.cells = {(one.cell.method, one.cell.dataset): one for one in cells}
        self.datasets = list(dict.fromkeys(one.cell.dataset for one in cells))
        self.values: Values = {
            place: found for place, one in self.cells.items() if (found := one.values.get(metric))
        }
        self.groups = bench.groups
        all_methods = list(dict.fromkeys(one.cell.method for one in cells))
        num = {m: sum((m, d) in self.values for d in self.datasets) for m in all_methods}
        needed = ENOUGH * max(num.values(), default=0)
        self.methods = [m for m in all_methods if num[m] and num[m] >= needed]
        self.aside = {m: num[m] for m in all_methods if m not in self.methods}
        self.baseline = bench.baseline or all_methods[0]
        if self.baseline not in self.methods:
            self.baseline = ""
        self.whole = [
            d for d in self.datasets if all((method, d) in self.values for method in self.methods)
        ]
        self.lacking = [d for d in self.datasets if d not in self.whole]

    def notes(self) -> list[str]:
        """What the statistics over data sets leave out."""
        found = []
        if self.aside:
            names = ", ".join(f"{m} ({n} of {len(self.datasets)})" for m, n in self.aside.items())
            found.append(
                f"{self.key['backbone']}: not compared over data sets, since too few of their "
                f"cells have a value: {names}."
            )
        if self.lacking and self.methods:
            found.append(
                f"{self.key['backbone']}: means, ranks and differences over data sets leave out "
                f"{', '.join(self.lacking)}: not every compared method has a value there."
            )
        return [*found, self._ranked()[1]]

    def method_rows(self) -> list[NewRow]:
        """Rows of `methods`, also of those that stand aside."""
        ranked, _ = self._ranked()
        by_method = {row["level"]: row for row in ranked}
        rows = [self._method_row(method, by_method.get(method, {})) for method in self.methods]
        frame = pd.DataFrame(rows)
        for cost, name in (
            ("num_trainable_no_head", "on_parameter_front"), ("train_s", "on_time_front"),
        ):  # fmt: skip
            front = on_front(frame[cost].astype(float), frame["mean"].astype(float))
            for row, is_on in zip(rows, front, strict=True):
                row[name] = bool(is_on) if row["mean"] is not None else None
        aside = [
            {**self.key, "method": method, "is_baseline": False, "n": 0,
             "left_out": ", ".join(self.datasets)}
            for method in self.aside
        ]  # fmt: skip
        return [*rows, *aside]

    def group_rows(self) -> Iterator[NewRow]:
        """Rows of `groups`; a mean over fewer data sets than its name says is not given."""
        for method in self.methods:
            whole = {**self.groups, MEAN_OF_DATA_SETS: tuple(self.datasets)}
            means: dict[str, float | None] = {}
            for group, members in whole.items():
                known = [self._mean(method, d) for d in members if (method, d) in self.values]
                missing = [d for d in members if (method, d) not in self.values]
                means[group] = None if missing else float(np.mean(known))
                yield {**self.key, "method": method, "group": group, "mean": means[group],
                       "n": len(known), "missing": ", ".join(missing)}  # fmt: skip
            if self.groups:
                of_groups = [means[group] for group in self.groups]
                known = [mean for mean in of_groups if mean is not None]
                is_whole = len(known) == len(of_groups)
                lacks = [group for group in self.groups if means[group] is None]
                yield {**self.key, "method": method, "group": MEAN_OF_GROUPS,
                       "mean": float(np.mean(known)) if is_whole else None,
                       "n": len(self.datasets), "missing": ", ".join(lacks)}  # fmt: skip

    def pair_rows(self) -> Iterator[NewRow]:
        """Rows of `wins`: every method against every other one, over the data sets of both."""
        chances: dict[tuple[str, str], Interval] = {}
        for method, other in permutations(self.methods, 2):
            both = [d for d in self.datasets
                    if (method, d) in self.values and (other, d) in self.values]  # fmt: skip
            found = asdict(wins(self.values, method, other, both))
            if both and (other, method) in chances:  # told from the other side
                chance, low, high = chances[other, method]
                chances[method, other] = 1 - chance, 1 - high, 1 - low
            elif both:
                chances[method, other] = improvement(
                    self._runs(method, both), self._runs(other, both)
                )
            names = ("improvement", "improvement_low", "improvement_high")
            found |= dict(zip(names, chances.get((method, other), ()), strict=False))
            left_out = [d for d in self.datasets if d not in both]
            yield {**self.key, **found, "n": len(both), "left_out": ", ".join(left_out)}

    def profile_rows(self) -> Iterator[NewRow]:
        """Rows of `profiles`."""
        for method in self.methods if self.whole else ():
            for tau, (share, low, high) in zip(
                TAUS, profile(self._runs(method, self.whole), TAUS), strict=True
            ):
                yield {**self.key, "method": method, "tau": float(tau), "share": share,
                       "low": low, "high": high}  # fmt: skip

    def _method_row(self, method: str, ranked: NewRow) -> NewRow:
        row: NewRow = {
            **{name: ranked.get(name) for name in (
                "mean", "mean_rank", "friedman_p", "critical_difference", "not_worse_than", "diff",
                "diff_low", "diff_high", "p", "p_holm", "rank_biserial",
            )},
            **self.key,
            "method": method,
            "is_baseline": method == self.baseline,
            "n": len(self.whole),
            "left_out": ", ".join(self.lacking),
            "iman_davenport_p": self._iman_davenport_p,
        }  # fmt: skip
        if not self.whole:
            return row
        runs = self._runs(method, self.whole)
        row["mean"] = float(np.mean([one.mean() for one in runs]))
        for name, (value, low, high) in aggregates(runs).items():
            if name != "mean":
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        if self.baseline and method != self.baseline:
            found = mean_difference(self.values, method, self.baseline, self.whole)
            if found is not None:
                row |= {"seeds_low": found[1], "seeds_high": found[2]}
        about = [self.cells[method, d].about for d in self.whole]
        for name in ("num_trainable_no_head", "train_s"):
            known = [one[name] for one in about if one.get(name) is not None]
            row[name] = float(np.mean(known)) if len(known) == len(about) else None
        deviations = [self.cells[method, d].about.get("deviation") for d in self.datasets]
        row["deviation"] = "; ".join(dict.fromkeys(filter(None, deviations)))
        return row

    def _ranked(self) -> tuple[list[NewRow], str]:
        """Rows as of `cross.rank_rows`."""
        table = pd.DataFrame(
            [[self._mean(m, d) for d in self.whole] for m in self.methods],
            self.methods, self.whole, dtype=float,
        )  # fmt: skip
        differences = None
        if self.baseline:
            of_baseline = {d: self.values.get((self.baseline, d), {}) for d in self.whole}
            differences = pd.DataFrame(
                [[compare_paired(self.values[m, d], of_baseline[d]).diff for d in self.whole]
                 for m in self.methods],
                self.methods, self.whole, dtype=float,
            )  # fmt: skip
        return cross.rank_rows(
            cross.Scores("methods", self.key["metric"], table, self.baseline, 1, differences)
        )

    @cached_property
    def _iman_davenport_p(self) -> float | None:
        if len(self.methods) < 3 or len(self.whole) < 5:  # as Friedman's test is made from
            return None
        means = [[self._mean(m, d) for d in self.whole] for m in self.methods]
        return cross.iman_davenport_p(np.array(means).round(12))

    def _mean(self, method: str, dataset: str) -> float:
        return float(np.mean([*self.values[method, dataset].values()]))

    def _runs(self, method: str, datasets: Sequence[str]) -> Runs:
        return [np.array([*self.values[method, d].values()]) for d in datasets]


def _cell_row(one: CellFound) -> NewRow:
    cell = one.cell
    row: NewRow = {
        **one.about,
        "backbone": cell.backbone, "method": cell.method, "dataset": cell.dataset,
        "missing": one.missing, "score": one.score, "is_fresh": one.is_fresh,
        "study": cell.study.name, "n": 0,
        "confirmation": cell.confirmation.name if cell.confirmation else "",
    }  # fmt: skip
    for split, values in one.values.items():
        found = summarise(list(values.values()))
        row |= {split: found.mean, f"{split}_std": found.std, f"{split}_low": found.low,
                f"{split}_high": found.high}  # fmt: skip
        row["n"] = max(row["n"], found.n)
    return row


def _seed_rows(one: CellFound) -> Iterator[NewRow]:
    cell = one.cell
    for split, values in one.values.items():
        for seed, value in values.items():
            yield {"backbone": cell.backbone, "method": cell.method, "dataset": cell.dataset,
                   "metric": split, "seed": seed, "value": value,
                   "trial": one.trials[seed]}  # fmt: skip


def _expected_rows(backbone: str, cells: Sequence[CellFound]) -> Iterator[NewRow]:
    """Rows of `expected_best`: each search, then the mean of each method over common data sets."""
    found = {(one.cell.method, one.cell.dataset): one for one in cells if len(one.searched)}
    names = {one.objective for one in found.values()}
    curves = {place: expected_best(one.searched, one.objective[1]) for place, one in found.items()}
    for (method, dataset), curve in curves.items():
        yield from _curve_rows(backbone, method, dataset, found[method, dataset].objective[0],
                               mean_curve([curve]))  # fmt: skip
    methods = list(dict.fromkeys(method for method, _ in curves))
    datasets = dict.fromkeys(dataset for _, dataset in curves)
    common = [d for d in datasets if all((m, d) in curves for m in methods)]
    if not common or len(names) > 1:
        return
    for method in methods:
        whole = mean_curve([curves[method, d] for d in common])
        yield from _curve_rows(backbone, method, "", next(iter(names))[0], whole)


def _curve_rows(
    backbone: str, method: str, dataset: str, objective: str, curve: np.ndarray
) -> Iterator[NewRow]:
    for n, (value, low, high) in enumerate(curve, start=1):
        yield {"backbone": backbone, "method": method, "dataset": dataset, "objective": objective,
               "n": n, "value": value, "low": None if np.isnan(low) else low,
               "high": None if np.isnan(high) else high}  # fmt: skip


def _published_rows(backbone: str, cells: Sequence[CellFound]) -> Iterator[NewRow]:
    """What agrees with every cell of its column that has a value."""
    for dataset in dict.fromkeys(one.cell.dataset for one in cells):
        column = [one for one in cells if one.cell.dataset == dataset and one.values.get("test")]
        for one in column[0].published if column else ():
            if one.on_test is not None and all(one in other.published for other in column):
                yield {"backbone": backbone, "dataset": dataset, "method": one.method,
                       "source": one.source, "value": one.on_test, "benchmark": one.benchmark,
                       "selection": one.selection, "caveat": one.caveat}  # fmt: skip


def _cell_notes(cells: Sequence[CellFound]) -> Iterator[str]:
    """What the cells of a backbone do not share and should, and what they say themselves."""
    for dataset in dict.fromkeys(one.cell.dataset for one in cells):
        column = [one for one in cells if one.cell.dataset == dataset]
        for what in ("data", "weights"):
            prints = {one.cell.method: one.prints.get(what) for one in column if one.prints}
            if len(set(prints.values())) > 1:
                told = "; ".join(f"{m}: {str(print_)[:12]}" for m, print_ in prints.items())
                yield f"{dataset}: cells differ in the fingerprint of their {what} ({told})."
        budgets = {one.cell.method: len(one.searched) for one in column if len(one.searched)}
        if len(set(budgets.values())) > 1:
            told = ", ".join(f"{method} {n}" for method, n in budgets.items())
            yield (
                f"{dataset}: searches trained unequal numbers of points ({told}), so a lead may be "
                "the budget's; see the expected best value after n trials."
            )
    if any(not one.is_fresh and one.values for one in cells):
        yield (
            "Cells without a confirmation have the seeds of their search, whose selected value is "
            "the best of many and optimistic on val."
        )
    for one in cells:
        for note in one.notes:
            yield f"{one.cell.dataset}: {note}"


assert set(AGGREGATES) == {"mean", "median", "iqm", "optimality_gap"}  # columns of `methods`
