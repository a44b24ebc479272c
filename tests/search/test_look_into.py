"""Looking into trials of a study: which checkpoint, which label, and what happens without one."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search.study.folder import StudyDir
from search.study.journal import Journal
from search.verbs.inspect import labels, look_into, row_of, train_again
from spaces.load import load_space
from tcpa_core.config import TrialConfig
from tcpa_core.errors import StudyError
from tcpa_core.training.checkpoint import load_checkpoint
from tcpa_core.training.run_trial import run_trial
from tests.journals import write

LINEAR = {"methods": ["linear"], "data.name": "digits", "backbone.name": "vit_nano", "seed": 0,
          "train.epochs": 3, "train.batch_size": 256}  # fmt: skip


def test_labels_say_what_tells_trials_apart() -> None:
    vpt = {"methods": ["vpt"], "optim.lr": 0.1, "vpt.num_prompts": 10, "seed": 0}
    many = {**vpt, "vpt.num_prompts": 200}
    both = {"methods": ["vfpt", "tcpa"], "optim.lr": 0.0123456, "seed": 0}
    assert labels({"a": vpt, "b": both}, {}) == {"a": "vpt", "b": "vfpt + tcpa"}
    assert labels({"a": vpt, "b": both, "c": many}, {}) == {
        "a": "vpt, num_prompts=10", "b": "vfpt + tcpa", "c": "vpt, num_prompts=200"}  # fmt: skip
    others = {**many, "optim.lr": 0.2, "seed": 1}
    assert labels({"a": vpt, "b": others}, {}) == {"a": "vpt, trial a", "b": "vpt, trial b"}
    assert labels({"a": vpt, "b": vpt}, {})["a"] == "vpt, trial a", "nothing tells them apart"
    assert labels({"a": vpt, "b": {**vpt, "seed": 1}}, {"a": "VPT", "b": "VPT"}) == {
        "a": "VPT, seed=0", "b": "VPT, seed=1"}  # fmt: skip


def planned(number: int, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The "planned" event of a trial."""
    return {"kind": "planned", "trial": f"{number:05d}", "params": LINEAR, "digest": "d",
            "point": "p", "seed": 0, "labels": {"cells": cells}, "origin": "design",
            "draw": {}}  # fmt: skip


def make(root: Path, *cells: str) -> StudyDir:
    """A study with one trial a cell, one epoch each."""
    study = StudyDir.create(root, "s", load_space("quickstart"), {}, "")
    journal = Journal(study.journal_path)
    for n, factor in enumerate(cells):
        cell = {"factor": factor, "level": f"row {n}", "order": n, "baseline": not n}
        write(journal, planned(n, [cell] if factor else []),
                       {"kind": "epoch", "trial": f"{n:05d}", "epoch": 1})  # fmt: skip
    write(journal, planned(9, []))
    journal.close()
    return study


def test_rows_of_an_ablation_name_its_trials(tmp_path: Path) -> None:
    study = make(tmp_path / "a", "components", "vpt.num_prompts", "")
    assert [row_of(one.planned) for one in study.state().trials.values()][:3] == ["row 0", "", ""]


def test_trials_of_another_study_stand_beside(tmp_path: Path) -> None:
    study = make(tmp_path, "components")
    with pytest.raises(StudyError, match="no study 'other' in .*Studies there: s"):
        look_into(study, ["00000", "other/00000"], Console(file=StringIO()), images=8)
    with pytest.raises(StudyError, match="s has no trial '00007'"):
        look_into(study, ["s/00007"], Console(file=StringIO()), images=8)


def test_trials_that_never_trained_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="has no trial '00009' with a trained epoch"):
        look_into(make(tmp_path, "components"), ["00009"], Console(file=StringIO()), images=8)


@pytest.mark.integration
def test_a_trial_without_checkpoint_is_trained_again(tmp_path: Path) -> None:
    """One epoch was recorded, so one is trained, and the state is that of the first training."""
    study, text = make(tmp_path / "s", "components"), StringIO()
    found = look_into(study, ["00000"], Console(file=text, width=500), images=8)
    assert "trial 00000 is trained again:" in text.getvalue()
    assert list(found) == ["row 0"] and len(found["row 0"]["features"]) == 8
    assert list((study.path).glob("checkpoints/*")) == [], "nothing is left in the study"
    run_trial(TrialConfig.from_flat({**LINEAR, "train.epochs": 3}), folder=tmp_path / "first")
    again, info = load_checkpoint(train_again(study, "00000", tmp_path / "again"))
    assert info["epoch"] == 1
    assert info["config"] == load_checkpoint(tmp_path / "first" / "last.safetensors")[1]["config"]
    assert set(again) == {"head.weight", "head.bias"}
