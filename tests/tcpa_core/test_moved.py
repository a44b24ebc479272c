"""A trained trial finds the weights that it stands on, wherever the project lies now."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tcpa_core.config import TrialConfig
from tcpa_core.errors import WeightsError
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.single_model import build_model
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint
from tcpa_core.training.trained import load_trained
from tests.tcpa_core.test_backbone import nano_state


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with weights/own.safetensors and the checkpoint of a trial that stands on it."""
    root = tmp_path / "project"
    weights = root / "weights" / "own.safetensors"
    weights.parent.mkdir(parents=True)
    save_file(nano_state(), weights)
    config = TrialConfig.from_flat({"backbone.weights": str(weights)})
    backbone = load_backbone(config.backbone)
    model = build_model(config, num_classes=3, backbone=backbone)
    info: dict[str, Any] = {
        "config": config.flat(),
        "classes": ["a", "b", "c"],
        "weights": backbone.fingerprint,
        "norm_stats": backbone.norm_stats("checkpoint"),
    }
    save_checkpoint(checkpoint(root), model.pack.tensors.state(0), info)
    return root


def checkpoint(root: Path) -> Path:
    return root / "studies" / "s" / "checkpoints" / "00000" / "best.safetensors"


def rewrite(path: Path, **changes: Any) -> None:
    """Other values in what a checkpoint says; None: an older one, which did not say it."""
    state, info = load_checkpoint(path)
    changed = {**info, **changes}
    del changed["schema"]
    save_checkpoint(path, state, {k: v for k, v in changed.items() if v is not None})


def logits(path: Path, **options: Any) -> torch.Tensor:
    return load_trained(path, **options)(torch.ones(1, 3, 32, 32))


def test_weights_that_moved_with_the_project_are_found(project: Path, tmp_path: Path) -> None:
    before = logits(checkpoint(project))
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    project.rename(moved)
    assert torch.equal(logits(checkpoint(moved)), before)


@pytest.mark.parametrize("place", ["beside", "study", "current", "cache"])
def test_weights_are_found_by_their_name(
    place: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = logits(checkpoint(project))
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    folders = {
        "beside": checkpoint(project).parent,
        "study": project / "studies" / "s",
        "current": tmp_path / "current",
        "cache": tmp_path / "cache" / "weights",
    }
    folders[place].mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folders["current"] if place == "current" else tmp_path)
    (project / "weights" / "own.safetensors").rename(folders[place] / "own.safetensors")
    assert torch.equal(logits(checkpoint(project)), before)


def test_another_file_of_the_name_is_not_taken(project: Path) -> None:
    own = project / "weights" / "own.safetensors"
    own.rename(project / "kept.safetensors")
    save_file({k: v + 1 for k, v in nano_state().items()}, own)
    with pytest.raises(WeightsError, match=r"was trained with .*of its name there are .*weights="):
        load_trained(checkpoint(project))
    with pytest.raises(WeightsError, match=r"trained with the weights sha256:\w+, but .* are sha2"):
        load_trained(checkpoint(project), weights=own)
    assert load_trained(checkpoint(project), weights=project / "kept.safetensors")
    shutil.rmtree(project / "weights")
    with pytest.raises(WeightsError, match=r"neither there nor below"):
        load_trained(checkpoint(project))
    with pytest.raises(WeightsError, match=r"backbone.weights: no file"):
        load_trained(checkpoint(project), weights=own)


def test_an_older_checkpoint_guesses_nothing(project: Path) -> None:
    rewrite(checkpoint(project), weights=None, norm_stats=None)
    before = logits(checkpoint(project))
    moved = project / "own.safetensors"
    (project / "weights" / "own.safetensors").rename(moved)
    with pytest.raises(WeightsError, match=r"older versions did not record.*own\.safetensors"):
        load_trained(checkpoint(project))
    assert torch.equal(logits(checkpoint(project), weights=moved), before)


def test_mean_and_std_are_those_of_the_training(project: Path) -> None:
    rewrite(checkpoint(project), norm_stats=[[0.1] * 3, [0.2] * 3])
    backbone = load_trained(checkpoint(project)).pack.backbone
    assert backbone.norm_stats("checkpoint") == ((0.1,) * 3, (0.2,) * 3)


def test_shipped_weights_of_another_version_are_refused(project: Path) -> None:
    flat = {"backbone.weights": None}
    settings = TrialConfig.from_flat(flat).flat()
    rewrite(checkpoint(project), config=settings, weights="sha256:0123456789abcdef")
    with pytest.raises(WeightsError, match=r"vit_nano are sha256"):
        load_trained(checkpoint(project))
