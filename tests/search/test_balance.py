"""Equal budgets for methods: by trials, by seconds, and after a resume."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.proposals.equal_budgets import EqualBudgets
from search.proposals.source import Proposal
from search.study.folder import StudyDir
from spaces.load import space_of
from spaces.space import Space
from tcpa_core.errors import ConfigError
from tcpa_core.record.events import Planned
from tests.journals import planned as planned_trial
from tests.journals import recorded
from tests.search.conftest import make_space, run_stubs

MakeStudy = Callable[..., StudyDir]
METHODS = [["linear"], ["vpt"], ["vpt", "tcpa"]]
AXES = {
    "methods": {"choice": METHODS},
    "optim.lr": {"float": [1e-4, 1e-1], "log": True},
    "vpt.num_prompts": {"choice": [5, 10]},
}


def methods_space(**changes: Any) -> Space:
    sampler = {"name": "random", "per": "methods"}
    base = {"train.epochs": 6}
    return make_space(**{"base": base, "axes": AXES, "sampler": sampler, **changes})


def planned_of(number: int, proposal: Proposal) -> Planned:
    name, own = f"{number:05d}", str(number)
    return planned_trial(name, proposal.config, proposal.origin, own, own, [], proposal.draw)


def run(source: EqualBudgets, seconds: dict[str, float], most: int) -> list[Planned]:
    """Trials one after the other, each of its method's length."""
    done: list[Planned] = []
    while len(done) < most and (proposal := source.propose(0)) is not None:
        planned = planned_of(len(done), proposal)
        source.take(planned, proposal)
        outcome = {"status": "completed", "val_accuracy": 0.5,
                   "duration_s": seconds["+".join(planned.config.methods)]}  # fmt: skip
        source.tell(planned, outcome)
        done.append(planned)
    source.close()
    return done


def count(done: list[Planned]) -> Counter[str]:
    return Counter("+".join(planned.config.methods) for planned in done)


SECONDS = {"linear": 1.0, "vpt": 3.0, "vpt+tcpa": 6.0}


def test_every_method_gets_the_same_number_of_trials(tmp_path: Path) -> None:
    space = methods_space(budget={"trials": 14})
    done = run(EqualBudgets(space, tmp_path / "log", "s"), SECONDS, 100)
    assert count(done) == {"linear": 4, "vpt": 4, "vpt+tcpa": 4}
    assert all(p.config.flat().get("vpt.num_prompts") in (5, 10) for p in done[1::3])


def test_the_copy_for_the_dashboard_has_a_study_for_each_method(tmp_path: Path) -> None:
    done = run(
        EqualBudgets(methods_space(budget={"trials": 14}), tmp_path / "log", "s"), SECONDS, 100
    )
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "log")))
    trials = {
        s.study_name: len(storage.get_all_trials(s._study_id)) for s in storage.get_all_studies()
    }
    assert trials == {f"s/{method}": number for method, number in count(done).items()}


def test_replicates_stay_whole(tmp_path: Path) -> None:
    space = methods_space(budget={"trials": 14}, seeds=[0, 1])
    done = run(EqualBudgets(space, tmp_path / "log", "s"), SECONDS, 100)
    assert count(done) == {"linear": 4, "vpt": 4, "vpt+tcpa": 4}
    assert Counter(p.config.seed for p in done) == {0: 6, 1: 6}


def test_without_a_number_of_trials_seconds_are_equal(tmp_path: Path) -> None:
    space = methods_space(budget={"gpu_hours": 1.0})
    done = run(EqualBudgets(space, tmp_path / "log", "s"), SECONDS, 90)
    seconds = {name: n * SECONDS[name] for name, n in count(done).items()}
    assert max(seconds.values()) - min(seconds.values()) <= max(SECONDS.values())
    assert count(done)["linear"] > 5 * count(done)["vpt+tcpa"]


def test_an_exhausted_method_does_not_hold_up_the_others(tmp_path: Path) -> None:
    axes = {
        "methods": AXES["methods"],
        "vpt.num_prompts": {"choice": [5, 10]},
        "optim.weight_decay": {"choice": [0.0, 0.1]},
    }
    grid = {"name": "grid", "per": "methods"}
    space = methods_space(axes=axes, sampler=grid, budget={"trials": 30})
    done = run(EqualBudgets(space, tmp_path / "log", "s"), SECONDS, 100)
    assert count(done) == {"linear": 2, "vpt": 4, "vpt+tcpa": 4}


def test_a_resumed_comparison_counts_what_was_run(tmp_path: Path) -> None:
    space = methods_space(budget={"trials": 12})
    first = run(EqualBudgets(space, tmp_path / "log", "s"), SECONDS, 5)
    source = EqualBudgets(space, tmp_path / "log2", "s")
    outcome = {"status": "completed", "val_accuracy": 0.5, "duration_s": 1.0}
    source.replay([(planned, outcome) for planned in first])
    rest = run(source, SECONDS, 100)
    assert count(first) + count(rest) == {"linear": 4, "vpt": 4, "vpt+tcpa": 4}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"axes": {"optim.lr": {"float": [0.1, 1.0]}}},
            r"sampler.per 'methods' .* no axis of them",
        ),
        ({"scheduler": {"name": "asha"}}, r"needs scheduler.name none, got 'asha'"),
        ({"budget": {"trials": 2}}, r"budget.trials must be at least 3 \(methods x seeds\), got 2"),
        ({"axes": {"methods": AXES["methods"]}}, r"a search needs axes"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        methods_space(**changes)


def test_a_record_gives_the_same_comparison() -> None:
    space = methods_space()
    assert space_of(space.as_dict(), source=space.source) == space


@pytest.mark.integration
def test_a_comparison_over_workers(local_ray: None, make_study: MakeStudy) -> None:
    study = make_study(methods_space(budget={"trials": 9}))
    assert run_stubs(study.space(), study).finished
    events = recorded(study)
    planned = ["+".join(e["params"]["methods"]) for e in events if e["kind"] == "planned"]
    assert Counter(planned) == {"linear": 3, "vpt": 3, "vpt+tcpa": 3}
    study.extend(3)
    assert run_stubs(study.space(), study).finished
    planned = ["+".join(e["params"]["methods"]) for e in recorded(study) if e["kind"] == "planned"]
    assert Counter(planned) == {"linear": 4, "vpt": 4, "vpt+tcpa": 4}
