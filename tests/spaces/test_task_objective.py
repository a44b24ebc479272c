"""What a space optimises follows from the task of its trials."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.tune.early_stopping import EarlyStopping
from spaces.load import load_space, stored_space
from spaces.space import Space
from tcpa_core.errors import ConfigError
from tcpa_core.record.state import StudyState
from tests.journals import planned

BASE = {"methods": ["linear"], "backbone.name": "vit_nano", "train.epochs": 9}
SEGMENT = {**BASE, "task.name": "segment", "data.name": "segfolder", "data.root": "."}
AXES = {"optim.lr": {"float": [1e-4, 1e-1], "log": True}}
SPACE: dict[str, Any] = {"name": "s", "base": SEGMENT, "axes": AXES, "budget": {"trials": 4}}


def space(tmp_path: Path, document: Mapping[str, Any], **overrides: Any) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(document))))  # no aliases
    return load_space(str(path), {key.replace("__", "."): v for key, v in overrides.items()})


def metrics(found: Space) -> list[str]:
    assert all(goal.maximize == goal.metric.startswith("val_") for goal in found.objective)
    return [goal.metric for goal in found.objective]


def test_the_score_of_the_task_is_optimised_unless_a_space_says_otherwise(tmp_path: Path) -> None:
    assert metrics(space(tmp_path, SPACE)) == ["val_miou"]
    assert metrics(space(tmp_path, {**SPACE, "base": BASE})) == ["val_accuracy"]
    assert metrics(space(tmp_path, {**SPACE, "objective": {"goal": "maximize"}})) == ["val_miou"]
    pixels = space(tmp_path, {**SPACE, "objective": {"metric": "val_accuracy"}})
    assert metrics(pixels) == ["val_accuracy"]
    several = [{}, {"metric": "num_trainable"}]
    assert metrics(space(tmp_path, {**SPACE, "objective": several})) == [
        "val_miou",
        "num_trainable",
    ]
    assert metrics(stored_space(space(tmp_path, SPACE).as_dict(), "s")) == ["val_miou"]
    assert metrics(space(tmp_path, {**SPACE, "base": BASE}, task__name="segment")) == ["val_miou"]


def test_trials_are_stopped_early_by_their_miou(tmp_path: Path) -> None:
    found = space(tmp_path, SPACE)
    trial = planned("00000", found.config({"optim.lr": 0.01}, seed=0))
    assert EarlyStopping(found, StudyState("val_miou")).decisions(trial) == [1, 3, 9]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"base": BASE, "objective": {"metric": "val_miou"}}, "trials of this task do not have"),
        ({"objective": {"metric": "test_miou"}}, "read once.* Use val_miou or val_loss"),
        (
            {"base": BASE, "axes": {"task.name": {"choice": ["classify", "segment"]}}},
            "task.name cannot vary .*no common score",
        ),
        ({"base": {**SEGMENT, "task.name": "segmant"}}, "segmant"),
    ],
)
def test_what_no_trial_is_measured_by_is_refused(
    change: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=match):
        space(tmp_path, {**SPACE, **change})


def test_tasks_are_no_levels_of_an_ablation(tmp_path: Path) -> None:
    design = {"design": "one_factor", "factors": {"task.name": ["classify", "segment"]}}
    with pytest.raises(ConfigError, match="task.name cannot vary"):
        space(tmp_path, {"name": "a", "base": BASE, "ablation": design})


def test_rows_of_a_confirmation_say_what_it_is_judged_by(tmp_path: Path) -> None:
    rows = {name: {**SEGMENT, "optim.lr": lr} for name, lr in (("a", 0.01), ("b", 0.1))}
    design = {"design": "components", "rows": rows, "seeds": [1, 2]}
    found = space(tmp_path, {"name": "c", "ablation": design})
    assert metrics(found) == ["val_miou"]
    rows["b"] = {**BASE, "optim.lr": 0.1}
    with pytest.raises(ConfigError, match="task.name cannot vary"):
        space(tmp_path, {"name": "c", "ablation": design})
