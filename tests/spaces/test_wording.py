"""A space in the words of people."""

from typing import Any

import pytest

from spaces.load import load_space, space_of
from spaces.wording import (
    Searched,
    changed_settings,
    condition_text,
    range_text,
    searched,
    setting_text,
    training_text,
)
from tests.search.conftest import make_space

METHODS = {"choice": [["linear"], ["vpt", "adapter"]]}


@pytest.mark.parametrize(
    ("axis", "text"),
    [
        ({"float": [0.0001, 0.1], "log": True}, "0.0001 to 0.1, log"),
        ({"float": [1, 2.0], "step": 0.25}, "1 to 2, step 0.25"),
        ({"float": [0.1234567891, 1.0]}, "0.1234567891 to 1"),
    ],
)
def test_a_range_is_said_in_words(axis: dict[str, Any], text: str) -> None:
    assert range_text(make_space(axes={"optim.lr": axis}).axes["optim.lr"]) == text


@pytest.mark.parametrize(
    ("path", "axis", "text"),
    [
        ("vpt.num_prompts", {"int": [1, 50]}, "1 to 50"),
        ("vpt.num_prompts", {"int": [1, 64], "log": True}, "1 to 64, log"),
        ("vpt.num_prompts", {"int": [10, 50], "step": 20}, "10 to 50, step 20"),
        ("vpt.num_prompts", {"choice": [1, 5, 10]}, "1, 5 or 10"),
        ("vpt.num_prompts", {"choice": [5]}, "5"),
    ],
)
def test_numbers_and_choices(path: str, axis: dict[str, Any], text: str) -> None:
    space = make_space(base={"methods": ["vpt"], "train.epochs": 6}, axes={path: axis})
    assert range_text(space.axes[path]) == text


def test_chains_and_conditions() -> None:
    space = make_space(
        base={"train.epochs": 6},
        axes={
            "methods": METHODS,
            "vpt.num_prompts": {"int": [1, 50], "when": {"methods": ["vpt"]}},
        },
    )
    assert range_text(space.axes["methods"]) == "linear or vpt+adapter"
    assert condition_text(space.axes["methods"]) == ""
    assert condition_text(space.axes["vpt.num_prompts"]) == "methods: vpt"


def test_a_share_of_another_count() -> None:
    base = {"methods": ["tcpa"], "train.epochs": 6}
    axis = {"fraction_of": "tcpa.num_cls_prompts", "range": [0.1, 0.5]}
    space = make_space(base=base, axes={"tcpa.top_k_cls": axis})
    assert range_text(space.axes["tcpa.top_k_cls"]) == "0.1 to 0.5 of tcpa.num_cls_prompts"


def test_what_a_search_varies() -> None:
    axes = {"methods": METHODS, "optim.lr": {"float": [5e-4, 2e-2], "log": True}}
    space = make_space(base={"train.epochs": 6}, axes=axes)
    assert searched(space) == [
        Searched("methods", "linear or vpt+adapter"),
        Searched("optim.lr", "0.0005 to 0.02, log"),
    ]


def test_what_an_ablation_varies() -> None:
    rows = searched(load_space("tcpa_components"))
    assert rows[0] == Searched("VPT", "tcpa.split_roles false, tcpa.match_tokens false")
    factors = {"optim.lr": [0.001, 0.01], "vpt.deep": [True, False]}
    ablation = {"design": "full_factorial", "factors": factors, "seeds": [0, 1]}
    base = {"methods": ["vpt"], "train.epochs": 2}
    space = space_of({"name": "x", "base": base, "ablation": ablation})
    assert searched(space) == [
        Searched("optim.lr", "0.001 or 0.01 (baseline 0.001)"),
        Searched("vpt.deep", "true or false (baseline true)"),
    ]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"methods": ["vpt"], "optim.lr": 0.01234567}, "vpt, lr 0.0123"),
        ({"optim.lr": 1e-05, "methods": ["vp", "tcpa"]}, "lr 1e-05, vp + tcpa"),
        ({"vpt.num_prompts": 10, "tcpa.gate": None}, "10 prompts"),
        # both ends are the same
        (
            {"vpt.deep": True, "e2vpt.deep": False},
            "vpt.deep true, e2vpt.deep false",
        ),
        ({"data.name": "digits", "backbone.name": "vit_nano"}, "data digits, backbone vit_nano"),
        ({}, ""),
    ],
)
def test_settings_of_a_trial_are_short(params: dict[str, Any], text: str) -> None:
    assert setting_text(params) == text


def test_how_a_trial_is_trained() -> None:
    params = make_space(base={"train.epochs": 1, "train.precision": "fp32"}).trials[0].flat()
    assert training_text(params, ["optim.lr"]) == (
        "1 epoch, batch 64, AdamW, weight decay 0, cosine, fp32"
    )
    assert "AdamW, lr 0.0" in training_text(params)


def test_settings_of_a_base_that_are_no_defaults() -> None:
    base = {
        "data.name": "digits", "train.epochs": 3, "train.patience": 2, "data.flip": False,
        "vpt.deep": False, "vpt.num_prompts": 10,
    }  # fmt: skip
    assert changed_settings(base) == {"train.patience": 2, "vpt.deep": False}
