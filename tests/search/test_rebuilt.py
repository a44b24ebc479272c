"""Whatever is rebuilt from a journal is what it was: a study cut at any event goes on as in one go.

A study is lived without Ray: what happens next follows from the journal alone, so that the rest of
a study that was cut can be compared with that of one that was not, event by event.
"""

import hashlib
import importlib.util
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.balance import Balanced
from search.past import read_past
from search.planner import Planner
from search.race import Race
from search.sampler import Design, Planned, Sampled, Source
from search.schedule import Schedule
from search.trainable import LAST
from spaces.space import Space
from tests.search.conftest import make_space

Event = dict[str, Any]
IDS = {"data": "d", "weights": "w"}
AT_ONCE = 3
"""Trials that run at the same time."""

METRIC = "val_accuracy"


def chance(*key: Any) -> float:
    """A number in [0, 1) that depends on nothing but the key."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=6).digest()) / 2**48


def make_source(space: Space, folder: Path) -> Source:
    if space.ablation:
        return Race(space) if space.ablation.race else Design(space)
    return Balanced(space, folder / "log", "s") if space.sampler.per else Sampled(space, "s")


class Life:
    """What the driver does in one process.

    Args:
        journal: What earlier drivers wrote.
    """

    def __init__(self, space: Space, folder: Path, journal: Sequence[Event] = ()) -> None:
        self.space = space
        self.journal = list(journal)
        self.past = read_past(self, space)  # type: ignore[arg-type]
        self.schedule = Schedule(space)
        self.asha: Any = self.schedule.scheduler(self.past)
        self.source = make_source(space, folder)
        self.planner = Planner(self.source, IDS, space.budget.trials)
        self.planner.replay(self.past.trials())
        self.is_exhausted = False
        self.running: dict[str, Planned] = {}
        self.values: dict[str, list[float]] = {}
        open_trials = [p for t, p in self.past.planned.items() if t not in self.past.outcomes]
        for planned in open_trials:
            self.running[planned.trial] = planned
            self.values[planned.trial] = []
        for planned in open_trials:  # as the dispatcher tells them: decision by decision
            for epoch in range(1, self.past.epochs.get(planned.trial, 0) + 1):
                self.report(planned, epoch)

    def events(self) -> Iterator[Event]:
        yield from self.journal

    def live(self) -> list[Event]:
        """Go on to the end; the whole journal."""
        while not self.is_exhausted or self.running:
            self.step()
        self.source.close()
        return self.journal

    def step(self) -> None:
        number, places = len(self.journal), sorted(self.running)
        may_start = not self.is_exhausted and len(places) < AT_ONCE
        if not places or (may_start and chance(number, "start") < 0.5):
            new = self.planner.new()
            if isinstance(new, Planned):
                self.write(new.event())
                self.running[new.trial], self.values[new.trial] = new, []
                return
            self.is_exhausted = new is None
        if places:
            trial = places[int(chance(number, "train") * len(places))]
            self.train(self.running[trial], len(self.values[trial]) + 1)

    def train(self, planned: Planned, epoch: int) -> None:
        if epoch == 2 and chance(planned.config.optim.lr, planned.config.seed) < 0.3:
            self.end(planned, "failed", None)
            return
        report = {"kind": "epoch", "trial": planned.trial, "epoch": epoch}
        self.write({**report, METRIC: self.value(planned, epoch)})
        self.report(planned, epoch)

    def report(self, planned: Planned, epoch: int) -> None:
        """What follows when a trial stands at an epoch."""
        values = self.values[planned.trial]
        values.append(self.value(planned, epoch))
        tune = SimpleNamespace(trial_id=str(id(self)), config={"trial": planned.trial})
        if epoch == planned.config.train.epochs:
            last = {"epoch": epoch, METRIC: max(values), f"{LAST}{METRIC}": values[-1]}
            self.asha.on_trial_complete(None, tune, last)
            self.end(planned, "completed", max(values))
        elif epoch in self.schedule.decisions(planned.config):
            result = {"epoch": epoch, METRIC: values[-1]}
            if self.asha.on_trial_result(None, tune, result) == "STOP":
                self.end(planned, "pruned", values[-1])

    def end(self, planned: Planned, status: str, told: float | None) -> None:
        values = self.values.pop(planned.trial)
        outcome = {"status": status, "num_epochs": len(values), "duration_s": float(len(values))}
        best = None if told is None else max(values)
        self.write({"kind": status, "trial": planned.trial, **outcome, METRIC: best})
        del self.running[planned.trial]
        self.planner.tell(planned, {**outcome, METRIC: told})

    def write(self, event: Event) -> None:
        number = len(self.journal)
        self.journal.append({"n": number, "t": float(number), **event})

    def value(self, planned: Planned, epoch: int) -> float:
        flat = {k: v for k, v in planned.config.flat().items() if k != "train.epochs"}
        return 0.1 * epoch + chance(sorted(flat.items(), key=str), epoch)

    def state(self) -> Any:
        """What later decisions depend on."""
        rungs = getattr(self.asha, "_brackets", None)
        return (
            [(epoch, dict(values)) for epoch, values in rungs[0]._rungs] if rungs else None,
            {trial: len(values) for trial, values in self.values.items()},
            source_state(self.source),
        )


def source_state(source: Any) -> Any:
    if isinstance(source, Balanced):
        methods = source._methods.values()
        return [(m.taken, sorted(m.seconds), source_state(m.source)) for m in methods]
    if not isinstance(source, Sampled):
        return None  # a design looks at its trials anew, point by point
    trials = source._study.get_trials(deepcopy=False)
    return (
        [(t.number, t.state, t.params, t.values, t.intermediate_values) for t in trials],
        [{k: v for k, v in t.system_attrs.items() if "generation" in k} for t in trials],
        source._study._storage.get_study_system_attrs(source._study._study_id),
        source._num_asked,
        len(source._first),
        sorted(source._seen),
        [(point, seed) for point, seed, _, _ in source._pending],
        source._before,
    )


def check(space: Space, folder: Path, cuts: slice = slice(None)) -> list[Event]:
    """Cut the study behind every event; state there and all that follows are those of one go."""
    whole = Life(space, folder)
    states: dict[int, Any] = {}
    while not whole.is_exhausted or whole.running:
        if not whole.is_exhausted:  # what a sampler learns when nothing is left to run is lost
            states[len(whole.journal)] = repr(whole.state())
        whole.step()
    for cut in range(len(whole.journal) + 1)[cuts]:
        again = Life(space, folder, whole.journal[:cut])
        if len(again.journal) in states:  # else the driver was cut within a step
            assert repr(again.state()) == states[len(again.journal)], f"cut at {cut}"
        assert again.live() == whole.journal, f"cut at {cut}"
    whole.source.close()
    return whole.journal


def count(journal: list[Event]) -> Counter[str]:
    return Counter(event["kind"] for event in journal)


CONDITIONAL = {
    "methods": {"choice": [["linear"], ["tcpa"]]},
    "optim.lr": {"float": [1e-4, 1e-1], "log": True},
    "tcpa.num_image_prompts": {"int": [4, 12]},
    "tcpa.top_k_image": {"fraction_of": "tcpa.num_image_prompts", "range": [0.2, 1.0]},
    "tcpa.num_cls_prompts": {"int": [2, 8]},
    "tcpa.top_k_cls": {"int": [1, 8]},
}
FIRST = {"methods": ["tcpa"], "optim.lr": 0.03, "tcpa.num_image_prompts": 9,
         "tcpa.top_k_image": 3, "tcpa.num_cls_prompts": 5, "tcpa.top_k_cls": 5}  # fmt: skip
BOUND = ["tcpa.top_k_cls <= tcpa.num_cls_prompts"]
FINITE = {
    "optim.lr": {"choice": [0.001, 0.01]},
    "optim.weight_decay": {"float": [0.0, 0.3], "step": 0.1},
}
ASHA = {"name": "asha", "grace_epochs": 1, "reduction_factor": 2}


def sampled_space(name: str, **changes: Any) -> Space:
    settings = {
        "base": {"train.epochs": 4},
        "axes": CONDITIONAL,
        "constraints": BOUND,
        "sampler": {"name": name},
        "scheduler": ASHA,
        "first_points": [FIRST, {"methods": ["linear"], "optim.lr": 0.02}],
        "budget": {"trials": 14},
    }
    return make_space(**{**settings, **changes})


@pytest.mark.parametrize("seeds", [[0], [3, 1]])
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_search(tmp_path: Path, sampler: str, seeds: list[int]) -> None:
    cuts = slice(None) if sampler == "random" else slice(20, None, 3)
    journal = check(sampled_space(sampler, seeds=seeds), tmp_path, cuts)
    kinds = count(journal)
    assert kinds["planned"] == 14
    assert kinds["pruned"] and kinds["failed"] and kinds["completed"]


@pytest.mark.parametrize(
    ("sampler", "trials"), [("qmc", 16), ("nsga2", 110), ("gp", 13), ("cmaes", 20)]
)
def test_samplers_that_keep_something(tmp_path: Path, sampler: str, trials: int) -> None:
    """A generation, the place in a sequence, a covariance: all of it stands on Optuna's trials."""
    if sampler == "cmaes" and importlib.util.find_spec("cmaes") is None:
        pytest.skip("needs the extra 'cmaes'")
    axes: dict[str, Any] = CONDITIONAL
    if sampler == "cmaes":
        axes = {"optim.lr": axes["optim.lr"], "optim.weight_decay": {"float": [0.0, 0.1]}}
    space = sampled_space(
        sampler,
        axes=axes,
        constraints=BOUND if axes is CONDITIONAL else [],
        first_points=[],
        base={"train.epochs": 1},
        scheduler={"name": "none"},
        budget={"trials": trials},
    )
    cuts = {"nsga2": slice(3, None, 31), "gp": slice(22, None, 6), "cmaes": slice(0, None, 3)}
    journal = check(space, tmp_path, cuts.get(sampler, slice(None)))
    assert count(journal)["planned"] == trials


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid", "nsga2", "qmc"])
@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_points_drawn_again(tmp_path: Path, sampler: str, seeds: list[int]) -> None:
    """In a finite space; what a sampler learns from a repeat, it has learnt after a resume too."""
    space = sampled_space(
        sampler, axes=FINITE, constraints=[], seeds=seeds, scheduler={"name": "none"},
        first_points=[{"optim.weight_decay": 0.1, "optim.lr": 0.01}] * 2, base={"train.epochs": 1},
        budget={"trials": 50},
    )  # fmt: skip
    journal = check(space, tmp_path)
    repeats = [step for e in journal for step in e.get("before", ()) if isinstance(step, dict)]
    assert bool(repeats) == (sampler != "grid")
    assert count(journal)["planned"] == 8 * len(seeds)


def test_trials_of_different_lengths(tmp_path: Path) -> None:
    """Some end at a rung of longer ones, some between two, some before the first."""
    lengths = {"train.epochs": {"choice": [1, 2, 3, 4, 8]}, "optim.lr": CONDITIONAL["optim.lr"]}
    space = sampled_space("random", base={}, axes=lengths, constraints=[], first_points=[],
                          scheduler={**ASHA, "grace_epochs": 2})  # fmt: skip
    assert count(check(space, tmp_path))["pruned"]


def test_two_objectives(tmp_path: Path) -> None:
    goals = [{"metric": METRIC}, {"metric": "duration_s"}]
    check(sampled_space("nsga2", objective=goals), tmp_path, slice(0, None, 5))


@pytest.mark.parametrize("budget", [{"trials": 12}, {"trials": 12, "gpu_hours": 1.0}])
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_equal_budgets(tmp_path: Path, budget: dict[str, Any], sampler: str) -> None:
    axes = {**CONDITIONAL, "optim.weight_decay": {"choice": [0.0, 0.1]}}
    space = sampled_space(sampler, axes=axes, scheduler={"name": "none"}, first_points=[],
                          sampler={"name": sampler, "per": "methods"}, budget=budget)  # fmt: skip
    check(space, tmp_path, slice(0, None, 3))


def ablation_space(**more: Any) -> Space:
    cut = dict.fromkeys(("axes", "sampler", "scheduler", "budget"))
    rows = {f"row{i}": {"optim.lr": 0.01 * i} for i in range(1, 5)}
    ablation = {"design": "components", "rows": rows, "seeds": 7, **more}
    return make_space(**cut, ablation=ablation, base={"train.epochs": 1})


@pytest.mark.parametrize("race", [False, True])
def test_design_and_race(tmp_path: Path, race: bool) -> None:
    more = {"race": True, "test": "winner"} if race else {}
    check(ablation_space(**more), tmp_path, slice(0, None, 3))
