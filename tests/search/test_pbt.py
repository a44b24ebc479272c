"""Population based training: what it decides, and that a resumed study decides alike."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from search.proposals.planner import Planner
from search.proposals.sampled import Sampled
from search.tune.early_stopping import EarlyStopping
from search.tune.following import following
from search.tune.schedulers.base import Successor
from spaces.perturbation import perturbed
from spaces.population import herd_of
from spaces.space import Space
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.record.events import (
    Ended,
    Epoch,
    Event,
    Parent,
    Planned,
    TrialEvent,
    decode_line,
    encode_line,
)
from tcpa_core.record.state import StudyState
from tcpa_core.record.values import EpochReport, TrialResult
from tests.search.conftest import make_space
from tests.search.test_rebuilt import chance

IDS = {"data": "d", "weights": "w"}
METRIC = "val_accuracy"
LR = {"float": [1e-4, 1e-1], "log": True}
DECAY = {"choice": [0.0, 0.01, 0.1]}
SMOOTHING = {"float": [0.0, 0.4], "step": 0.1}
AXES = {
    "methods": {"choice": [["linear"], ["vpt"]]},
    "optim.lr": LR,
    "optim.weight_decay": DECAY,
    "vpt.num_prompts": {"int": [2, 20]},
    "train.label_smoothing": SMOOTHING,
}


def pbt_space(seed: int = 0, *, axes: dict[str, Any] = AXES, **changes: Any) -> Space:
    scheduler = {"name": "pbt", "population": 5, "interval": 2, **changes}
    budget = {"trials": 7}
    if "population" in changes:
        budget = {"trials": changes["population"]}
    return make_space(
        base={"train.epochs": 8, "methods": ["linear"]} if "methods" not in axes
        else {"train.epochs": 8},
        axes=axes,
        sampler={"name": "random", "seed": seed},
        scheduler=scheduler,
        budget=budget,
    )  # fmt: skip


class Life:
    """What the driver does in one process, without Ray: what comes next follows from the journal.

    Args:
        journal: What earlier drivers wrote.
    """

    def __init__(self, space: Space, journal: Sequence[Event] = ()) -> None:
        self.space = space
        self.journal = list(journal)
        lines = [encode_line(event.as_dict()) for event in self.journal]
        self.state = StudyState.of((decode_line(line, "here") for line in lines), METRIC)
        self.stopping = EarlyStopping(space, self.state)
        self.stopping.on_successor = self.succeed
        self.planner = Planner(Sampled(space, "s"), IDS, space.budget.trials)
        outcomes = self.state.outcomes()
        self.planner.replay([(one, end) for one, end in outcomes if one.parent is None])
        self.is_exhausted = False
        self.running = {n: one.planned for n, one in self.state.unfinished().items()}
        for successor in self.stopping.due_successors():
            self.succeed(successor)
        for name, planned in list(self.running.items()):
            for epoch in range(planned.begins_after + 1, self.state.trials[name].epoch + 1):
                self.report(planned, epoch)

    def write(self, event: Event) -> None:
        number = len(self.journal)
        self.journal.append(replace(event, n=number, t=float(number)))
        self.state.take(self.journal[-1])

    def succeed(self, successor: Successor) -> None:
        planned = following(successor, self.state, IDS)
        self.write(planned)
        self.stopping.join(planned)
        self.running[planned.trial] = planned

    def live(self) -> list[Event]:
        while self.running or not self.is_exhausted:
            self.step()
        return self.journal

    def step(self) -> None:
        number, places = len(self.journal), sorted(self.running)
        may_start = not self.is_exhausted and len(places) < herd_of(self.space).population
        if not places or (may_start and chance(number, "start") < 0.5):
            new = self.planner.new()
            if isinstance(new, Planned):
                self.stopping.join(new)
                self.write(new)
                self.running[new.trial] = new
                return
            self.is_exhausted = True
        if places:
            trial = places[int(chance(number, "train") * len(places))]
            planned, epoch = self.running[trial], self.state.trials[trial].epoch + 1
            if chance(trial, epoch, "fails") < 0.02:
                self.end(planned, "failed")
                return
            report = EpochReport(
                epoch=epoch, train_loss=1.0, ce_loss=1.0, match_loss=0.0, val_loss=1.0,
                val_accuracy=value_of(planned, epoch), lr=0.1, duration_s=1.0, images_per_s=1.0,
            )  # fmt: skip
            self.write(Epoch(trial=trial, report=report))
            self.report(planned, epoch)

    def report(self, planned: Planned, epoch: int) -> None:
        """What follows when a trial stands at an epoch."""
        tune = SimpleNamespace(config={"trial": planned.trial})
        result = {"epoch": epoch, METRIC: value_of(planned, epoch)}
        if epoch == planned.config.train.epochs:
            self.stopping.on_trial_complete(None, tune, result)
            self.end(planned, "completed")
        elif epoch in self.stopping.decisions(planned):
            if self.stopping.on_trial_result(None, tune, result) == "STOP":
                self.end(planned, "pruned")

    def end(self, planned: Planned, status: Any) -> None:
        epochs = self.state.trials[planned.trial].epoch - planned.begins_after
        result = TrialResult(status=status, num_epochs=epochs, val_accuracy=None)
        self.write(Ended(trial=planned.trial, result=result))
        del self.running[planned.trial]
        if planned.parent is None:
            self.planner.tell(planned, {"status": status, METRIC: 0.5, "num_epochs": epochs})


def value_of(planned: Planned, epoch: int) -> float:
    """Coarse, so that some are equal."""
    return round(chance(planned.digest, epoch), 1)


def of_kind(journal: Sequence[Event], kind: type[Any]) -> list[Any]:
    return [event for event in journal if isinstance(event, kind)]


def literal_decisions(
    space: Space, journal: Sequence[Event]
) -> Iterator[tuple[Parent, dict[str, Any]]]:
    """Algorithm 1 of the paper, asynchronous, over the reports of a journal."""
    settings: dict[str, dict[str, Any]] = {}
    scores: dict[int, list[tuple[float, str]]] = {}
    tried: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for event in journal:
        if isinstance(event, Planned):
            settings[event.trial] = event.config.flat()
        if not isinstance(event, Epoch):
            continue
        now, name = event.report.epoch, event.trial
        if now % 2 == 0:
            scores.setdefault(now, []).append((event.report.val_accuracy, name))
        epoch = now - 1
        if epoch not in (2, 4, 6) or name not in [one for _, one in scores[epoch]]:
            continue
        order = [one for _, one in sorted(scores[epoch], key=lambda pair: pair[0])]
        size = math.ceil(len(order) * herd_of(space).quantile)
        if size > len(order) / 2:
            size = math.floor(len(order) / 2)
        if name not in order[:size]:
            continue
        draws = random.Random(f"{space.sampler.seed}/{name}/{epoch}")
        source = draws.choice(order[-size:])
        seen = [settings[source], *tried.get((source, epoch), [])]
        for _ in range(100):
            new = explored(settings[source], draws, herd_of(space).resample)
            if new not in seen:
                tried.setdefault((source, epoch), []).append(new)
                yield Parent(source, epoch, replaces=name), new
                break


def explored(before: dict[str, Any], draws: random.Random, resample: float) -> dict[str, Any]:
    """Each setting near what it was, or anew."""
    new = dict(before)
    if draws.random() < resample:
        new["optim.lr"] = math.exp(draws.uniform(math.log(1e-4), math.log(1e-1)))
    else:
        new["optim.lr"] = min(max(before["optim.lr"] * draws.choice((0.8, 1.2)), 1e-4), 1e-1)
    options = DECAY["choice"]
    if draws.random() < resample:
        new["optim.weight_decay"] = draws.choice(options)
    else:
        place = options.index(before["optim.weight_decay"]) + draws.choice((-1, 1))
        new["optim.weight_decay"] = options[min(max(place, 0), 2)]
    steps = [min(0.4, i * 0.1) for i in range(5)]
    if draws.random() < resample:
        new["train.label_smoothing"] = min(0.1 * draws.randint(0, 4), 0.4)
    else:
        moved = before["train.label_smoothing"] * draws.choice((0.8, 1.2))
        new["train.label_smoothing"] = min(steps, key=lambda step: abs(step - min(moved, 0.4)))
    return new


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("quantile", [0.25, 0.5])
def test_it_decides_as_the_algorithm_says(seed: int, quantile: float) -> None:
    space = pbt_space(seed, quantile=quantile)
    journal = Life(space).live()
    children = [event for event in of_kind(journal, Planned) if event.parent]
    expected = list(literal_decisions(space, journal))
    assert [(one.parent, one.config.flat()) for one in children] == expected
    assert children


def known_of(stopping: EarlyStopping) -> str:
    """All that later decisions depend on."""
    known = vars(stopping.scheduler)
    values = {epoch: dict(found) for epoch, found in sorted(known["_values"].items())}
    begun = {key: sorted(found) for key, found in sorted(known["_begun"].items()) if found}
    ends = sorted(known["_ends"].items())
    return repr((values, ends, sorted(known["_judged"]), begun, sorted(known["_trials"])))


def test_a_study_cut_at_any_event_goes_on_as_in_one_go() -> None:
    space = pbt_space(3, population=4)
    whole = Life(space)
    states: dict[int, str] = {}
    while whole.running or not whole.is_exhausted:
        states[len(whole.journal)] = known_of(whole.stopping)
        whole.step()
    assert sum(1 for one in of_kind(whole.journal, Planned) if one.parent) > 3
    # Where something is decided, and at every third event of the others.
    tells = [event.kind == "planned" or n % 3 == 0 for n, event in enumerate(whole.journal)]
    for cut in [n for n, cuts in enumerate(tells, start=1) if cuts]:
        again = Life(space, whole.journal[:cut])
        if len(again.journal) in states:  # else the driver was cut within a step
            assert known_of(again.stopping) == states[len(again.journal)], f"cut at {cut}"
        assert again.live() == whole.journal, f"cut at {cut}"


def test_every_place_is_trained_through_once() -> None:
    journal = Life(pbt_space(1)).live()
    planned = of_kind(journal, Planned)
    ended = {event.trial: event.result.status for event in of_kind(journal, Ended)}
    names = [one.trial for one in planned]
    assert len(set(names)) == len(names) and len({one.digest for one in planned}) == len(planned)
    assert sum(one.parent is None for one in planned) == 7
    replaced = {one.parent.replaces for one in planned if one.parent}
    assert {name for name, status in ended.items() if status == "pruned"} == replaced
    epochs: dict[str, list[int]] = {}
    for event in of_kind(journal, Epoch):
        epochs.setdefault(event.trial, []).append(event.report.epoch)
    for one in planned:
        trained = epochs.get(one.trial, [])
        assert trained == list(range(one.begins_after + 1, one.begins_after + 1 + len(trained)))
        if ended[one.trial] == "completed":
            assert trained[-1] == 8
    # What is replaced has trained one epoch on.
    ends = {one.parent.replaces: one.parent.epoch + 1 for one in planned if one.parent}
    assert {name: epochs[name][-1] for name in ends} == ends


def test_what_begins_from_another_state_is_another_trial() -> None:
    journal = Life(pbt_space(1)).live()
    for one in of_kind(journal, Planned):
        own = one.config.digest(*IDS.values()), one.config.point(*IDS.values())
        assert (one.parent is None) == ((one.digest, one.point) == own)


def test_where_all_near_it_is_trained_already_a_member_goes_on() -> None:
    space = pbt_space(axes={"optim.weight_decay": {"choice": [0.01, 0.1]}, "optim.momentum": LR})
    config = space.config({"optim.weight_decay": 0.01, "optim.momentum": 0.01}, 0)
    stopping = EarlyStopping(space, StudyState(METRIC))
    root = {
        name: Planned.of(name, config, origin="sampler", digest=name, point=name, draw={})
        for name in "abcdefgh"
    }
    for planned in root.values():
        stopping.join(planned)
    found = []
    for place, name in enumerate("abcdefgh"):
        stopping.scheduler.goes_on(name, 2, [-float(place)])
    for name in "abcdefgh":
        stopping.scheduler.goes_on(name, 3, [0.0])
        if successor := stopping.scheduler.successor(name):
            found.append(successor.config.optim.weight_decay)
            child = Planned.of(
                f"{name}-2", successor.config, origin="pbt", digest=f"{name}2", point=name,
                draw={}, parent=successor.parent,
            )  # fmt: skip
            stopping.join(child)
    # Momentum does nothing in AdamW: from each good state there is one other trial.
    assert found and set(found) == {0.1}
    assert len(found) <= 2


@pytest.mark.parametrize("seed", range(20))
def test_it_stays_within_the_space(seed: int) -> None:
    draws = random.Random(seed)
    axes = {
        "optim.lr": LR,
        "optim.min_lr": {"float": [1e-5, 1e-2]},
        "vpt.num_prompts": {"int": [2, 9]},
    }
    space = make_space(
        base={"methods": ["vpt"], "train.epochs": 8, "optim.schedule": "poly"},
        axes=axes,
        constraints=["optim.min_lr <= optim.lr"],
        scheduler={"name": "pbt", "interval": 2},
        budget=None,
    )
    assert space.budget.trials == 8
    config = space.config({"optim.lr": 2e-4, "optim.min_lr": 1.5e-4, "vpt.num_prompts": 5}, 0)
    for _ in range(30):
        found = perturbed(space, config, 0.3, draws)
        if found is None:
            continue
        config = found
        assert 1e-4 <= config.optim.lr <= 1e-1 and 1e-5 <= config.optim.min_lr <= config.optim.lr
        assert config.flat()["vpt.num_prompts"] == 5


def test_it_keeps_the_optimiser() -> None:
    """AdamW without weight decay may be SGD, whose moments are others."""
    space = make_space(
        base={"train.epochs": 8, "optim.adamw_wd0": "sgd"},
        axes={"optim.weight_decay": {"choice": [0.0, 0.1]}},
        scheduler={"name": "pbt", "interval": 2},
    )
    config = TrialConfig.from_flat({**space.config({"optim.weight_decay": 0.1}, 0).flat()})
    found = {str(perturbed(space, config, 0.5, random.Random(i))) for i in range(20)}
    assert all("weight_decay=0.0" not in one for one in found)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axes": {"vpt.num_prompts": {"int": [2, 9]}}}, "none of the axes (vpt.num_prompts) may"),
        ({"seeds": [0, 1]}, "trains every member with one seed, got 2 seeds"),
        ({"objective": [{"metric": "num_trainable"}]}, "one objective that every epoch has"),
        (
            {"objective": [{"metric": "val_accuracy"}, {"metric": "duration_s"}]},
            "got val_accuracy, duration_s",
        ),
        ({"scheduler": {"name": "pbt", "interval": 7}}, "must be <= 6 with train.epochs 8, got 7"),
        ({"base": {"train.epochs": 8, "train.patience": 2}}, "leave train.patience out"),
        (
            {"scheduler": {"name": "pbt", "interval": 2, "population": 9}, "budget": {"trials": 4}},
            "scheduler.population is 9, and budget.trials lets only 4 begin",
        ),
    ],
    ids=["axes", "seeds", "no objective", "two objectives", "interval", "patience", "budget"],
)
def test_what_it_cannot_do_is_refused(changes: dict[str, Any], said: str) -> None:
    entries: dict[str, Any] = {
        "base": {"methods": ["vpt"], "train.epochs": 8},
        "axes": {"optim.lr": LR},
        "scheduler": {"name": "pbt", "interval": 2},
        "budget": None,
    }
    if "base" in changes:
        changes = {**changes, "base": {**entries["base"], **changes["base"]}}
    with pytest.raises(ConfigError) as caught:
        make_space(**{**entries, **changes})
    assert said in str(caught.value)


def test_events_of_others_stay_as_they_were() -> None:
    planned = Planned.of(
        "a", TrialConfig.from_flat({}), origin="sampler", digest="d", point="p", draw={}, cells=[]
    )
    assert "from" not in planned.as_dict()
    child = replace(planned, parent=Parent("b", 4, replaces="c"))
    read = decode_line(encode_line(child.as_dict()), "here")
    assert isinstance(read, TrialEvent) and read == child
