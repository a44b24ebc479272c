"""optuna-dashboard over the journals of a folder: names, curves, objectives, notes, ablations."""

import json
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any
from wsgiref.simple_server import make_server

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from search.proposals.equal_budgets import EqualBudgets
from search.proposals.optuna_study import OptunaStudy
from search.proposals.planner import Planner
from search.study.folder import StudyDir
from search.verbs.optuna_pages import OptunaPages, _Quiet, _Server, check_dashboard
from search.verbs.verdict import verdict_text
from tcpa_core.errors import StudyError
from tcpa_core.record.events import Planned
from tests.search.conftest import make_space
from tests.search.test_sampler import Driver
from tests.search.test_tracking import epoch, final, record

CUT = dict.fromkeys(("axes", "objective", "sampler", "scheduler", "budget"))
ABLATION = {
    "design": "one_factor",
    "factors": {"optim.lr": [0.01, 0.1], "methods": [["vpt"], ["tcpa"]]},
    "baseline": {"optim.lr": 0.01, "methods": ["vpt"]},
    "seeds": [0, 1],
}


def new_study(root: Path, name: str = "small", **changes: Any) -> tuple[StudyDir, list[Any]]:
    """A study and what its source proposes."""
    space = make_space(**changes)
    study = StudyDir.create(root, name, space, {"data": "d", "weights": "w"}, "")
    driver = Driver(space, root)
    driver.run()
    return study, driver.planned


def log(study: StudyDir, planned: list[Any]) -> list[dict[str, Any]]:
    """One trial in each state that a trial can have."""
    lines: list[dict[str, Any]] = [{"kind": "study", "name": study.name}]
    lines += [one.as_dict() for one in planned[:5]]
    for trial in ("00000", "00001", "00002", "00003"):
        lines += [{"kind": "started", "trial": trial, "device": "cpu", "epoch": 0}]
        lines += [epoch(trial, 1), epoch(trial, 2)]
    lines += [final("00000", "completed", val_accuracy=0.4), final("00001", "pruned")]
    return [*lines, final("00002", "failed", val_accuracy=None, reason="train_loss is nan")]


def trials_of(study: StudyDir) -> list[optuna.trial.FrozenTrial]:
    copy = OptunaStudy(InMemoryStorage(), study)
    assert copy.update() and not copy.update(), "a second look finds nothing new"
    return copy.study.trials


def test_every_trial_has_its_name_setting_and_curve_whatever_became_of_it(tmp_path: Path) -> None:
    study, planned = new_study(tmp_path)
    record(study.path, log(study, planned))
    found = trials_of(study)
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING,
              TrialState.WAITING]  # fmt: skip
    assert [trial.state for trial in found] == states
    for number, (trial, one) in enumerate(zip(found, planned, strict=False)):
        assert trial.number == number and trial.user_attrs["trial"] == f"{number:05d}"
        assert trial.params == one.draw and trial.user_attrs["seed"] == one.seed
    assert [trial.intermediate_values for trial in found] == 4 * [{1: 0.1, 2: 0.2}] + [{}]
    assert found[0].value == 0.4 and found[2].user_attrs["reason"] == "train_loss is nan"
    kind = found[0].distributions["optim.lr"]
    assert isinstance(kind, optuna.distributions.FloatDistribution) and kind.log


def test_a_study_that_runs_is_followed(tmp_path: Path) -> None:
    study, planned = new_study(tmp_path)
    lines = log(study, planned)
    storage = InMemoryStorage()
    copy = OptunaStudy(storage, study)
    for cut in (range(0, 3), range(3, 8), range(8, 12), range(12, len(lines))):
        record(study.path, [lines[i] for i in cut])
        with study.journal_path.open("ab") as file:
            file.write(b'{"n": 99, "to')  # a line that is being written
        copy.update()
        whole = study.journal_path.read_bytes()
        study.journal_path.write_bytes(whole[: whole.rindex(b"\n") + 1])
    at_once = trials_of(study)
    for followed, once in zip(copy.study.trials, at_once, strict=True):
        for name in ("state", "values", "params", "intermediate_values", "user_attrs"):
            assert getattr(followed, name) == getattr(once, name), name
    record(study.path, [{"kind": "started", "trial": "00000", "device": "cpu", "epoch": 2}])
    copy.update()
    assert copy.study.trials[0].state is TrialState.COMPLETE, "Optuna does not reopen trials"


def test_an_ablation_is_a_study_of_its_levels(tmp_path: Path) -> None:
    study, planned = new_study(tmp_path, "ab", **CUT, ablation=ABLATION)
    lines = [one.as_dict() for one in planned]
    record(study.path, [*lines, final("00000", "completed", val_accuracy=0.4)])
    found = trials_of(study)
    assert [(trial.params["optim.lr"], trial.params["methods"]) for trial in found[:3]] == [
        ("0.01", "vpt"), ("0.1", "vpt"), ("0.01", "tcpa")]  # fmt: skip
    levels = found[0].distributions["optim.lr"]
    assert isinstance(levels, optuna.distributions.CategoricalDistribution)
    assert levels.choices == ("0.01", "0.1")
    assert [trial.user_attrs["seed"] for trial in found] == [0, 0, 0, 1, 1, 1]


def test_methods_with_a_sampler_each_are_one_study(tmp_path: Path) -> None:
    axes = {"methods": {"choice": [["vpt"], ["linear"]]}, "optim.lr": {"float": [0.01, 0.1]}}
    sampler = {"name": "random", "per": "methods"}
    whole = make_space()
    base = {path: value for path, value in whole.base.items() if path != "methods"}
    space = make_space(base=base, axes=axes, sampler=sampler, budget={"trials": 4})
    study = StudyDir.create(tmp_path, "equal", space, {"data": "d", "weights": "w"}, "")
    source = EqualBudgets(space, tmp_path / "optuna.log", "equal")
    planner = Planner(source, {"data": "d", "weights": "w"}, 4)
    planned = [one for _ in range(4) if isinstance(one := planner.new(), Planned)]
    planner.close()
    record(study.path, [one.as_dict() for one in planned])
    found = trials_of(study)
    assert [trial.user_attrs["methods"] for trial in found].count("vpt") == 2
    assert [trial.params["optim.lr"] for trial in found] == [
        one.params["optim.lr"] for one in planned
    ]


@pytest.mark.integration
def test_the_pages_show_names_objectives_and_the_verdict(tmp_path: Path) -> None:
    study, planned = new_study(tmp_path)
    record(study.path, [*log(study, planned), {"kind": "finished"}])
    broken, _ = new_study(tmp_path, "broken")
    broken.journal_path.write_bytes(b"not a line\n")
    said: list[str] = []
    pages = OptunaPages(tmp_path, said.append)
    assert len(said) == 1 and said[0].startswith("broken is left out: journal.jsonl:1")
    assert [line.split("  ")[1] for line in pages.links("http://x/dashboard")] == ["small"]
    pages.note()
    with make_server("127.0.0.1", 0, pages.app(), _Server, _Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/api/studies"
        (one,) = json.load(urllib.request.urlopen(address))["study_summaries"]
        shown = json.load(urllib.request.urlopen(f"{address}/{one['study_id']}"))
        server.shutdown()
    assert shown["objective_names"] == ["val_accuracy"]
    assert len(shown["trials"]) == 5 and one["study_name"] == "small"
    assert shown["note"]["body"].split("\n\n") == verdict_text(study.path).split("\n")


def test_what_cannot_be_served_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("0.0.0.0", "node7.example"):
        with pytest.raises(StudyError, match=f"--host {host}: optuna-dashboard has no passwords"):
            check_dashboard(host)
    with pytest.raises(StudyError, match=f"no study below {tmp_path}"):
        OptunaPages(tmp_path, print)
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(StudyError, match=r"pip install 'tcpa-search\[dashboard\]'"):
        check_dashboard("127.0.0.1")
