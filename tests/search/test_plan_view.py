"""A plan as people read it, and as a document."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search import cli
from search.planning.plan import Plan, plan_space
from search.planning.plan_view import show_plan
from spaces.load import load_space
from tests.reports.studies import components, write


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    root = tmp_path_factory.mktemp("studies")
    return plan_space(load_space("quickstart"), "mine", root)


def shown(plan: Plan, width: int) -> list[str]:
    text = io.StringIO()
    show_plan(plan, Console(file=text, width=width, color_system=None), "starts on this machine")
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [50, 80, 120])
def test_lines_fit_and_break_between_words(plan: Plan, width: int) -> None:
    lines, whole = shown(plan, width), shown(plan, 1000)
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    # the folder of a test is longer than a line
    wanted = {word for line in whole for word in line.split() if len(word) < 30}
    if width >= 80:
        assert wanted <= words
    else:  # methods stand below each other
        assert {"linear", "vpt", "tcpa", "cvpt", "digits"} <= words


def test_what_a_user_asks_of_a_plan_is_there(plan: Plan) -> None:
    lines = [" ".join(line.split()) for line in shown(plan, 100)]
    for line in (
        "plan of mine",
        "kind search (tpe sampler, scheduler asha from epoch 2 on: one of 2 goes on)",
        "objective maximize val_accuracy",
        "methods linear, vpt, tcpa or cvpt",
        "optim.lr 0.003 to 0.1, log",
        "tcpa.num_cls_prompts 4 to 12",
        "epochs at most 5 a trial; asha is meant to train 3.25 of them on average",
        "vpt.prompt_dropout 0.0",
        "digits 1,078 train, 269 val, 450 test; 10 classes",
        "Ray starts on this machine",
    ):
        assert line in lines
    assert any(line.startswith("optimiser batch 64, AdamW, ") for line in lines)
    (linear,) = (line for line in lines if line.startswith("linear 1,290 "))
    assert linear.split()[2:4] == ["0.106", "%"] and "MB" in linear
    assert any("kept at 8 x 8 px" in line for line in lines)
    assert any("std (0.229, 0.224, 0.225) from the file" in line for line in lines)


def test_trained_parameters_are_those_of_the_smallest_and_largest_trial(plan: Plan) -> None:
    found = {one.methods: one for one in plan.methods}
    # 5 to 20 prompts of width 128 in each of 6 blocks, and a head of 10 classes
    head = 128 * 10 + 10
    assert found["linear",].trainable == (head, head)
    assert found["vpt",].trainable == (head + 5 * 768, head + 20 * 768)
    assert found["vpt",].percent == pytest.approx(
        100 * (head + 20 * 768) / found["vpt",].backbone_parameters
    )


KEYS = {
    "schema": int, "study": str, "folder": str, "storage": type(None), "tracking_uri": str,
    "kind": str, "trials": int, "points": type(None), "most_epochs": int, "seeds": list,
    "races_seeds": bool, "objective": list, "budget": dict, "sampler": dict, "scheduler": dict,
    "searched": list, "base": dict, "changed": dict, "data": list,
    "undecoded_images": int, "weights": str,
    "backbones": list, "preprocessing": list, "methods": list, "cost": dict, "reused": dict,
    "deviations": list,
    "warnings": list,
}  # fmt: skip


def test_a_plan_is_one_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "quickstart", "--json", "--root", str(tmp_path / "studies")]
    assert (cli.app(words, standalone_mode=False) or 0) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert {key: type(value) for key, value in found.items()} == KEYS
    first, second = found["searched"][:2]
    assert first["axis"] == {"choice": [["linear"], ["vpt"], ["tcpa"], ["cvpt"]]}
    assert second == {
        "path": "optim.lr", "text": "0.003 to 0.1, log", "when": None,
        "axis": {"float": [0.003, 0.1], "log": True},
    }  # fmt: skip
    (data,) = found["data"]
    assert data["images"] == {"train": 1078, "val": 269, "test": 450} and data["classes"] == 10
    method = found["methods"][0]
    assert method["methods"] == ["linear"] and method["trainable_low"] == 1290
    assert method["memory_bytes"]["fp32"] > 4 * method["backbone_parameters"]
    assert found["cost"]["device_s"] is None and "not known" in found["cost"]["text"]
    assert not (tmp_path / "studies").exists()
    text = (Path(cli.__file__).parents[1] / "docs" / "watching.md").read_text()
    nested = {key for part in (data, method, first, found["cost"]) for key in part}
    missing = [key for key in KEYS.keys() | nested if f"`{key}`" not in text]
    assert not missing, "each is documented"


def test_a_plan_says_what_it_will_see(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """From a study that lies below the same root, or from one that is named."""
    rows = {"VPT": {0: 0.7, 1: 0.72, 2: 0.69}, "+R": {0: 0.75, 1: 0.74, 2: 0.77}}
    events = [event | {"params": {**event["params"], "data.name": "digits"}}
              if event["kind"] == "planned" else event for event in components(rows)]  # fmt: skip
    write(tmp_path / "studies" / "pilot", events, "ablation")
    words = ["plan", "quickstart", "--root", str(tmp_path / "studies"), "--set", "seeds=[0,1,2]"]
    assert (cli.app([*words, "--power"], standalone_mode=False) or 0) == 0
    text = capfd.readouterr().out
    assert re.search(r"3 seeds see [0-9.]+ points, [0-9]+ would see [0-9.]+ points", text), text
    assert (cli.app([*words, "--pilot", "pilot", "--json"], standalone_mode=False) or 0) == 0
    found = json.loads(capfd.readouterr().out)["power"]
    assert found["sources"] == ["pilot"] and found["metric"] == "val_accuracy"
    nested = {
        key for part in (found, found["data"][0], found["data"][0]["seen"][0]) for key in part
    }
    text = (Path(cli.__file__).parents[1] / "docs" / "watching.md").read_text()
    assert not [key for key in ("power", *nested) if f"`{key}`" not in text]


def test_a_wrong_space_leaves_stdout_empty(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(lambda **_: cli.app(["plan", "nothing", "--json"], standalone_mode=False))
    said = capfd.readouterr()
    assert end.value.code == 2 and said.out == "" and said.err.startswith("error: ")
