"""What a plan says of protocols, and what it refuses of output mappings."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from search.planning.plan import Plan, plan_space
from search.planning.plan_view import show_plan
from search.planning.requested_space import requested_space
from search.proposals.planner import Planner
from search.proposals.source import Proposal
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.record.events import Planned, event_of

SPACE = """
name: claims
base:
  protocol: vpt-vtab
  data: {name: digits, train_on: train}
  train: {selection: best_val, epochs: 100}
axes:
  methods: {choice: [[vpt], [lion]]}
  train.batch_size: {choice: [64, 32]}
budget: {trials: 4}
"""
MAPPED = """
name: mapped
base: {data.name: digits, train.epochs: 1}
axes: {optim.lr: {choice: [0.1, 0.2]}}
budget: {trials: 2}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))


def plan_of(text: str, tmp_path: Path, **settings: Any) -> Plan:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    return plan_space(requested_space(str(path), changes), "mapped", tmp_path / "studies")


def test_deviations_are_told_before_anything_runs(tmp_path: Path) -> None:
    plan = plan_of(SPACE, tmp_path)
    assert plan.deviations[:2] == (
        "data.train_on=train (vpt-vtab: train_and_val)",
        "train.selection=best_val (vpt-vtab: last_epoch)",
    )
    assert "train.batch_size=32 (vpt-vtab: 64 or 128), in some trials" in plan.deviations
    assert any("re-implemented" in one and "in some trials" in one for one in plan.deviations)
    assert any("the rate changes with every step" in one for one in plan.deviations)
    stream = io.StringIO()
    show_plan(plan, Console(file=stream, width=200))
    assert "deviation: train.selection=best_val (vpt-vtab: last_epoch)" in stream.getvalue()


def test_the_journal_keeps_the_deviation_of_each_trial() -> None:
    config = TrialConfig.from_flat({"protocol": "ssf", "methods": ["ssf"], "train.epochs": 7})
    source: Any = SimpleNamespace(
        propose=lambda attempt: Proposal(config, "sampler", [], {}), take=lambda *_: None
    )
    planned = Planner(source, {"data": "d", "weights": "w"}, None).new()
    assert isinstance(planned, Planned)
    event = planned.as_dict()
    assert event["deviation"] == ["train.epochs=7 (ssf: 100)"]
    again = event_of(event)
    assert isinstance(again, Planned) and again.config == config


def test_a_map_needs_the_hubs_classifier(tmp_path: Path) -> None:
    """Weights of the hub are not fetched by a plan; their classes are known all the same."""
    hub = {"backbone__name": "vit_tiny_patch16_224", "backbone__img_size": 32}
    fits = plan_of(MAPPED, tmp_path, methods=["vp"], vp__output="label_map", **hub)
    assert fits.num_trials == 2
    for method, setting in {"vp": "output=label_map", "autovp": "mapping=fc"}.items():
        name, _, value = setting.partition("=")
        chosen: dict[str, Any] = {"methods": [method], f"{method}__{name}": value}
        with pytest.raises(ConfigError, match=r"classifier of at least .* got 0 .*trained head"):
            plan_of(MAPPED, tmp_path, backbone__weights="random", **chosen)


def test_a_semantic_map_is_refused_for_other_names(tmp_path: Path) -> None:
    names = [str(n) for n in range(10)]
    for file, classes in (("good", names), ("bad", [*names[:9], "ten"])):
        tensors = {"source": torch.ones(180, 2), "target": torch.ones(10, 2)}
        save_file(tensors, tmp_path / file, {"classes": json.dumps(classes)})
    chosen = {"methods": ["autovp"], "autovp__mapping": "semantic"}
    assert plan_of(MAPPED, tmp_path, **chosen, autovp__text_features=str(tmp_path / "good"))
    with pytest.raises(
        ConfigError, match=r"must hold the data set's 10 class names .*differs in: 9"
    ):
        plan_of(MAPPED, tmp_path, **chosen, autovp__text_features=str(tmp_path / "bad"))
    with pytest.raises(ConfigError, match="this package cannot make"):
        plan_of(MAPPED, tmp_path, **chosen)
