"""Proposals, what the sampler is told, and the searcher that never starts a trial twice."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from search.proposals.dashboard_copy import OptunaLog
from search.proposals.design import Design
from search.proposals.planner import Planner
from search.proposals.sampled import Sampled
from search.proposals.samplers.base import make_sampler
from search.proposals.suggestions import Suggestions
from search.tune.searcher import StudySearcher
from spaces.space import Space
from tcpa_core.errors import ConfigError
from tcpa_core.record.events import Planned, event_of
from tests.search.conftest import SPACE, make_space

TINY = {"optim.lr": {"choice": [0.001, 0.01, 0.1]}, "optim.warmup_fraction": {"choice": [0.0, 0.1]}}


class Driver:
    """Plays Ray Tune: asks for trials and reports their outcomes."""

    def __init__(self, space: Space, folder: Path, **options: Any) -> None:
        self.source: Sampled | Design = (
            Design(space)
            if space.ablation
            else Sampled(space, "stubs", OptunaLog(folder / "optuna.log", space, ["stubs"]))
        )
        self.planned: list[Planned] = []
        self.stopped: list[str] = []
        past = options.pop("past", [])
        planner = Planner(self.source, {"data": "d", "weights": "w"}, space.budget.trials)
        self.suggestions = Suggestions(planner, past, options.pop("ahead", 1))
        arguments: dict[str, Any] = {
            "plan": self.planned.append,
            "stop": self.stopped.append,
            "may_start": lambda: True,
        }
        unfinished = [planned for planned, outcome in past if outcome is None]
        self.searcher = StudySearcher(self.suggestions, unfinished, **{**arguments, **options})
        self._past = {planned.trial: planned for planned, _ in past}

    def next(self) -> Planned | None:
        """The next trial, called like ours in Tune; None when there is none left."""
        while (config := self.searcher.suggest("?")) is None:
            pass
        if config == Searcher.FINISHED:
            return None
        planned = {**self._past, **{p.trial: p for p in self.planned}}[config["trial"]]
        self.searcher._running[planned.trial] = self.searcher._running.pop("?")
        return planned

    def finish(self, planned: Planned, **outcome: Any) -> None:
        """Report how a trial ended."""
        outcome = {"status": "completed", **outcome}
        self.searcher.on_trial_complete(planned.trial, outcome)

    def run(self, value: Callable[[Planned], float] = lambda p: p.config.optim.lr) -> None:
        """One trial after the other to the end."""
        while (planned := self.next()) is not None:
            self.finish(planned, val_accuracy=value(planned))
        self.suggestions.close()

    @property
    def told(self) -> list[optuna.trial.FrozenTrial]:
        self.suggestions.close()
        assert isinstance(self.source, Sampled)
        return self.source._points.study.trials


def read_again(planned: Planned) -> Planned:
    again = event_of(planned.as_dict())
    assert isinstance(again, Planned)
    return again


def test_budget_ends_the_search_with_as_many_different_trials(tmp_path: Path) -> None:
    driver = Driver(make_space(), tmp_path)
    driver.run()
    assert [p.trial for p in driver.planned] == [f"{n:05d}" for n in range(12)]
    assert len({p.digest for p in driver.planned}) == 12
    assert [t.state for t in driver.told] == [TrialState.COMPLETE] * 12
    assert [t.value for t in driver.told] == [p.config.optim.lr for p in driver.planned]


def test_first_points_come_first_and_are_told(tmp_path: Path) -> None:
    points = [{"optim.lr": 0.02, "optim.weight_decay": 0.05}, {"optim.lr": 0.03}]
    driver = Driver(make_space(first_points=points), tmp_path)
    driver.run()
    assert [p.origin for p in driver.planned[:3]] == ["first_point", "first_point", "sampler"]
    assert [p.config.optim.lr for p in driver.planned[:2]] == [0.02, 0.03]
    assert driver.told[0].params == {"optim.lr": 0.02, "optim.weight_decay": 0.05}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_resumed_search_goes_on_with_the_points_of_one_that_was_not(
    tmp_path: Path, sampler: str
) -> None:
    space = make_space(sampler={"name": sampler}, budget={"trials": 9})
    whole = Driver(space, tmp_path)
    whole.run()
    past = [(p, {"status": "completed", "val_accuracy": 0.5}) for p in whole.planned[:4]]
    resumed = Driver(space, tmp_path, past=past)
    resumed.run()
    assert [p.draw for p in resumed.planned] == [p.draw for p in whole.planned[4:]]
    other = Driver(make_space(sampler={"name": sampler, "seed": 1}, budget={"trials": 9}), tmp_path)
    other.run()
    assert not {p.digest for p in other.planned} & {p.digest for p in whole.planned}


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_finite_space_is_tried_whole_and_nothing_twice(tmp_path: Path, sampler: str) -> None:
    space = make_space(axes=TINY, sampler={"name": sampler}, budget={"trials": 50})
    driver = Driver(space, tmp_path)
    driver.run()
    assert len(driver.planned) == 6
    assert len({p.point for p in driver.planned}) == 6
    assert not [t for t in driver.told if t.state == TrialState.RUNNING]


def test_repeated_point_is_told_the_known_value(tmp_path: Path) -> None:
    space = make_space(axes=TINY, sampler={"name": "random"}, budget={"trials": 6})
    driver = Driver(space, tmp_path)
    driver.run()
    values: dict[str, set[float | None]] = {}
    for trial in driver.told:
        values.setdefault(repr(sorted(trial.params.items())), set()).add(trial.value)
    assert len(driver.told) > 6, "the seed has to give a repeated point"
    assert all(len(v) == 1 for v in values.values())


def test_repeated_point_that_still_runs_is_told_in_the_end(tmp_path: Path) -> None:
    space = make_space(axes={"optim.lr": {"choice": [0.001, 0.01]}}, budget={"trials": 5})
    driver = Driver(space, tmp_path)
    first, second = driver.next(), driver.next()
    assert first and second
    assert driver.next() is None
    driver.finish(second, val_accuracy=0.2)
    driver.finish(first, val_accuracy=0.1)
    expected = {first.config.optim.lr: 0.1, second.config.optim.lr: 0.2}
    assert {t.params["optim.lr"]: t.value for t in driver.told} == expected
    assert not [t for t in driver.told if t.state == TrialState.RUNNING]


@pytest.mark.parametrize(
    ("outcome", "state", "value"),
    [
        ({"val_accuracy": 0.5}, TrialState.COMPLETE, 0.5),
        ({"val_accuracy": float("nan")}, TrialState.FAIL, None),
        ({"val_accuracy": float("inf")}, TrialState.FAIL, None),
        ({"val_accuracy": None}, TrialState.FAIL, None),
        ({}, TrialState.FAIL, None),
        ({"status": "failed", "val_accuracy": 0.5}, TrialState.FAIL, None),
        ({"status": "pruned", "val_accuracy": 0.3, "num_epochs": 2}, TrialState.PRUNED, 0.3),
    ],
)
def test_no_outcome_leaves_an_optuna_trial_running(
    tmp_path: Path, outcome: dict[str, Any], state: TrialState, value: float | None
) -> None:
    driver = Driver(make_space(budget={"trials": 1}), tmp_path)
    planned = driver.next()
    assert planned is not None
    driver.finish(planned, **outcome)
    (told,) = driver.told
    assert (told.state, told.value) == (state, value)


def test_trial_that_the_scheduler_stops_is_told_as_pruned_and_stopped_once(tmp_path: Path) -> None:
    driver = Driver(make_space(budget={"trials": 1}), tmp_path)
    planned = driver.next()
    assert planned is not None
    driver.searcher.on_trial_complete("00000", {"epoch": 3, "val_accuracy": 0.4})
    driver.searcher.on_trial_complete("00000", {"epoch": 3, "val_accuracy": 0.4})
    assert driver.stopped == [planned.trial]
    (told,) = driver.told
    assert told.state == TrialState.PRUNED
    assert told.intermediate_values == {3: 0.4}


def test_tpe_draws_as_in_a_study_that_was_told_every_epoch() -> None:
    """What was stopped counts by its epochs, then by its value, and behind what has completed."""
    space = make_space(sampler={"name": "tpe"}, budget={"trials": 40})
    planner = Planner(Sampled(space, "s"), {"data": "d", "weights": "w"}, 40)
    own = optuna.create_study(direction="maximize")
    for number in range(40):
        new = planner.new()
        assert isinstance(new, Planned)
        own.sampler = make_sampler(space, number)
        trial = own.ask()
        space.suggest(trial)
        assert new.draw == trial.params
        # the more epochs the better, so that values of other epochs must not be mixed
        last = (1, 1, 3, 6)[number % 4]
        for epoch in range(1, last + 1):
            trial.report(epoch / 10 + trial.params["optim.lr"], epoch)
        value = last / 10 + trial.params["optim.lr"]
        status = "completed" if last == 6 else "pruned"
        planner.tell(new, {"status": status, "num_epochs": last, "val_accuracy": value})
        if last == 6:
            own.tell(trial, value)
        else:
            own.tell(trial, state=TrialState.PRUNED)


def test_seeds_that_were_stopped_at_different_epochs_are_not_averaged(tmp_path: Path) -> None:
    driver = Driver(make_space(seeds=[0, 1, 2], budget={"trials": 3}), tmp_path)
    ends = {0: (1, 0.2), 1: (3, 0.6), 2: (1, 0.3)}
    while (planned := driver.next()) is not None:
        epoch, value = ends[planned.config.seed]
        driver.finish(planned, status="pruned", num_epochs=epoch, val_accuracy=value)
    (told,) = driver.told
    assert told.state is TrialState.PRUNED
    assert told.intermediate_values == {1: pytest.approx(0.25), 3: 0.6}


def test_point_with_several_seeds_is_told_as_their_mean(tmp_path: Path) -> None:
    driver = Driver(make_space(seeds=[0, 1, 2], budget={"trials": 6}), tmp_path)
    driver.run(lambda p: 0.1 * (1 + p.config.seed))
    assert [p.config.seed for p in driver.planned] == [0, 1, 2, 0, 1, 2]
    assert [p.origin for p in driver.planned[:3]] == ["sampler", "replicate", "replicate"]
    assert len({p.point for p in driver.planned}) == 2
    assert [t.value for t in driver.told] == pytest.approx([0.2, 0.2])


def test_one_failed_seed_fails_its_point(tmp_path: Path) -> None:
    driver = Driver(make_space(seeds=[0, 1], budget={"trials": 2}), tmp_path)
    driver.run(lambda p: float("nan") if p.config.seed else 0.9)
    (told,) = driver.told
    assert told.state == TrialState.FAIL


def test_several_objectives_are_all_told(tmp_path: Path) -> None:
    goals = [
        {"metric": "val_accuracy", "goal": "maximize"},
        {"metric": "num_trainable", "goal": "minimize"},
    ]
    driver = Driver(make_space(objective=goals, budget={"trials": 2}), tmp_path)
    for accuracy, size in ((0.5, 10), (0.6, 20)):
        planned = driver.next()
        assert planned is not None
        driver.finish(planned, val_accuracy=accuracy, num_trainable=size)
    assert [t.values for t in driver.told] == [[0.5, 10.0], [0.6, 20.0]]


def test_design_is_run_in_its_order_with_its_cells(tmp_path: Path) -> None:
    ablation = {
        "design": "one_factor",
        "factors": {"optim.lr": [0.01, 0.1]},
        "baseline": {"optim.lr": 0.01},
        "seeds": [0, 1],
    }
    cut = dict.fromkeys(("axes", "objective", "sampler", "scheduler", "budget"))
    driver = Driver(make_space(**cut, ablation=ablation), tmp_path)
    driver.run()
    assert [(p.config.optim.lr, p.config.seed) for p in driver.planned] == [
        (0.01, 0),
        (0.1, 0),
        (0.01, 1),
        (0.1, 1),
    ]
    assert {p.origin for p in driver.planned} == {"design"}
    assert driver.planned[0].cells == [
        {"factor": "optim.lr", "level": "0.01", "order": 0, "baseline": True, "dataset": ""}
    ]


def run_some(driver: Driver, number: int) -> list[tuple[Planned, Mapping[str, Any] | None]]:
    """Run trials, leave the last one unfinished, and give back what the journal would say."""
    past: list[tuple[Planned, Mapping[str, Any] | None]] = []
    for _ in range(number):
        planned = driver.next()
        assert planned is not None
        past.append((planned, {"status": "completed", "val_accuracy": planned.config.optim.lr}))
        driver.finish(planned, val_accuracy=planned.config.optim.lr)
    planned = driver.next()
    assert planned is not None
    driver.suggestions.close()
    return [*past, (planned, None)]


def test_resumed_search_finishes_first_and_repeats_nothing(tmp_path: Path) -> None:
    points = [{"optim.lr": 0.02}, {"optim.lr": 0.03}]
    space = make_space(sampler={"name": "tpe"}, first_points=points)
    past = run_some(Driver(space, tmp_path), 4)
    past = [(read_again(planned), outcome) for planned, outcome in past]
    resumed = Driver(space, tmp_path, past=past)
    unfinished = resumed.next()
    assert unfinished is not None and unfinished.trial == "00004"
    assert not resumed.planned, "an unfinished trial is in the journal already"
    resumed.finish(unfinished, val_accuracy=0.5)
    resumed.run()
    assert [p.trial for p in resumed.planned] == [f"{n:05d}" for n in range(5, 12)]
    assert not {p.digest for p in resumed.planned} & {p.digest for p, _ in past}
    assert {p.origin for p in resumed.planned} == {"sampler"}
    done = [t for t in resumed.told if t.state == TrialState.COMPLETE]
    assert len(done) == 12
    assert [t.value for t in done[:4]] == [o["val_accuracy"] for _, o in past if o]


def test_resumed_point_gets_its_missing_seeds(tmp_path: Path) -> None:
    space = make_space(seeds=[0, 1, 2], budget={"trials": 6})
    past = run_some(Driver(space, tmp_path), 1)
    assert [p.config.seed for p, _ in past] == [0, 1]
    resumed = Driver(space, tmp_path, past=past)
    assert resumed.next() is not None
    planned = resumed.next()
    assert planned is not None
    assert (planned.config.seed, planned.point) == (2, past[0][0].point)
    resumed.suggestions.close()


def test_copy_for_the_dashboard_is_complete_whatever_was_there(tmp_path: Path) -> None:
    space = make_space()
    past = run_some(Driver(space, tmp_path), 5)
    whole = (tmp_path / "optuna.log").read_bytes()
    (tmp_path / "optuna.log").write_bytes(whole[: len(whole) // 2] + b"\0torn\n")
    (tmp_path / "optuna.log.lock").symlink_to("a dead driver's")
    Driver(space, tmp_path, past=past).run()
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "optuna.log")))
    study = optuna.load_study(study_name="stubs", storage=storage)
    assert len(study.trials) == 12
    assert study.best_value == max(t.value for t in study.trials if t.value is not None)


def test_the_copy_bears_our_names_whatever_ended_first(tmp_path: Path) -> None:
    space = make_space(seeds=[4, 5], budget={"trials": 8})
    driver = Driver(space, tmp_path, ahead=4)
    running = [planned for _ in range(4) if (planned := driver.next())]
    for planned in reversed(running):
        driver.finish(planned, val_accuracy=planned.config.optim.lr)
    past = [(p, {"status": "completed", "val_accuracy": p.config.optim.lr}) for p in running]
    driver.suggestions.close()
    for folder, one in ((tmp_path, None), (tmp_path / "resumed", past)):
        folder.mkdir(exist_ok=True)
        if one is not None:
            Driver(space, folder, past=one).run()
        storage = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
        copied = optuna.load_study(study_name="stubs", storage=storage).trials
        for trial in copied:
            names, seeds = trial.user_attrs["trial"].split(", "), trial.user_attrs["seed"]
            assert (len(names), seeds) == (2, "4, 5")
            for planned in running:
                if planned.trial in names:
                    assert trial.user_attrs["point"] == planned.point
                    assert trial.params["optim.lr"] == planned.config.optim.lr
        assert {t for trial in copied for t in trial.user_attrs["trial"].split(", ")} >= {
            planned.trial for planned in running
        }


def test_sampler_whose_package_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="'cmaes' needs the package 'cmaes'"):
        make_sampler(make_space(sampler={"name": "cmaes"}), 0)


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "gp", "nsga2"])
def test_every_sampler_proposes(tmp_path: Path, name: str) -> None:
    driver = Driver(make_space(sampler={"name": name}, budget={"trials": 12}), tmp_path)
    driver.run()
    assert len({p.digest for p in driver.planned}) == 12


def test_error_of_the_suggestion_thread_is_raised(tmp_path: Path) -> None:
    class Broken(Design):
        def propose(self, attempt: int) -> None:
            raise RuntimeError("no idea")

    cut = dict.fromkeys(("axes", "objective", "sampler", "scheduler", "budget"))
    ablation = {"design": "one_factor", "factors": {"optim.lr": [0.001, 0.1]}}
    space = make_space(**cut, ablation=ablation)
    driver = Driver(space, tmp_path)
    driver.suggestions.close()
    planner = Planner(Broken(space), {"data": "d", "weights": "w"}, None)
    driver.suggestions = Suggestions(planner, [], ahead=1)
    driver.searcher = StudySearcher(
        driver.suggestions,
        [],
        plan=lambda _: None,
        stop=lambda _: None,
        may_start=lambda: True,
    )
    with pytest.raises(RuntimeError, match="no idea"):
        driver.searcher.suggest("?")
    driver.suggestions.close()


def test_no_thread_is_left(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    Driver(make_space(), tmp_path).run()
    assert set(threading.enumerate()) == before


def test_spent_budget_ends_the_search(tmp_path: Path) -> None:
    driver = Driver(make_space(), tmp_path, may_start=lambda: False)
    assert driver.next() is None
    driver.suggestions.close()
    assert SPACE["budget"] == {"trials": 12}
