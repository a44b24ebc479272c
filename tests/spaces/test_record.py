"""A study's record is a space again: its study.yaml, and the space file beside its report."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.planning.requested_space import requested_space
from search.study.description import new_description, write_description
from spaces.load import load_space, stored_space
from spaces.record import can_be_a_file, space_text
from spaces.shipped import PRESETS
from spaces.space import Space
from tcpa_core.errors import ConfigError

OLD = Path(__file__).parents[1] / "old_studies"


def again(space: Space, folder: Path) -> tuple[Space, Space]:
    """A space by the way of its study.yaml, and by the way of the file that a report writes."""
    (folder / "report").mkdir()
    write_description(folder, new_description("s", space, {}))
    recorded = yaml.safe_load((folder / "study.yaml").read_text())["space"]
    (folder / "report" / "space.yaml").write_text(space_text(recorded, "of a study\nmade today"))
    return (
        load_space(str(folder / "study.yaml")),
        load_space(str(folder / "report" / "space.yaml")),
    )


def trials(space: Space) -> list[dict[str, Any]]:
    """Settings of the trials that show all that a space varies."""
    return [config.flat() for config in space.trials]


@pytest.mark.parametrize("preset", PRESETS.names())
def test_a_preset_comes_back_from_both_files(preset: str, tmp_path: Path) -> None:
    space = load_space(preset)
    for found in again(space, tmp_path):
        assert found.as_dict() == space.as_dict()
        assert trials(found) == trials(space)


def test_texts_that_look_like_numbers_and_paths_stay_what_they_are(tmp_path: Path) -> None:
    """YAML's writer takes 1e5 and 08 for text, a space file for numbers."""
    (tmp_path / "images" / "08").mkdir(parents=True)
    (tmp_path / "own").mkdir()
    document = {
        "name": "s",
        "base": {"data.name": "folder", "data.root": "../images/08", "data.group": "1e5"},
        "axes": {"optim.lr": {"float": [1e-5, 0.1], "log": True}},
        "budget": {"trials": 2},
    }
    (tmp_path / "own" / "mine.yaml").write_text(json.dumps(document))
    space = load_space(str(tmp_path / "own" / "mine.yaml"))
    for found in again(space, tmp_path):
        assert found.base == space.base and found.base["data.group"] == "1e5"
        assert found.base["data.root"] == str(tmp_path / "images" / "08"), "from any folder"


@pytest.mark.parametrize("name", ["old_search", "old_ablation"])
def test_a_study_of_an_older_version(name: str, tmp_path: Path) -> None:
    recorded = yaml.safe_load((OLD / name / "study.yaml").read_text())["space"]
    expected = trials(stored_space(recorded, "x"))
    assert trials(load_space(str(OLD / name / "study.yaml"))) == expected
    if can_be_a_file(recorded):
        (tmp_path / "space.yaml").write_text(space_text(recorded, ""))
        assert trials(load_space(str(tmp_path / "space.yaml"))) == expected


@pytest.mark.parametrize(
    "data",
    [
        {"ablation": {"design": "fractional_factorial"}},
        {"objective": {"metric": "val_loss"}, "base": {}},
    ],
)
def test_what_only_the_record_can_say(data: dict[str, Any]) -> None:
    assert not can_be_a_file(data)
    assert can_be_a_file({"objective": [{"metric": "val_accuracy"}]})


def test_overrides_and_kinds_apply_to_a_record(tmp_path: Path) -> None:
    write_description(tmp_path, new_description("s", load_space("quickstart"), {}))
    path = str(tmp_path / "study.yaml")
    assert requested_space(path, {"optim.weight_decay": 0.5}).base["optim.weight_decay"] == 0.5
    with pytest.raises(ConfigError, match="is a search; run it with 'tcpa search"):
        requested_space(path, kind="ablation")


def test_a_description_that_is_damaged_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("schema: 1\nkind: search\nspace:\n  - [\n")
    with pytest.raises(ConfigError, match=r"study\.yaml is not a valid study description"):
        load_space(str(tmp_path / "study.yaml"))
