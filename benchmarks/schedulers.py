"""Epochs trained and regret of each scheduler, ours beside Ray Tune's, on made-up learning curves.

    python -m benchmarks.schedulers                     20 repeats of 64 trials, 27 epochs each
    python -m benchmarks.schedulers --repeats 3 --trials 27

A trial's accuracy after epoch e is its limit less what an exponential of e leaves (Weibull's curve
in the family of Domhan et al., IJCAI 2015), and noise. In one set of curves slow and fast ones end
alike; in the other the slow ones end higher, so that curves cross and the first epochs mislead.
Trials run on a few places at a time and take unequal times for an epoch; every contender meets the
same trials in the same order with the same noise. Ray's schedulers are asked through their own
interface by a loop that does what Tune's controller does: it starts the trial that the scheduler
chooses, reports each epoch, stops and pauses as told, and frees the place of a paused trial. The
chosen trial is the best measured of those that were trained to the last epoch; its regret is how
much the best of all trials is better at that epoch, without noise. With several objectives the
regret is the share that the hypervolume of the trained trials lacks of that of all.
"""

import argparse
import heapq
import itertools
import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from reports.statistics.paired_tests import summarise
from search.tune.schedulers.base import scheduler_class
from spaces.load import space_of

RESULTS = Path(__file__).parent / "results"
FACTOR = 3
PLACES = 8
"""Trials that run at the same time."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One trial: what it would measure, epoch by epoch."""

    name: str
    exact: tuple[float, ...]
    """Accuracy after each epoch, without noise."""
    measured: tuple[float, ...]
    seconds: float
    """Of an epoch."""
    size: float
    """Second objective, known from the start, in [0, 1]; smaller is better."""


@dataclass(eq=False)
class Run:
    """A trial as Tune's schedulers know it."""

    curve: Curve
    status: str = Trial.PENDING
    epoch: int = 0
    is_saving: bool = False
    last_result: dict[str, Any] = field(default_factory=dict)

    @property
    def trial_id(self) -> str:
        """Our name."""
        return self.curve.name

    @property
    def config(self) -> dict[str, str]:
        """What our scheduler is told."""
        return {"trial": self.curve.name}


def curves(seed: int, trials: int, epochs: int, patience: float) -> list[Curve]:
    """The trials of a repeat.

    Args:
        patience: How much higher the slowest ends than the fastest, in accuracy.
    """
    draw = random.Random(seed)
    found = []
    for number in range(trials):
        size, slow = draw.random(), draw.random()
        constant = 0.5 * 16**slow  # epochs in which 63 % of the way is gone: 0.5 to 8
        limit = 0.5 + 0.25 * draw.betavariate(2, 2) + 0.1 * size + patience * slow
        exact = tuple(limit - 0.4 * math.exp(-epoch / constant) for epoch in range(1, epochs + 1))
        measured = tuple(value + draw.gauss(0, 0.01) for value in exact)
        found.append(Curve(f"{number:05d}", exact, measured, draw.uniform(0.5, 2), size))
    return found


class Controller:
    """What schedulers of Tune ask of its controller, on a clock of its own.

    Args:
        scheduler: Of Ray Tune.
        trials: In the order in which a searcher proposes them.
        epochs: Of each.
    """

    def __init__(self, scheduler: Any, trials: Sequence[Curve], epochs: int) -> None:
        self._scheduler = scheduler
        self._waiting = [Run(curve) for curve in reversed(trials)]
        self._epochs = epochs
        self.runs: list[Run] = []
        self._clock: list[tuple[float, int, Run]] = []
        self._order = itertools.count()

    def get_trials(self) -> list[Run]:
        """Those that were added."""
        return self.runs

    def get_live_trials(self) -> list[Run]:
        """Those that have not ended."""
        return [run for run in self.runs if run.status != Trial.TERMINATED]

    def stop_trial(self, run: Run) -> None:
        """End a trial that is paused."""
        run.status = Trial.TERMINATED
        self._scheduler.on_trial_remove(self, run)

    def run(self) -> list[Run]:
        """Train until nothing is left that the scheduler wants to run."""
        now = 0.0
        while True:
            while len(self._clock) < PLACES and (run := self._choose()) is not None:
                run.status = Trial.RUNNING
                self._train(run, now)
            if not self._clock:
                return self.runs
            now, _, run = heapq.heappop(self._clock)
            run.epoch += 1
            self._report(run, now)

    def _choose(self) -> Run | None:
        # One trial ahead of what runs, as Tune keeps; brackets of Hyperband fill up in this order.
        pending = any(run.status == Trial.PENDING for run in self.runs)
        if self._waiting and not pending:
            run = self._waiting.pop()
            self.runs.append(run)
            self._scheduler.on_trial_add(self, run)
        chosen: Run | None = self._scheduler.choose_trial_to_run(self)
        return chosen

    def _train(self, run: Run, now: float) -> None:
        heapq.heappush(self._clock, (now + run.curve.seconds, next(self._order), run))

    def _report(self, run: Run, now: float) -> None:
        value = run.curve.measured[run.epoch - 1]
        result = {"epoch": run.epoch, "m": value, "training_iteration": run.epoch}
        run.last_result = result
        if run.epoch == self._epochs and not isinstance(self._scheduler, HyperBandScheduler):
            self._scheduler.on_trial_complete(self, run, result)
            run.status = Trial.TERMINATED
            return
        told = self._scheduler.on_trial_result(self, run, result)
        if told == TrialScheduler.CONTINUE:
            self._train(run, now)
        elif told == TrialScheduler.PAUSE:
            run.status = Trial.PAUSED
        else:
            self._scheduler.on_trial_complete(self, run, result)
            run.status = Trial.TERMINATED


class Ours(FIFOScheduler):  # type: ignore[misc]
    """A scheduler of this package, told what Tune tells: `search.tune.early_stopping` does it in a
    study.

    Args:
        settings: As in `scheduler` of a space.
        objectives: Of a trial at an epoch, turned so that larger is better.
    """

    def __init__(
        self, settings: dict[str, Any], objectives: Callable[[Run, float], list[float]], epochs: int
    ) -> None:
        super().__init__()
        space = space_of(
            {
                "name": "schedulers",
                "base": {"methods": ["linear"], "train.epochs": epochs},
                "axes": {"optim.lr": {"float": [0.001, 0.1]}},
                "scheduler": settings,
                "budget": {"trials": 1},
            }
        )
        self._scheduler = scheduler_class(space.scheduler.name)(space)
        self._objectives, self._epochs = objectives, epochs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether a trial goes on after an epoch."""
        epoch = result["epoch"]
        if epoch not in self._scheduler.decisions(trial.trial_id, self._epochs):
            return str(TrialScheduler.CONTINUE)
        values = self._objectives(trial, result["m"])
        goes_on = self._scheduler.goes_on(trial.trial_id, epoch, values)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let the last epoch count."""
        if result["epoch"] == self._epochs:
            values = self._objectives(trial, result["m"])
            self._scheduler.goes_on(trial.trial_id, self._epochs, values)


class AtRandom(Ours):
    """ASHA's rungs where chance decides who goes on: what a rule is worth beyond fewer epochs."""

    def __init__(self, seed: int, epochs: int) -> None:
        draw = random.Random(seed)
        settings = {"name": "asha", "reduction_factor": FACTOR}
        super().__init__(settings, lambda run, value: [draw.random()], epochs)


def accuracy(run: Run, value: float) -> list[float]:
    """One objective."""
    return [value]


def both(run: Run, value: float) -> list[float]:
    """Accuracy and size."""
    return [value, -run.curve.size]


def weighted(run: Run, value: float) -> list[float]:
    """The same as one number, as a user without several objectives would write it."""
    return [value - 0.2 * run.curve.size]


Make = Callable[[int, int], Any]
"""A scheduler of Tune for a repeat and a number of epochs."""


def _ours(objectives: Callable[[Run, float], list[float]] = accuracy, **settings: Any) -> Make:
    return lambda seed, epochs: Ours(settings, objectives, epochs)


def _ray(kind: Any, **options: Any) -> Make:
    def make(seed: int, epochs: int) -> Any:
        own = dict(options)
        if kind is not MedianStoppingRule:
            own |= {"max_t": epochs, "reduction_factor": FACTOR}
        return kind(time_attr="epoch", metric="m", mode="max", **own)

    return make


ONE_OBJECTIVE: dict[str, Make] = {
    "none": _ours(name="none"),
    "asha": _ours(name="asha", reduction_factor=FACTOR),
    "Ray ASHAScheduler": _ray(ASHAScheduler, grace_period=1),
    "hyperband": _ours(name="hyperband", reduction_factor=FACTOR),
    "hyperband, 3 brackets": _ours(name="hyperband", reduction_factor=FACTOR, brackets=3),
    "Ray AsyncHyperBandScheduler(brackets=3)": _ray(ASHAScheduler, grace_period=1, brackets=3),
    "Ray HyperBandScheduler": _ray(HyperBandScheduler),
    "median": _ours(name="median"),
    "Ray MedianStoppingRule": _ray(MedianStoppingRule, grace_period=1, min_samples_required=3),
    "median, grace 5": _ours(name="median", grace_epochs=5),
    "Ray MedianStoppingRule, grace 5": _ray(
        MedianStoppingRule, grace_period=5, min_samples_required=3
    ),
}
TWO_OBJECTIVES: dict[str, Make] = {
    "none": _ours(name="none"),
    "asha, both objectives": _ours(both, name="asha", reduction_factor=FACTOR),
    "hyperband, both objectives": _ours(both, name="hyperband", reduction_factor=FACTOR),
    "asha, accuracy alone": _ours(name="asha", reduction_factor=FACTOR),
    "Ray ASHAScheduler, accuracy alone": _ray(ASHAScheduler, grace_period=1),
    "asha, a weighted sum": _ours(weighted, name="asha", reduction_factor=FACTOR),
    "asha, ranks at random": lambda seed, epochs: AtRandom(seed, epochs),
}


OF_RAY = {
    "asha": "Ray ASHAScheduler",
    "hyperband": "Ray HyperBandScheduler",
    "hyperband, 3 brackets": "Ray AsyncHyperBandScheduler(brackets=3)",
    "median": "Ray MedianStoppingRule",
    "median, grace 5": "Ray MedianStoppingRule, grace 5",
    "asha, both objectives": "Ray ASHAScheduler, accuracy alone",
    "hyperband, both objectives": "Ray ASHAScheduler, accuracy alone",
}
"""What each of ours is compared with."""
PATIENCE = {"Slow and fast trials end alike": 0.0, "Slow trials end higher, curves cross": 0.15}
"""Kinds of curves."""


def trained_to_end(runs: Sequence[Run], epochs: int) -> list[Run]:
    """Those of a study that count."""
    return [run for run in runs if run.epoch == epochs]


def regret(runs: Sequence[Run], trials: Sequence[Curve], epochs: int) -> float:
    """What the chosen trial lacks of the best, in accuracy at the last epoch."""
    chosen = max(trained_to_end(runs, epochs), key=lambda run: run.curve.measured[-1])
    return max(curve.exact[-1] for curve in trials) - chosen.curve.exact[-1]


def hypervolume_regret(runs: Sequence[Run], trials: Sequence[Curve], epochs: int) -> float:
    """Share of the hypervolume of all trials that those trained to their end lack."""
    done = hypervolume([run.curve for run in trained_to_end(runs, epochs)])
    return 1 - done / hypervolume(trials)


def hypervolume(trials: Sequence[Curve]) -> float:
    """Area that some trial dominates, from accuracy 0 and size 1 on."""
    area, best = 0.0, 0.0
    # From the smallest on: each adds what lies above the best before.
    for curve in sorted(trials, key=lambda one: one.size):
        gain = curve.exact[-1] - best
        if gain > 0:
            area += gain * (1 - curve.size)
            best = curve.exact[-1]
    return area


Regret = Callable[[Sequence[Run], Sequence[Curve], int], float]


def compare(
    contenders: dict[str, Make],
    loss: Regret,
    repeats: int,
    trials: int,
    epochs: int,
    patience: float,
) -> list[dict[str, Any]]:
    """One row for each contender, with a value of each repeat; regrets in points or per cent."""
    rows = []
    for name, make in contenders.items():
        spent, lost, ended = [], [], []
        for seed in range(repeats):
            made = curves(seed, trials, epochs, patience)
            _seed_numpy(seed)  # Ray draws brackets from NumPy's global generator
            runs = Controller(make(seed, epochs), made, epochs).run()
            assert len(runs) == trials, f"{name} has left {trials - len(runs)} trials out"
            spent.append(sum(run.epoch for run in runs))
            lost.append(100 * loss(runs, made, epochs))
            ended.append(len(trained_to_end(runs, epochs)))
        rows.append({"scheduler": name, "epochs": spent, "regret": lost, "completed": ended})
    return rows


def _seed_numpy(seed: int) -> None:
    import numpy as np

    np.random.seed(seed)


def table(rows: Sequence[dict[str, Any]], what: str, epochs: int) -> str:
    """The rows as Markdown; differences to Ray's are paired by repeat."""
    lines = [
        f"| scheduler | epochs | of all | {what} | against Ray's: epochs | {what} | completed |",
        "|---|---|---|---|---|---|---|",
    ]
    by_name = {row["scheduler"]: row for row in rows}
    for row in rows:
        spent, lost = row["epochs"], row["regret"]
        against = ["", ""]
        if rival := by_name.get(OF_RAY.get(row["scheduler"], "")):
            against = [
                _shown([a - b for a, b in zip(row[key], rival[key], strict=True)], form)
                for key, form in (("epochs", "+.0f"), ("regret", "+.2f"))
            ]
        lines.append(
            f"| {row['scheduler']} | {_shown(spent, '.0f')} "
            f"| {100 * statistics.fmean(spent) / epochs:.0f} % "
            f"| {_shown(lost, '.2f')} | {against[0]} | {against[1]} "
            f"| {statistics.fmean(row['completed']):.1f} |"
        )
    return "\n".join(lines) + "\n"


def _shown(values: Sequence[float], form: str) -> str:
    """Mean and half its 95 % interval; 0 where all are equal."""
    found = summarise(values)
    mean, low = statistics.fmean(values), found.low
    return f"{mean:{form}} ± {0 if low is None else mean - low:{form.lstrip('+')}}"


def main() -> None:
    """Compare, print and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=27)
    options = parser.parse_args()
    size = options.repeats, options.trials, options.epochs
    every = options.trials * options.epochs
    text = (
        f"# Schedulers on made-up curves: {options.repeats} repeats, {options.trials} trials of "
        f"{options.epochs} epochs, {PLACES} at a time\n"
    )
    record: dict[str, Any] = {"options": vars(options)}
    for kind, patience in PATIENCE.items():
        one = compare(ONE_OBJECTIVE, regret, *size, patience)
        two = compare(TWO_OBJECTIVES, hypervolume_regret, *size, patience)
        record[kind] = {"one_objective": one, "two_objectives": two}
        text += (
            f"\n## {kind}\n\n{table(one, 'regret, points', every)}\n"
            f"Accuracy and size:\n\n{table(two, 'hypervolume regret, %', every)}"
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "schedulers.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "schedulers.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
