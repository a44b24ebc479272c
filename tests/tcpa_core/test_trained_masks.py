"""A trained segmentation gives pictures the masks that its own test saw, here and exported."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tcpa_core import export_trial, load_trained
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.training.known_masks import FoundMasks, KnownMasks
from tcpa_core.training.member import Member, Selected
from tcpa_core.training.pack import Pack
from tcpa_core.training.saved_member import save_member
from tcpa_core.training.trained_masks import save_mask
from tcpa_core.training.trial_data import load_trial_data
from tests.tcpa_core.test_trained import shaken

CLASSES = ("road", "sky", "tree")
SIZES = [(40, 56), (33, 47), (64, 32), (36, 36)]
HEADS: Mapping[str, Mapping[str, Any]] = {
    "linear": {"methods": ["cvpt"], "segment.blocks": [1, 2]},
    "setr_pup": {"methods": ["vpt"], "segment.blocks": [2], "segment.auxiliary_blocks": [1]},
    "upernet": {"methods": ["lora"], "segment.blocks": [1, 2, 3, 4]},
    "whole": {"methods": ["ssf"], "segment.head": "linear", "segment.window": "whole"},
}
"""Of few blocks: none is computed, or stands in an exported graph, behind the last of them."""


def paint(root: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """CamVid's layout: noise over bands, one for each class; the mask's last rows have none."""
    random = np.random.default_rng(0)
    for split in splits:
        for folder in (root / split, root / f"{split}annot"):
            folder.mkdir(parents=True)
        for number, (height, width) in enumerate(SIZES):
            mask = np.sort(random.integers(0, 3, (height, width), dtype=np.uint8), axis=0)
            pixels = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
            pixels[np.arange(height)[:, None], np.arange(width), mask] += 150
            mask[-3:] = 255
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            Image.fromarray(mask).save(root / f"{split}annot" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("masks"))


@pytest.fixture(autouse=True)
def pixels(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def settings(root: Path, head: str, **more: Any) -> TrialConfig:
    flat = {"task.name": "segment", "segment.head": head, "data.name": "segfolder",
            "data.root": str(root), "data.resize": "short_side", "data.resize_to": 32,
            "data.random_crop": True, "train.epochs": 1, "segment.channels": 8,
            **HEADS[head], **more}  # fmt: skip
    return TrialConfig.from_flat(flat)


def left_behind(config: TrialConfig, folder: Path) -> tuple[float, np.ndarray[Any, Any]]:
    """Write a trial's checkpoint without training it; mIoU and confusion matrix of its test."""
    backbone = load_backbone(config.backbone)
    data = load_trial_data(config, backbone)
    pack = Pack(backbone, data)
    fresh = pack.new_member("00003", config)
    state = shaken(fresh.state)
    best = Selected(
        epoch=1, val_accuracy=0.5, val_loss=1.0, test_accuracy=None, state=state, val_miou=0.25
    )
    member: Member = replace(fresh, state=state, selected=best, epoch=1, reports=())
    save_member(member, folder, backbone, data)
    (scored,) = pack.test([member])
    assert scored.miou is not None and scored.counts is not None
    return scored.miou, scored.counts.confusion.numpy()


@dataclass(frozen=True)
class Left:
    """A trial that was left behind."""

    place: Path
    config: TrialConfig
    miou: float
    table: np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def left(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Left]:
    """The trial with a head, made once."""

    @cache
    def made(head: str) -> Left:
        config, place = settings(root, head), tmp_path_factory.mktemp(head) / "00003"
        return Left(place, config, *left_behind(config, place))

    return made


@pytest.mark.parametrize("head", HEADS)
def test_every_head_finds_what_its_test_found_here_and_exported(
    head: str, left: Callable[[str], Left], root: Path, tmp_path: Path
) -> None:
    trial = left(head)
    model = load_trained(trial.place)
    files = sorted((root / "test").iterdir())
    said = model.predict(files)
    assert [tuple(mask.shape) for mask in said.masks] == SIZES
    assert {mask.dtype for mask in said.masks} == {torch.uint8} and len(said) == len(files)
    found = FoundMasks(KnownMasks(trial.config.data, model.class_names), len(CLASSES))
    for path, mask in zip(files, said.masks, strict=True):
        found.add(path, mask)
    assert found.pictures == len(files)
    assert np.array_equal(found.table, trial.table) and found.scores.miou == trial.miou
    exported = export_trial(trial.place, tmp_path / "out")
    again = load_trained(tmp_path / "out")
    assert exported.difference == 0.0
    for mask, other in zip(said.masks, again.predict(files).masks, strict=True):
        assert torch.equal(mask, other)


@pytest.mark.parametrize("head", ["linear", "setr_pup", "upernet"])
def test_a_network_that_segments_runs_without_this_package(
    head: str, left: Callable[[str], Left], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    place = left(head).place
    model = load_trained(place)
    grid = model.logits(torch.zeros(1, 3, 32, 32)).shape
    assert grid[:2] == (1, len(CLASSES))
    for form in ("torch.export", "onnx"):
        out = export_trial(place, tmp_path / form, format=form)
        assert out.difference < 1e-4 and "windows" in out.notes[0]
        card = (tmp_path / form / "README.md").read_text()
        assert 'pipeline_tag: "image-segmentation"' in card and "slide over it" in card
    network = torch.export.load(tmp_path / "torch.export" / "model.pt2").module()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert network(images).shape == (2, *grid[1:])


@pytest.mark.parametrize("form", ["timm", "peft"])
def test_formats_of_classifiers_are_refused(
    form: str, left: Callable[[str], Left], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="segments.*possible: tcpa, onnx, torch.export"):
        export_trial(left("upernet").place, tmp_path / "out", format=form)


def test_the_card_says_what_was_measured(left: Callable[[str], Left], tmp_path: Path) -> None:
    export_trial(left("linear").place, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "val mIoU 0.2500" in card and "found.masks[0]" in card
    assert "its short side of 32 px, in windows of 32 px" in card
    about = json.loads((tmp_path / "out" / "config.json").read_text())["tcpa"]
    assert about["config"]["task.name"] == "segment" and about["classes"] == list(CLASSES)


def test_what_a_model_says_of_areas(
    left: Callable[[str], Left], root: Path, tmp_path: Path
) -> None:
    model = load_trained(left("linear").place)
    said = model.predict(root / "test" / "0.png", top=2)
    mask = said.masks[0]
    shares = [float((mask == label).double().mean()) for label in range(3)]
    assert said.probabilities[0].tolist() == pytest.approx(shares)
    assert said.names == [CLASSES[int(np.argmax(shares))]] and len(said.top[0]) == 2
    assert model.largest(mask)[0] == (said.names[0], pytest.approx(max(shares)))
    assert len(model.predict([]).masks) == 0
    save_mask(mask, tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P" and np.array_equal(np.asarray(image), mask.numpy())
    with pytest.raises(DataError, match="cannot be read"):
        model.predict(["absent.png"])


def test_masks_beside_pictures_are_found_or_it_is_said_why_not(root: Path, tmp_path: Path) -> None:
    data = settings(root, "linear").data
    known = KnownMasks(data, CLASSES)
    mask = known.of(root / "val" / "1.png")
    assert mask is not None and tuple(mask.shape) == SIZES[1] and int(mask[-1, 0]) == 255
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "1.png"
    alone.write_bytes((root / "val" / "1.png").read_bytes())
    assert known.of(alone) is None and known.notes == ()
    other = KnownMasks(data, ("road", "sky", "sea"))
    assert other.of(root / "val" / "1.png") is None
    assert "not used: they have 3 classes" in other.notes[0]
    wide = paint(tmp_path / "wide")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(wide / "testannot" / "0.png")
    found = FoundMasks(known, len(CLASSES))
    with pytest.raises(DataError, match="has 9 x 9 pixels, the picture 56 x 40"):
        found.add(wide / "test" / "0.png", torch.zeros(40, 56, dtype=torch.uint8))
