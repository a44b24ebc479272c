"""The cost that a plan tells: from records, for designs and searches, and from a probe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.planning import cost
from search.study.folder import StudyDir
from search.study.journal import Journal
from spaces.space import Space
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.training.estimate import epoch_seconds
from tests.journals import write
from tests.search.conftest import make_space

MakeStudy = Callable[..., StudyDir]


def ended(trial: str, seconds: float, epochs: int, kind: str = "completed",
          device: str = "cpu", **settings: Any) -> list[dict[str, Any]]:  # fmt: skip
    """Journal lines of a trial."""
    params = TrialConfig.from_flat(settings).flat()
    end = {"duration_s": seconds, "num_epochs": epochs, "device": device, "status": kind}
    return [
        {"kind": "planned", "trial": trial, "params": params},
        {"kind": "epoch", "trial": trial, "epoch": 1},
        {"kind": kind, "trial": trial, **end},
    ]


def record(study: StudyDir, *trials: list[dict[str, Any]]) -> None:
    journal = Journal(study.journal_path)
    for trial in trials:
        for event in trial:
            write(journal, event)
    journal.close()


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def ablation(**changes: Any) -> Space:
    design = {"design": "components", "seeds": 2,
              "rows": {"a": {"methods": ["linear"]}, "b": {"methods": ["vpt"]}}}  # fmt: skip
    plain = {"axes": None, "sampler": None, "scheduler": None, "budget": None}
    return make_space(**{**plain, "base": {"train.epochs": 6}, "ablation": design, **changes})


def test_seconds_per_epoch_are_read_from_every_study(make_study: MakeStudy, tmp_path: Path) -> None:
    space = make_space()
    record(make_study(space, "one"), ended("0", 12.0, 6, methods=["linear"]))
    record(make_study(space, "two"), ended("0", 3.0, 1, "pruned", methods=["linear"]),
           ended("1", 0.0, 0, "failed", methods=["linear"]),
           ended("2", 30.0, 3, methods=["vpt"]))  # fmt: skip
    rates = cost.recorded(tmp_path)
    assert {kind[-1]: found for kind, found in rates.seconds.items()} == {
        "linear": [2.0, 3.0],
        "vpt": [10.0],
    }


def test_trials_of_another_device_are_left_out(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(make_space())
    record(study, ended("0", 60.0, 6, methods=["linear"]),
           ended("1", 6.0, 6, device="cuda:0", methods=["linear"]))  # fmt: skip
    rates = cost.recorded(tmp_path)
    assert list(rates.seconds.values()) == [[1.0]]
    text = cost.describe(make_space(base={"methods": ["linear"], "train.epochs": 6}), 12, rates)
    assert text == "about 72 s of one GPU, from one earlier trial"


def test_models_of_gpus_are_not_mixed(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(make_space())
    trials = []
    for trial, seconds, model in (("0", 60.0, "A100"), ("1", 12.0, "H200"), ("2", 6.0, "H200")):
        first, *rest = ended(trial, seconds, 6, device="cuda:0", methods=["linear"])
        hardware = {"host": "a", "id": "0", "name": model}
        start = {"kind": "started", "trial": trial, "device": "cuda:0", "hardware": hardware}
        trials.append([first, start, *rest])
    record(study, *trials, ended("3", 99.0, 1, "failed", methods=["linear"]))
    rates = cost.recorded(tmp_path)
    assert (rates.device, list(rates.seconds.values())) == ("H200", [[2.0, 1.0]])
    text = cost.describe(make_space(base={"methods": ["linear"], "train.epochs": 6}), 12, rates)
    assert text == "about 2 min (72 s to 2 min) of one H200, from 2 earlier trials"


def test_a_damaged_journal_does_not_keep_a_plan_back(make_study: MakeStudy, tmp_path: Path) -> None:
    make_study(make_space(), "torn").journal_path.write_bytes(b"no journal\nat all\n")
    record(make_study(make_space(), "whole"), ended("0", 12.0, 6, methods=["linear"]))
    assert list(cost.recorded(tmp_path).seconds.values()) == [[2.0]]


def test_a_design_is_counted_exactly(make_study: MakeStudy, tmp_path: Path) -> None:
    space = ablation()
    linear = [
        ended(name, seconds, 6, methods=["linear"]) for name, seconds in [("0", 12.0), ("1", 24.0)]
    ]
    record(make_study(space), *linear, ended("2", 60.0, 6, methods=["vpt"]))
    # 12 epochs of each row: linear 2 to 4 s, vpt 10 s
    assert cost.describe(space, 4, cost.recorded(tmp_path)) == (
        "about 78 s on 2 cores; 3 min (2 min to 3 min) of one core, from 3 earlier trials"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("asha", "3 min (2 min to 10 min)"), ("median", "10 min (2 min to 10 min)")],
)
def test_early_stopping_lowers_the_middle_where_it_is_known(
    make_study: MakeStudy, tmp_path: Path, name: str, expected: str
) -> None:
    """ASHA: (1 + 2/3 + 3/9) / 6 of 10 minutes."""
    record(make_study(make_space()), ended("0", 60.0, 6, methods=["linear"]))
    space = make_space(scheduler={"name": name, "grace_epochs": 1})
    assert f"{expected} of one core" in cost.describe(space, 10, cost.recorded(tmp_path))


def test_what_was_never_run_is_named(make_study: MakeStudy, tmp_path: Path) -> None:
    space = ablation()
    record(make_study(space), ended("0", 12.0, 6, methods=["linear"]))
    text = cost.describe(space, 4, cost.recorded(tmp_path))
    assert text.startswith("not known: no earlier trial of vpt with this backbone")
    other = ablation(base={"train.epochs": 6, "train.batch_size": 8})
    assert "no earlier trial of linear, vpt" in cost.describe(other, 4, cost.recorded(tmp_path))


def test_a_budget_of_hours_is_its_own_cost() -> None:
    assert cost.describe(make_space(), None, cost.Rates()).startswith(
        "until the time budget is used up"
    )


def test_a_probe_measures_one_trial_of_each_kind() -> None:
    asked: list[Any] = []

    def measure(params: Flat) -> tuple[float, str]:
        asked.append(params["methods"])
        return 5.0, "cpu"

    space = ablation()
    told: list[tuple[str, int, int]] = []
    rates = cost.probed(space, measure, lambda *what: told.append(what))
    assert asked == [["linear"], ["vpt"]]
    assert told == [("probe methods", 0, 2), ("probe methods", 1, 2)]
    assert cost.describe(space, 4, rates) == (
        "about 60 s on 2 cores; 2 min of one core, from a few steps of each method"
    )


@pytest.mark.slow
def test_an_epoch_is_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path))
    config = TrialConfig.from_flat({"methods": ["vpt"], "train.batch_size": 64})
    seconds, device = epoch_seconds(config)
    assert device in ("cpu", "cuda")
    assert seconds > 0
    assert not list(tmp_path.iterdir()), "a plan writes nothing"
