"""What a bench will run and cost, and the checks that can fail before its first cell starts.

Every data set is listed, none is decoded; every method is built on every backbone for one data set.
A cell's own plan checks the rest when its turn comes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from search.planning.cost import (
    DATA_PLACES,
    Estimate,
    Kind,
    Rates,
    kind_of,
    probed,
    recorded,
    trained_shares,
)
from search.planning.plan import Decoding, Plan, Progress, measured_epoch, plan_space
from spaces.axes import label
from spaces.suite import Suite, SuiteCell
from tcpa_core.data.base import DataSummary, dataset_summary
from tcpa_core.errors import DataError
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import DataConfig
from tcpa_core.training.estimate import VALIDATION

BYTES_A_TRIAL = 60_000
"""What a trial leaves beside its weights: lines of the journal, rows of MLflow."""
BYTES_A_NUMBER = 4


@dataclass(frozen=True, slots=True)
class CellPlan:
    """What is left of a cell."""

    cell: SuiteCell
    trials: int | None
    """Trials of its search and its confirmation; None: as many as the time allows."""
    epochs: int
    """Of each of them, at most."""
    estimate: Estimate | None
    """None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What is left of a bench, checked."""

    suite: Suite
    folder: Path
    cells: tuple[CellPlan, ...]
    num_done: int
    data: Mapping[str, DataSummary]
    """By the name of the column."""
    methods: tuple[Plan, ...]
    """A plan of each method on one data set."""
    device: str
    """What times are of: "cpu" or the model of a GPU."""
    study_bytes: float
    """What the studies will take on disk."""
    cache_bytes: float
    """The most that decoded pictures take in the cache; those that it has are counted, too."""

    @property
    def trials(self) -> int | None:
        """Trials of all cells; None: the budget is time."""
        counts = [one.trials for one in self.cells if one.trials is not None]
        return sum(counts) if len(counts) == len(self.cells) else None

    @property
    def estimate(self) -> Estimate | None:
        """Seconds of one device for all cells; None: of some nothing is known."""
        known = [one.estimate for one in self.cells if one.estimate is not None]
        if len(known) < len(self.cells):
            return None
        middle = math.fsum(one.seconds for one in known)
        # cells of one method err alike, so that their intervals add up
        low, high = math.fsum(one.low for one in known), math.fsum(one.high for one in known)
        return Estimate(middle, low, high, sum(one.num_known for one in known))

    @property
    def unknown(self) -> list[str]:
        """Rows of which nothing is known."""
        return list(dict.fromkeys(c.cell.method for c in self.cells if c.estimate is None))


def plan_bench(
    suite: Suite,
    left: Sequence[SuiteCell],
    cells: Sequence[SuiteCell],
    folder: Path,
    *,
    probe: bool = False,
    is_shown: bool = True,
    progress: Progress | None = None,
) -> BenchPlan:
    """Check what is left of a bench, and say what it costs; nothing is written.

    Args:
        left: Cells that are not done.
        cells: All that were asked for.
        folder: Of the bench.
        probe: Train a few steps of every method on one data set; otherwise times are told from
            trials on record in the bench and beside it.
        is_shown: Somebody reads it; else only what is needed to tell trials and time is found out.
        progress: Told of what is read and checked.

    Raises:
        TcpaError: Data or weights cannot be read, or a method does not fit its backbone.
    """
    data = _summaries(left, progress)
    methods = [
        plan_space(
            one.space,
            one.name,
            folder,
            decoding=Decoding(keep=not is_shown, progress=progress),
            is_shown=is_shown,
        )
        for one in _one_of_each(left, folder)
    ]
    rates = _recorded(folder)
    if probe:
        rates = _probed(left, progress)
    speeds = _Speeds(
        rates, _of_records(cells, rates, {_config(one): data[one.dataset] for one in left})
    )
    confirmed = suite.confirm.top * suite.confirm.seeds
    planned = []
    for one in left:
        searched = one.space.budget.trials
        size = one.space.size()
        if size is not None and searched is not None:
            searched = min(searched, size * len(one.space.seeds))
        trials = None if searched is None else searched + confirmed
        found = None if searched is None else speeds.estimate(one, searched, confirmed)
        planned.append(CellPlan(one, trials, one.space.most_epochs, found))
    numbers = {method: size.trainable[1] for plan in methods for size in plan.methods
               for method in [label(list(size.methods))]}  # fmt: skip
    return BenchPlan(
        suite=suite,
        folder=folder,
        cells=tuple(planned),
        num_done=len(cells) - len(left),
        data=data,
        methods=tuple(methods),
        device=rates.device,
        cache_bytes=_cache_bytes(left, data),
        study_bytes=math.fsum(
            (one.trials or 0) * (BYTES_A_TRIAL + BYTES_A_NUMBER * numbers.get(_chain(one.cell), 0))
            for one in planned
        ),
    )


def _summaries(left: Sequence[SuiteCell], progress: Progress | None) -> dict[str, DataSummary]:
    """What is in each data set, by the name of its column."""
    found: dict[str, DataSummary] = {}
    columns = list(dict.fromkeys(one.dataset for one in left))
    for one in left:
        if one.dataset in found:
            continue
        try:
            found[one.dataset] = dataset_summary(_config(one), progress=progress)
        except DataError as err:
            rest = ",".join(name for name in columns if name != one.dataset)
            raise DataError(
                f"data set {one.dataset!r}: {err} Say where the data sets are with --data DIR, or "
                f"leave it out: --datasets {rest or 'NAME'}."
            ) from err
    return found


def _of_records(
    cells: Sequence[SuiteCell], rates: Rates, data: Mapping[DataConfig, DataSummary]
) -> dict[DataConfig, DataSummary]:
    """Columns that are done, too, where trials on them tell how fast a method is."""
    found = dict(data)
    recorded_on = {tuple(kind[place] for place in DATA_PLACES) for kind in rates.seconds}
    for config in {_config(one): None for one in cells}:
        if config not in found and _key(config) in recorded_on:
            with suppress(DataError):  # gone meanwhile; what is left does not need it
                found[config] = dataset_summary(config)
    return found


def _cache_bytes(left: Sequence[SuiteCell], data: Mapping[str, DataSummary]) -> float:
    sides = {
        (one.dataset, load_backbone(one.space.trials[0].backbone, device="meta").img_size)
        for one in {(one.dataset, one.backbone): one for one in left}.values()
    }
    return math.fsum(3 * side**2 * sum(data[name].sizes.values()) for name, side in sides)


def _one_of_each(left: Sequence[SuiteCell], folder: Path) -> Iterator[SuiteCell]:
    """A cell of each method on each backbone, of those that have not begun."""
    seen = set()
    for one in left:
        if (one.method, one.backbone) not in seen and not (folder / one.name).exists():
            seen.add((one.method, one.backbone))
            yield one


class _Speeds:
    """Seconds of an epoch: as on record, else by the pictures of a data set that is.

    Args:
        rates: Seconds by kind of trial.
        data: What is in the data sets of the bench.
    """

    def __init__(self, rates: Rates, data: Mapping[DataConfig, DataSummary]) -> None:
        self._rates = rates
        self._pictures = {_key(config): _passes(summary) for config, summary in data.items()}
        self._per_picture: dict[Kind, list[float]] = {}
        for kind, seconds in rates.seconds.items():
            pictures = self._pictures.get(tuple(kind[place] for place in DATA_PLACES))
            if pictures:
                scaled = self._per_picture.setdefault(_without_data(kind), [])
                scaled += [one / pictures for one in seconds]

    def estimate(self, cell: SuiteCell, searched: int, confirmed: int) -> Estimate | None:
        """The time of a cell's trials, of which those of its search can be stopped; None: not
        known."""
        config = cell.space.trials[0]
        kind = kind_of(config.flat())
        seconds = self._rates.seconds.get(kind, [])
        if not seconds:
            pictures = self._pictures[_key(config.data)]
            seconds = [one * pictures for one in self._per_picture.get(_without_data(kind), [])]
        if not seconds:
            return None
        ordered, most = sorted(seconds), cell.space.most_epochs
        tail = len(ordered) // 10
        expected, least = trained_shares(cell.space)
        return Estimate(
            (expected * searched + confirmed) * most * fmean(ordered),
            (least * searched + confirmed) * most * ordered[tail],
            (searched + confirmed) * most * ordered[-1 - tail],
            len(ordered),
        )


def _recorded(folder: Path) -> Rates:
    """Seconds of trials in the bench, beside it and in other benches there."""
    rates = recorded(folder)
    for root in (folder.parent, *sorted(folder.parent.glob("*/"))):
        if root == folder:
            continue
        more = recorded(root)
        if not rates.seconds:
            rates.device = more.device
        if more.device == rates.device:
            for kind, seconds in more.seconds.items():
                rates.seconds[kind] += seconds
    return rates


def _probed(left: Sequence[SuiteCell], progress: Progress | None) -> Rates:
    """Seconds of a few steps of each method on the first data set."""
    rates = Rates(are_probed=True)
    first = {(one.method, one.backbone): one for one in reversed(left)}
    for number, one in enumerate(first.values()):
        found = probed(one.space, measured_epoch)
        rates.device = found.device
        for kind, seconds in found.seconds.items():
            rates.seconds[kind] += seconds
        if progress:
            progress("probe methods", number + 1, len(first))
    return rates


def _config(cell: SuiteCell) -> DataConfig:
    return cell.space.trials[0].data


def _key(config: DataConfig) -> tuple[str, ...]:
    return label(config.name), label(config.root)


def _passes(summary: DataSummary) -> float:
    """Pictures of an epoch, those of val by what they cost."""
    return summary.sizes["train"] + VALIDATION * summary.sizes["val"]


def _without_data(kind: Kind) -> Kind:
    return tuple(value for place, value in enumerate(kind) if place not in DATA_PLACES)


def _chain(cell: SuiteCell) -> str:
    return label(list(cell.space.trials[0].methods))
