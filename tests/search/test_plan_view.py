"""What a user reads of a plan."""

from typing import Any

import pytest

from spaces.wording import condition_text, range_text
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
