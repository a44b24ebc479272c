"""A study of val_loss reads each trial's lowest one, and not that of its most accurate epoch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.study.folder import StudyDir
from spaces.load import load_space, space_of, stored_space
from spaces.space import Space
from tcpa_core.errors import ConfigError

SPACE: dict[str, Any] = {
    "name": "s",
    "base": {"methods": ["linear"], "data.name": "digits", "backbone.name": "vit_nano"},
    "axes": {"optim.lr": {"float": [1e-4, 1e-1], "log": True}},
    "budget": {"trials": 4},
}
LOSS = {"metric": "val_loss"}


def space(tmp_path: Path, document: Mapping[str, Any], **overrides: Any) -> Space:
    """As a command reads it."""
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(dict(document)))
    return load_space(str(path), {key.replace("__", "."): v for key, v in overrides.items()})


def rule(found: Space) -> str:
    """The rule that trials of a space follow."""
    point = {"optim.lr": 0.01} if found.axes else found.design()[0].point
    return found.config(point, seed=0).train.selection


def test_the_objective_selects_the_epoch(tmp_path: Path) -> None:
    assert rule(space(tmp_path, SPACE)) == "best_val"
    assert rule(space(tmp_path, SPACE, objective__metric="val_loss")) == "best_val_loss"
    both = [LOSS, {"metric": "val_accuracy"}]
    assert rule(space(tmp_path, {**SPACE, "objective": both})) == "best_val_loss"
    assert rule(space(tmp_path, {**SPACE, "objective": both[::-1]})) == "best_val"
    last = {**SPACE["base"], "train.selection": "last_epoch"}
    assert rule(space(tmp_path, {**SPACE, "objective": LOSS, "base": last})) == "last_epoch"
    varied = {**SPACE["axes"], "train.selection": {"choice": ["best_val", "last_epoch"]}}
    assert "train.selection" not in space(
        tmp_path, {**SPACE, "objective": LOSS, "axes": varied}
    ).base  # fmt: skip


def test_an_ablation_of_val_loss_too(tmp_path: Path) -> None:
    design = {"design": "one_factor", "factors": {"optim.lr": [1e-3, 0.01]}}
    ablation = {"name": "a", "base": SPACE["base"], "objective": LOSS, "ablation": design}
    assert rule(space(tmp_path, ablation)) == "best_val_loss"
    design = {"design": "one_factor", "factors": {"train.selection": ["best_val", "last_epoch"]}}
    found = space(tmp_path, {**ablation, "ablation": design})
    assert rule(found) == "best_val"
    assert rule(stored_space(found.as_dict(), "s")) == "best_val"


def test_the_most_accurate_epoch_is_refused_for_the_loss(tmp_path: Path) -> None:
    by_accuracy = {**SPACE["base"], "train.selection": "best_val"}
    with pytest.raises(ConfigError, match=r"train.selection is 'best_val' .* 'best_val_loss'"):
        space(tmp_path, {**SPACE, "objective": LOSS, "base": by_accuracy})
    with pytest.raises(ConfigError, match="objective val_loss would be the loss of the epoch"):
        load_space("e2vpt_vtab", {"objective.metric": "val_loss", "data.root": "x"})


def test_a_study_of_an_older_version_goes_on_as_it_began(tmp_path: Path) -> None:
    new = StudyDir.create(tmp_path, "new", space_of({**SPACE, "objective": LOSS}), {}, "")
    assert rule(new.space()) == "best_val_loss"
    document = yaml.safe_load((new.path / "study.yaml").read_text())
    del document["space"]["base"]["train.selection"]
    (new.path / "study.yaml").write_text(yaml.safe_dump(document))
    assert rule(StudyDir.open(tmp_path, "new").space()) == "best_val"
