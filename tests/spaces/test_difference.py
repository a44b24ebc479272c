"""Two spaces are told apart by what they ask for, in the words of a space file."""

from copy import deepcopy
from typing import Any

import pytest
import yaml

from spaces.difference import differences
from spaces.load import load_space, space_of
from spaces.shipped import PRESETS
from tcpa_core.config import ADDED

SEARCH: dict[str, Any] = {
    "name": "s",
    "base": {"methods": ["vpt"], "train.epochs": 6, "data.crop_ratio": [0.75, 1.25]},
    "axes": {
        "optim.lr": {"float": [0.001, 0.1], "log": True},
        "vpt.num_prompts": {"int": [1, 8]},
        "optim.weight_decay": {"choice": [0.0, 0.1]},
    },
    "constraints": ["vpt.num_prompts <= 8"],
    "budget": {"trials": 12},
    "seeds": [0, 1],
}
ROWS = {"low": {"optim.lr": 0.01}, "high": {"optim.lr": 0.3}}
ABLATION: dict[str, Any] = {
    "name": "a",
    "base": {"methods": ["linear"]},
    "ablation": {"design": "components", "rows": ROWS, "seeds": [0, 1]},
}


def changed(space: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy with one entry set, or removed where the value is None."""
    out = deepcopy(space)
    at = out
    for key in path[:-1]:
        at = at.setdefault(key, {})
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return out


def told(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [str(one) for one in differences(space_of(before), space_of(now))]


SAME = {
    "its name": (("name",), "other"),
    "what it asks of a cluster": (("cluster",), {"workers": 8, "priority": 2.0}),
    "a default that is stated": (("base", "optim.momentum"), 0.9),
    "a default of the budget": (("scheduler",), {"name": "asha", "grace_epochs": 1}),
    "a list that JSON gave back": (("base", "data.crop_ratio"), (0.75, 1.25)),
    "a number that YAML wrote otherwise": (("axes", "optim.lr", "float"), [1.0e-3, 1e-1]),
    "spelling of a constraint": (("constraints",), ["vpt.num_prompts<=8"]),
    "order of the axes": (("axes",), dict(reversed(SEARCH["axes"].items()))),
}


@pytest.mark.parametrize("what", SAME)
def test_what_changes_no_trial_is_no_difference(what: str) -> None:
    other = changed(SEARCH, *SAME[what])
    assert told(SEARCH, other) == told(other, SEARCH) == []


OTHER = {
    "a setting": (("base", "train.epochs"), 7, "train.epochs: 6 -> 7"),
    "a setting that was a default": (
        ("base", "optim.momentum"),
        0.5,
        "optim.momentum: not given -> 0.5",
    ),
    "a range": (
        ("axes", "optim.lr", "float"),
        [0.01, 0.1],
        "optim.lr: {float: [0.001, 0.1], log: true} -> {float: [0.01, 0.1], log: true}",
    ),
    "an axis less": (
        ("axes", "optim.weight_decay"),
        None,
        "optim.weight_decay: {choice: [0.0, 0.1]} -> not given",
    ),
    "an axis more": (
        ("axes", "train.label_smoothing"),
        {"choice": [0.0, 0.1]},
        "train.label_smoothing: not given -> {choice: [0.0, 0.1]}",
    ),
    "a constraint": (
        ("constraints",),
        ["vpt.num_prompts <= 7"],
        "constraints: [vpt.num_prompts <= 8.0] -> [vpt.num_prompts <= 7.0]",
    ),
    "the budget": (("budget", "trials"), 20, "budget.trials: 12 -> 20"),
    "a budget more": (("budget", "hours"), 2.0, "budget.hours: not given -> 2.0"),
    "the sampler": (("sampler",), {"name": "random"}, "sampler.name: tpe -> random"),
    "the scheduler": (("scheduler",), {"name": "none"}, "scheduler.name: asha -> none"),
    "the seeds": (("seeds",), [0, 2], "seeds: [0, 1] -> [0, 2]"),
    "a first point": (
        ("first_points",),
        [{"vpt.num_prompts": 4, "optim.weight_decay": 0.1}],
        "first_points: [] -> [{vpt.num_prompts: 4, optim.weight_decay: 0.1}]",
    ),
}


@pytest.mark.parametrize("what", OTHER)
def test_every_difference_is_told_with_both_values(what: str) -> None:
    path, value, line = OTHER[what]
    other = changed(SEARCH, path, value)
    assert told(SEARCH, other) == [line]
    place, _, values = line.partition(": ")
    assert told(other, SEARCH) == [f"{place}: {' -> '.join(reversed(values.split(' -> ')))}"]


def test_a_setting_that_becomes_an_axis_is_one_difference() -> None:
    fixed = changed(
        changed(SEARCH, ("axes", "optim.weight_decay"), None),
        ("base", "optim.weight_decay"),
        0.1,
    )
    assert told(fixed, SEARCH) == ["optim.weight_decay: 0.1 -> {choice: [0.0, 0.1]}"]


def test_a_design_is_compared_row_by_row() -> None:
    other = changed(ABLATION, ("ablation", "rows", "high", "optim.lr"), 0.5)
    assert told(ABLATION, other) == ["ablation.rows.high.optim.lr: 0.3 -> 0.5"]
    longer = changed(ABLATION, ("ablation", "seeds"), [0, 1, 2])
    assert told(ABLATION, longer) == ["ablation.seeds: [0, 1] -> [0, 1, 2]"]
    # Rows of a confirmation are settings of trials: older records lack what came later.
    newer = deepcopy(ABLATION)
    for row in newer["ablation"]["rows"].values():
        row |= {"data.antialias": ADDED["data.antialias"], "train.drop_last": False}
    assert told(ABLATION, newer) == told(newer, ABLATION) == []
    newer["ablation"]["rows"]["high"]["train.drop_last"] = True
    assert told(ABLATION, newer) == ["ablation.rows.high.train.drop_last: not given -> true"]


@pytest.mark.parametrize("name", PRESETS.names())
def test_a_preset_is_the_same_after_it_was_stored(name: str) -> None:
    space = load_space(name)
    stored = yaml.safe_load(yaml.safe_dump(space.as_dict()))
    assert differences(space_of(stored), space) == []
