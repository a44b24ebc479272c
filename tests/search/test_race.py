"""Races: who gets a further seed, who is out, and that a resumed race goes on as it began."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from search.proposals.race import Race
from search.proposals.source import LATER, Proposal
from search.study.folder import StudyDir
from spaces.space import Space
from spaces.verdict import FIRST_SEEDS
from tcpa_core.record.events import Planned
from tests.journals import planned as planned_trial
from tests.journals import recorded
from tests.search.conftest import make_space, run_stubs

MakeStudy = Callable[..., StudyDir]
ROWS = {"good": {"optim.lr": 1e-2}, "near": {"optim.lr": 1.1e-2}, "bad": {"optim.lr": 1e-4}}


def race_space(seeds: int = 6) -> Space:
    ablation = {
        "design": "components",
        "rows": ROWS,
        "seeds": seeds,
        "test": "winner",
        "race": True,
    }
    return make_space(axes=None, sampler=None, scheduler=None, budget=None, ablation=ablation)


def drive(race: Race, value: Callable[[str, int], float | None], limit: int = 100) -> list[Any]:
    """Run a race to its end, one trial at a time; the (row, seed) pairs it asked for."""
    asked = []
    while (proposal := race.propose(0)) is not None:
        assert isinstance(proposal, Proposal)
        row, seed = proposal.cells[0]["level"], proposal.config.seed
        asked.append((row, seed))
        found = value(row, seed)
        status = "failed" if found is None else "completed"
        race.tell(planned_of(proposal), {"status": status, "val_accuracy": found})
        assert len(asked) < limit
    return asked


def planned_of(proposal: Proposal) -> Planned:
    return planned_trial("00000", proposal.config, "design", "d", "p", proposal.cells)


def test_a_clear_loser_gets_no_further_seed() -> None:
    draw = random.Random(0)
    means = {"good": 0.9, "near": 0.9, "bad": 0.1}
    asked = drive(Race(race_space()), lambda row, seed: means[row] + draw.gauss(0, 0.01))
    count = {row: sum(1 for name, _ in asked if name == row) for row in ROWS}
    assert count == {"good": 6, "near": 6, "bad": FIRST_SEEDS}
    assert len(set(asked)) == len(asked)


def test_a_race_that_is_decided_ends() -> None:
    draw = random.Random(1)
    means = {"good": 0.9, "near": 0.5, "bad": 0.1}
    asked = drive(Race(race_space()), lambda row, seed: means[row] + draw.gauss(0, 0.01))
    assert len(asked) == 3 * FIRST_SEEDS


def test_a_row_with_a_failed_trial_is_out() -> None:
    asked = drive(
        Race(race_space()), lambda row, seed: None if row == "near" and seed == 1 else 0.5
    )
    assert max(seed for row, seed in asked if row == "near") == FIRST_SEEDS - 1
    assert max(seed for row, seed in asked if row == "bad") == 5


def test_a_further_seed_waits_for_the_seeds_before_it() -> None:
    race = Race(race_space())
    running = [race.propose(0) for _ in range(3 * FIRST_SEEDS)]
    assert race.propose(0) is LATER
    for proposal in running:
        assert race.propose(0) is LATER
        assert isinstance(proposal, Proposal)
        race.tell(planned_of(proposal), {"status": "completed", "val_accuracy": 0.5})
    assert isinstance(race.propose(0), Proposal)


def test_differences_that_are_all_equal_decide_nothing() -> None:
    """Three images of a hundred, with every seed: no spread to compare them with."""
    means = {"good": 0.93, "near": 0.93, "bad": 0.90}
    asked = drive(Race(race_space()), lambda row, seed: means[row] - 0.01 * (seed % 2))
    assert len(asked) == 6 * len(ROWS)


@pytest.mark.integration
def test_a_race_over_workers_and_its_resume(local_ray: None, make_study: MakeStudy) -> None:
    study = make_study(race_space(), noise=0.01)
    assert run_stubs(study.space(), study).finished
    events = recorded(study)
    planned = [(e["labels"]["cells"][0]["level"], e["seed"]) for e in events
               if e["kind"] == "planned"]  # fmt: skip
    asked = Counter(row for row, _ in planned)
    assert asked["bad"] == FIRST_SEEDS < asked["good"], asked
    lrs = {e["trial"]: e["params"]["optim.lr"] for e in events if e["kind"] == "planned"}
    tested = [lrs[e["trial"]] for e in events if e["kind"] == "tested"]
    assert len(set(tested)) == 1 and len(tested) == asked["good"]

    cut = make_study(race_space(), name="cut", noise=0.01)
    kept = next(i for i, e in enumerate(events) if e["kind"] == "completed" and i > 25)
    lines = study.journal_path.read_bytes().splitlines(keepends=True)
    cut.journal_path.write_bytes(b"".join(lines[: kept + 1]))
    assert run_stubs(cut.space(), cut).finished
    again = [(e["labels"]["cells"][0]["level"], e["seed"]) for e in recorded(cut)
             if e["kind"] == "planned"]  # fmt: skip
    assert sorted(again) == sorted(planned)
