"""Whatever is rebuilt from a journal is what it was: a study cut at any event goes on as in one go.

A study is lived without Ray: what happens next follows from the journal alone, so that the rest of
a study that was cut can be compared with that of one that was not, event by event.
"""

import hashlib
import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import FixedTrial, TrialState

from search.proposals.design import Design
from search.proposals.equal_budgets import EqualBudgets
from search.proposals.planner import Planner
from search.proposals.race import Race
from search.proposals.sampled import Sampled
from search.proposals.seed_race import SeedRace
from search.proposals.source import Source
from search.tune.early_stopping import EarlyStopping, compared_by_epoch
from search.tune.schedulers.base import Scheduler
from search.workers.trial_progress import LAST
from spaces.sections import SAMPLERS
from spaces.space import Space
from tcpa_core import plugins
from tcpa_core.record.events import Finished, Planned, StudyBegun
from tcpa_core.record.state import Spent, StudyState
from tests.journals import event
from tests.journals import planned as planned_trial
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
        return Race(space) if space.ablation.races else Design(space)
    return EqualBudgets(space, folder / "log", "s") if space.sampler.per else Sampled(space, "s")


class Life:
    """What the driver does in one process.

    Args:
        journal: What earlier drivers wrote.
    """

    def __init__(self, space: Space, folder: Path, journal: Sequence[Event] = ()) -> None:
        self.space = space
        self.journal = list(journal)
        self.past = state_of(self.journal, space)
        self.stopping = EarlyStopping(space, self.past)
        self.source = make_source(space, folder)
        self.planner = Planner(self.source, IDS, space.budget.trials)
        self.planner.replay(self.past.outcomes())
        self.is_exhausted = False
        self.running: dict[str, Planned] = {}
        self.values: dict[str, list[float]] = {}
        open_trials = [one.planned for one in self.past.unfinished().values()]
        for planned in open_trials:
            self.running[planned.trial] = planned
            self.values[planned.trial] = []
            if self.past.trials[planned.trial].started is None:
                self.start(planned)
        for planned in open_trials:  # as the dispatcher tells them: decision by decision
            for epoch in range(1, self.past.trials[planned.trial].epoch + 1):
                self.report(planned, epoch)

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
                self.write(new.as_dict())
                self.start(new)
                self.running[new.trial], self.values[new.trial] = new, []
                return
            self.is_exhausted = new is None
        if places:
            trial = places[int(chance(number, "train") * len(places))]
            self.train(self.running[trial], len(self.values[trial]) + 1)

    def start(self, planned: Planned) -> None:
        """Say what it costs, where trials are compared by that."""
        if len(self.space.objective) > 1:
            costs = {"num_trainable": self.cost(planned)}
            self.write({"kind": "started", "trial": planned.trial, "device": "", "costs": costs})

    def train(self, planned: Planned, epoch: int) -> None:
        if epoch == 1 and int(planned.trial) % 5 == 4:
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
            last |= {"duration_s": float(epoch), "num_trainable": self.cost(planned)}
            self.stopping.on_trial_complete(None, tune, last)
            self.end(planned, "completed", max(values))
        elif epoch in self.stopping.decisions(planned):
            result = {"epoch": epoch, METRIC: values[-1], "duration_s": float(epoch)}
            result["num_trainable"] = self.cost(planned)
            if self.stopping.on_trial_result(None, tune, result) == "STOP":
                self.end(planned, "pruned", values[-1])

    def end(self, planned: Planned, status: str, told: float | None) -> None:
        values = self.values.pop(planned.trial)
        outcome = {"status": status, "num_epochs": len(values), "duration_s": float(len(values))}
        outcome["num_trainable"] = self.cost(planned)
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

    @staticmethod
    def cost(planned: Planned) -> int:
        return int(planned.config.flat().get("tcpa.num_image_prompts") or 0)

    def state(self) -> Any:
        """What later decisions depend on."""
        return (
            state_of_scheduler(self.stopping.scheduler),
            {trial: len(values) for trial, values in self.values.items()},
            source_state(self.source),
        )


def state_of_scheduler(scheduler: Scheduler) -> Any:
    """All that it has learnt, sets in order."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(value[key]) for key in sorted(value)}
        if isinstance(value, set | frozenset):
            return sorted(value)
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        return plain(vars(value)) if type(value).__module__.startswith("search") else value

    return plain({key: value for key, value in vars(scheduler).items() if key != "_space"})


def source_state(source: Any) -> Any:
    if isinstance(source, EqualBudgets):
        methods = source._methods.values()
        return [(m.taken, sorted(m.seconds), source_state(m.source)) for m in methods]
    if not isinstance(source, Sampled):
        return None  # a design looks at its trials anew, point by point
    trials = source._points.study.get_trials(deepcopy=False)
    return (
        [(t.number, t.state, t.params, t.values, t.intermediate_values) for t in trials],
        [{k: v for k, v in t.system_attrs.items() if "generation" in k} for t in trials],
        source._points.study._storage.get_study_system_attrs(source._points.study._study_id),
        source._points.num_asked,
        len(source._first),
        sorted(source._seen),
        [(asked.point, seed) for asked, seed, _ in source._pending],
        source._before,
        raced(source._points.race),
    )


def raced(race: SeedRace | None) -> Any:
    if race is None:
        return None
    best = race._incumbent
    racers = [*race._challengers.values(), *([best] if best else [])]
    return (
        race.incumbent,
        race._is_owed,
        [(one.point, one.given, sorted(one.values.items()), one.num_open) for one in racers],
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


SHIPPED = {"random", "tpe", "grid", "qmc", "nsga2", "gp", "cmaes"}
"""Samplers that the tests of this file know more of."""


@pytest.mark.parametrize("sampler", sorted(set(plugins.names(SAMPLERS)) - SHIPPED))
def test_any_other_sampler(tmp_path: Path, sampler: str) -> None:
    """One that a contributor adds, or that TCPA_PLUGINS brings."""
    check(sampled_space(sampler, seeds=[0]), tmp_path, slice(20, None, 6))


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


@pytest.mark.parametrize(("scheduler", "other"), [
    ("asha", "num_trainable"), ("asha", "duration_s"), ("hyperband", "num_trainable"),
])  # fmt: skip
def test_two_objectives(tmp_path: Path, scheduler: str, other: str) -> None:
    goals = [{"metric": other}, {"metric": METRIC}]
    settings = {**ASHA, "name": scheduler}
    space = sampled_space("nsga2", objective=goals, scheduler=settings)
    assert count(check(space, tmp_path, slice(0, None, 5)))["pruned"]


@pytest.mark.parametrize("settings", [
    {"name": "hyperband", "reduction_factor": 2},
    {"name": "hyperband", "reduction_factor": 2, "brackets": 1},
    {"name": "median", "min_samples": 1},
    {"name": "median", "grace_epochs": 2, "min_samples": 2},
])  # fmt: skip
def test_other_schedulers(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert count(check(sampled_space("random", scheduler=settings), tmp_path))["pruned"]


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


@pytest.mark.parametrize("kept", [8, 1000])
def test_a_sampler_that_forgets(tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.proposals.asked.KEPT", kept)
    space = sampled_space("tpe", budget={"trials": 24}, base={"train.epochs": 1},
                          scheduler={"name": "none"})  # fmt: skip
    check(space, tmp_path, slice(30, None, 4))


@pytest.mark.parametrize(("epochs", "grace", "factor"), [
    (e, g, r) for e in (5, 6, 9, 10, 20, 27, 30, 50, 100) for g in (1, 2, 3, 5) for r in (2, 3, 4)
    if g < e
])  # fmt: skip
def test_rungs_hold_the_values_of_their_epochs(epochs: int, grace: int, factor: int) -> None:
    scheduler = {"name": "asha", "grace_epochs": grace, "reduction_factor": factor}
    space = make_space(base={"train.epochs": epochs}, scheduler=scheduler)
    config = space.config({"optim.lr": 0.01, "optim.weight_decay": 0.0}, 0)
    reports = {epoch: epoch / 1000 for epoch in range(1, epochs + 1)}
    past = StudyState(METRIC)
    past.take(planned_trial("00000", config, "sampler", "d", "p"))
    for epoch, value in reports.items():
        past.take(event({"kind": "epoch", "trial": "00000", "epoch": epoch, METRIC: value}))
    reached = [grace * factor**k for k in range(9) if grace * factor**k <= epochs]
    assert state_of_scheduler(EarlyStopping(space, past).scheduler)["_rungs"]["_values"] == {
        rung: [rung / 1000] for rung in reached
    }


def state_of(journal: Sequence[Event], space: Space) -> StudyState:
    metric = space.objective[0].metric
    return StudyState.of(map(event, journal), metric, compared_by_epoch(space))


def test_time_counts_once_whoever_looks_at_it() -> None:
    """A driver's start counts for no budget, and its GPUs are those that it had."""
    events: list[Event] = [
        {"kind": "study", "t": 100.0},
        {"kind": "planned", "trial": "00000", "t": 112.0, "began": 110.0, "gpus": 2.0},
        {"kind": "notice", "t": 114.0, "gpus": 4.0},
        {"kind": "stopped", "t": 120.0},
        {"kind": "extended", "t": 500.0},
        {"kind": "resumed", "t": 900.0},
        {"kind": "notice", "t": 905.0, "began": 904.0, "gpus": 0.0},
        {"kind": "finished", "t": 910.0},
    ]
    hours = {4: (10, 4 * 2 + 6 * 4), 6: (10, 32), 8: (16, 32 + 6)}
    for cut, (wall, gpu) in hours.items():
        spent = Spent()
        for one in events[:cut]:
            spent.take(event(one))
        assert spent.hours() * 3600 == pytest.approx(wall)
        assert spent.gpu_hours(otherwise=9.0) * 3600 == pytest.approx(gpu)
    running = Spent()
    for one in events[:3]:
        running.take(event(one))
    assert running.hours(now=118.0) * 3600 == pytest.approx(8)
    assert running.gpu_hours(9.0, now=118.0) * 3600 == pytest.approx(4 * 2 + 4 * 4)


def test_time_of_a_journal_that_names_no_gpus() -> None:
    spent = Spent()
    spent.take(StudyBegun(name="s", t=0.0))
    spent.take(Finished(t=3600.0))
    assert spent.hours() == 1.0
    assert spent.gpu_hours(otherwise=4.0) == 4.0
    assert spent.gpu_hours(otherwise=0.0) == 1.0


def test_a_stopped_trial_is_told_as_it_stood() -> None:
    """Its record has the best epoch; the sampler was told the one at which it was stopped."""
    space = sampled_space("tpe", seeds=[0])
    planned = planned_trial(
        "00000", space.config(space.complete(FIRST), 0), "sampler", "d", "p", [], {}
    )
    events: list[Event] = [
        {"kind": "study", "t": 0.0},
        {"t": 1.0, **planned.as_dict()},
        *({"kind": "epoch", "t": 2.0, "trial": "00000", "epoch": e, METRIC: v}
          for e, v in ((1, 0.8), (2, 0.3))),
        {"kind": "pruned", "t": 3.0, "trial": "00000", "status": "pruned", "num_epochs": 2,
         METRIC: 0.8},
    ]  # fmt: skip
    ((_, outcome),) = state_of(events, space).outcomes()
    assert outcome is not None
    assert (outcome["num_epochs"], outcome[METRIC]) == (2, 0.3)


def test_a_journal_without_the_order_of_steps_is_read() -> None:
    """As versions wrote it that did not record what a sampler knew."""
    space = sampled_space("nsga2", first_points=[], base={"train.epochs": 1},
                          scheduler={"name": "none"}, seeds=[0, 1])  # fmt: skip
    planned: list[Planned] = []
    planner = Planner(Sampled(space, "s"), IDS, 9)
    while isinstance(new := planner.new(), Planned):
        planned.append(replace(new, before=None))
        planner.tell(new, {"status": "completed", METRIC: 0.5})
    source = Sampled(space, "s")
    source.replay([(p, {"status": "completed", METRIC: 0.5}) for p in planned])
    assert len(source._points.study.get_trials(states=[TrialState.COMPLETE])) == 4
    assert [seed for _, seed, _ in source._pending] == [1]


def test_a_draw_that_an_older_version_read_otherwise_is_told_as_what_was_run() -> None:
    """A share of a pool once stood for another count than now."""
    space = sampled_space("tpe", seeds=[0, 1])
    config = space.config(space.complete(FIRST), 0)
    draw = {**space.params(space.complete(FIRST)), "tcpa.top_k_image/tcpa.num_image_prompts": 0.99}
    source = Sampled(space, "s")
    source.replay([(planned_trial("00000", config, "sampler", "d", "p", [], draw), None)])
    ((asked, seed, _),) = source._pending
    assert space.config(asked.point, 0) == config and seed == 1
    assert space.suggest(FixedTrial(asked.trial.params))["tcpa.top_k_image"] == 3


def test_trials_of_another_version_are_neither_run_again_nor_renamed() -> None:
    """A change of what enters a hash must not repeat a design, nor split a point's replicates."""
    space = ablation_space(seeds=3)
    first = Planner(Design(space), IDS, None)
    old = [first.new() for _ in range(5)]
    past: list[tuple[Planned, Any]] = []
    for planned in old:
        assert isinstance(planned, Planned)
        planned = replace(planned, digest="old" + planned.digest, point="old" + planned.point)
        past.append((planned, {"status": "completed", METRIC: 0.5}))
    again = Planner(Design(space), IDS, None)
    again.replay(past)
    rest = []
    while isinstance(new := again.new(), Planned):
        rest.append(new)
    assert [p.trial for p in rest] == [f"{n:05d}" for n in range(5, 12)]
    assert {p.point for p in rest} == {p.point for p, _ in past}
