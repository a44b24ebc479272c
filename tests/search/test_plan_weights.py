"""What a plan asks, states and records of backbones and of the images in front of them."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from reports.records.study import Study
from search.planning.plan import Plan, plan_space
from search.planning.plan_view import show_plan
from search.planning.requested_space import requested_space
from search.tracking.run_values import tags_of
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.record.events import Started
from tcpa_core.training.commands import Submit
from tcpa_core.training.run_trial import run_trial
from tcpa_core.training.worker import Worker
from tests.tcpa_core.test_weights import state_of

SPACE = (
    "name: small\nbase: {methods: [linear], train.epochs: 1}\naxes: {AXES}\nbudget: {trials: 2}\n"
)
IMAGENET = [0.485, 0.456, 0.406]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))


def planned(tmp_path: Path, axes: str = "optim.lr: {choice: [0.1, 0.2]}", **settings: Any) -> Plan:
    source = tmp_path / "space.yaml"
    source.write_text(SPACE.replace("AXES", axes))
    changes = {path.replace("__", "."): value for path, value in settings.items()}
    space = requested_space(str(source), changes)
    return plan_space(space, "small", tmp_path / "studies")


def shown(plan: Plan) -> str:
    text = io.StringIO()
    show_plan(plan, Console(file=text, width=300))
    return text.getvalue()


def tiny_file(tmp_path: Path) -> str:
    torch.save(state_of("vit_tiny_patch16_224", 0), tmp_path / "own.pth")
    return str(tmp_path / "own.pth")


def test_a_file_of_which_nothing_is_known_is_asked_for(tmp_path: Path) -> None:
    settings = {
        "backbone__name": "vit_tiny_patch16_224",
        "backbone__weights": tiny_file(tmp_path),
        "backbone__img_size": 32,
    }
    with pytest.raises(ConfigError, match=r"Set backbone.norm_stats to imagenet, inception, clip"):
        planned(tmp_path, **settings)
    assert not (tmp_path / "studies").exists()
    plan = planned(tmp_path, **settings, backbone__norm_stats="clip")
    text = shown(plan)
    assert "mean (0.4815, 0.4578, 0.4082), std (0.2686, 0.2613, 0.2758)" in text
    assert "from backbone.norm_stats" in text
    assert "positions resampled from 14 x 14 to 2 x 2" in text
    other = planned(tmp_path, **settings, data__norm_stats="imagenet")
    assert "from data.norm_stats=imagenet" in shown(other), "no question is left"
    varied = "backbone.norm_stats: {choice: [imagenet, [[0, 0, 0], [1, 1, 1]]]}"
    both = planned(tmp_path, varied, **settings)
    assert [one.mean for _, one in both.preprocessing] == [tuple(IMAGENET), (0.0, 0.0, 0.0)]


@pytest.mark.parametrize("value", ["imagenett", [[0.5], [0.5]], 3])
def test_statistics_that_cannot_be_are_told_with_their_place(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"backbone.norm_stats must be imagenet, .* got .*--set"):
        planned(tmp_path, backbone__norm_stats=value)


def test_what_happens_to_images_is_recorded_in_the_study_and_its_report(tmp_path: Path) -> None:
    study = planned(tmp_path).create()
    (known,) = study.document()["preprocessing"]
    assert (known["backbone"], known["mean"], known["pool"]) == ("vit_nano", IMAGENET, "token")
    assert Study.read(study.path).preprocessing == [known]
    assert Study({"kind": "search"}).preprocessing == [], "older studies tell nothing"


def test_what_was_renamed_and_dropped_of_a_file_is_told_and_recorded(tmp_path: Path) -> None:
    state = {f"model.backbone.{k}": v for k, v in state_of("vit_tiny_patch16_224", 0).items()}
    torch.save({"state_dict": {**state, "model.neck.weight": torch.ones(3)}}, tmp_path / "own.ckpt")
    plan = planned(
        tmp_path,
        backbone__name="vit_tiny_patch16_224",
        backbone__weights=str(tmp_path / "own.ckpt"),
        backbone__img_size=32,
        backbone__norm_stats="imagenet",
    )
    told = "prefix 'model.backbone.' taken off; dropped neck"
    assert f"; file: {told}" in shown(plan)
    (known,) = plan.create().document()["preprocessing"]
    assert known["file"] == told


def test_a_worker_says_what_it_does_to_images(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    config = plan.space.config(next(iter(plan.space.corners())), 0)
    worker = Worker(tmp_path / "study", None, "cpu")
    worker.take(Submit(trial="00000", params=config.flat(), until_epoch=0))
    (started,) = worker.work()
    assert isinstance(started, Started) and started.preprocessing is not None
    assert started.preprocessing["mean"] == IMAGENET
    tags = tags_of([replace(started, t=1.0)])
    assert '"mean": [0.485, 0.456, 0.406]' in tags["tcpa.preprocessing"]


def test_a_trial_that_was_planned_before_the_question_goes_on_and_says_so(tmp_path: Path) -> None:
    """Older studies cannot answer any more; they took mean and std from the name."""
    config = TrialConfig.from_flat({
        "backbone.name": "vit_tiny_patch16_224",
        "backbone.weights": tiny_file(tmp_path),
        "backbone.img_size": 32,
    })  # fmt: skip
    worker = Worker(tmp_path / "study", None, "cpu")
    worker.take(Submit(trial="00000", params=config.flat(), until_epoch=0))
    (started,) = worker.work()
    assert isinstance(started, Started) and started.preprocessing is not None
    assert started.preprocessing["mean"] == [0.5] * 3
    with pytest.raises(ConfigError, match="Set backbone.norm_stats"):
        run_trial(config)


def test_sizes_between_the_ends_of_an_axis_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"img_size must be a multiple .* got 36; .* 32 and 40"):
        planned(tmp_path, "backbone.img_size: {int: [32, 48], step: 4}")
    assert planned(tmp_path, "backbone.img_size: {int: [32, 48], step: 8}")


@pytest.mark.parametrize("weights", [None, "file"])
def test_an_unknown_tag_is_refused_with_the_known_ones(weights: str | None, tmp_path: Path) -> None:
    if weights:
        weights = tiny_file(tmp_path)
    with pytest.raises(ConfigError, match=r"no weights 'mocov3' .* known tags: .*dino, mae"):
        planned(tmp_path, backbone__name="vit_base_patch16_224.mocov3", backbone__weights=weights)


@pytest.mark.parametrize("method", ["vp.output=label_map", "autovp.mapping=freq"])
def test_clips_projection_has_no_classes_to_map(method: str, tmp_path: Path) -> None:
    path, value = method.split("=")
    settings = {path.replace(".", "__"): value, "methods": [path.split(".")[0]]}
    name = "vit_xsmall_patch16_clip_224"
    with pytest.raises(ConfigError, match=rf"{method} needs .* classifier .* got 0 .*projection"):
        planned(tmp_path, backbone__name=name, backbone__img_size=32, **settings)
