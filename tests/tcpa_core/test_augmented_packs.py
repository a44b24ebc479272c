"""Trials whose images are cut, distorted, mixed and erased: alone, in packs, in parts, resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig
from tcpa_core.streams import Stream
from tcpa_core.training.batches import changes_images
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.saved_member import restore_member, save_member
from tcpa_core.training.trial_data import TrialData, load_trial_data
from tests.tcpa_core.tiny import trained

Settings = dict[str, Any]

DATA: dict[str, Settings] = {
    "mixed alone": {},
    "all of SSF": {
        "data.resized_crop": [0.08, 1.0], "data.train_interpolation": "random", "data.flip": True,
        "data.auto_augment": "rand-m9-mstd0.5-inc1", "data.erase_prob": 0.25,
        "data.erase_mode": "pixel",
    },
    "distorted crops": {
        "data.resize": "short_side", "data.random_crop": True, "data.color_jitter": 0.4,
        "data.erase_prob": 0.5,
    },
}  # fmt: skip
MEMBERS: list[Settings] = [
    {"seed": 0, "vpt.num_prompts": 2},
    {"seed": 1, "vpt.num_prompts": 3, "train.mixup_alpha": 0.8, "train.label_smoothing": 0.1},
    {"seed": 2, "train.cutmix_alpha": 1.0, "train.mixup_prob": 1.0},
    {"seed": 3, "train.mixup_alpha": 0.8, "train.cutmix_alpha": 1.0, "train.mixup_prob": 1.0},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes, larger and smaller than what the network sees."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 2), ("test", 2)):
        for label in range(3):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = random.integers(20, 60, 2)
                pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                pixels[..., label] |= 128
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(BackboneConfig(name="vit_nano", weights="random"))


def configs(root: Path, recipe: str) -> list[TrialConfig]:
    base = {
        "data.name": "folder", "data.root": str(root), "methods": ["vpt"], "train.epochs": 3,
        "train.batch_size": 8, "backbone.weights": "random", **DATA[recipe],
    }  # fmt: skip
    return [TrialConfig.from_flat({**base, **settings}) for settings in MEMBERS]


def loaded(config: TrialConfig, backbone: Backbone, root: Path) -> TrialData:
    return load_trial_data(config, backbone, cache_dir=root.parent / "cache")


def run(pack: Pack, members: list[Member], epochs: int) -> list[Member]:
    for _ in range(epochs):
        members = trained(pack.run_epoch(members))
    return members


@pytest.mark.parametrize("recipe", DATA)
def test_a_member_sees_the_same_batches_in_any_pack(
    recipe: str, root: Path, backbone: Backbone
) -> None:
    """To the bit: images and targets, whatever neighbours do with theirs."""
    members = configs(root, recipe)
    pack = Pack(backbone, loaded(members[0], backbone, root))

    def batch(chosen: list[TrialConfig], step: int) -> tuple[torch.Tensor, torch.Tensor]:
        model = pack._model_of([pack.new_member("x", config) for config in chosen])
        streams = [Stream(config.seed) for config in chosen]
        at = Step(
            training=True, epochs=[0] * len(chosen), steps=[step] * len(chosen), streams=streams
        )
        indices = torch.arange(8).expand(len(chosen), -1)
        found = pack.step.batch(model, indices, at)
        return found.inputs, found.targets

    for step in range(3):
        images, targets = batch(members, step)
        for m, config in enumerate(members):
            own_images, own_targets = batch([config], step)
            assert torch.equal(images[m], own_images[0]) and torch.equal(targets[m], own_targets[0])
        assert not torch.equal(images, batch(members, step + 1)[0]) or recipe == "mixed alone"


@pytest.mark.parametrize("recipe", DATA)
def test_members_equal_their_solo_runs(recipe: str, root: Path, backbone: Backbone) -> None:
    members = configs(root, recipe)
    data = loaded(members[0], backbone, root)
    pack = Pack(backbone, data)
    together = run(pack, [pack.new_member(str(c.seed), c) for c in members], 2)
    for config, member in zip(members, together, strict=True):
        alone = Pack(backbone, data)
        (solo,) = run(alone, [alone.new_member("x", config)], 2)
        for one, other in zip(solo.reports, member.reports, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5, abs=1e-6)
            assert one.val_loss == pytest.approx(other.val_loss, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("recipe", DATA)
def test_resume_is_bit_exact(recipe: str, root: Path, backbone: Backbone, tmp_path: Path) -> None:
    config = configs(root, recipe)[3]
    first, second = (Pack(backbone, loaded(config, backbone, root)) for _ in range(2))
    (halted,) = run(first, [first.new_member("t", config)], 1)
    save_member(halted, tmp_path, backbone, first.data)
    (member,) = run(first, [halted], 2)
    (resumed,) = run(second, [restore_member(tmp_path, "t", config)], 2)
    assert resumed.step == member.step
    assert all(torch.equal(tensor, resumed.state[key]) for key, tensor in member.state.items())


@pytest.mark.parametrize("recipe", DATA)
def test_a_batch_in_parts_is_the_same_batch(recipe: str, root: Path, backbone: Backbone) -> None:
    config = configs(root, recipe)[3]
    reports = []
    for parts in (1, 3):
        pack = Pack(backbone, loaded(config, backbone, root))
        pack.step.parts = parts
        (member,) = run(pack, [pack.new_member("t", config)], 1)
        reports.append(member.reports[0])
    assert reports[0].train_loss == pytest.approx(reports[1].train_loss, rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"data.resized_crop": [0.5, 1.0]}, {"data.auto_augment": "v0"}, {"data.color_jitter": 0.1},
        {"data.erase_prob": 0.1}, {"train.cutmix_alpha": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_features_of_changing_images_are_not_kept(change: Settings) -> None:
    plain = {"methods": ["linear"]}
    assert not changes_images([TrialConfig.from_flat(plain)])
    assert changes_images([TrialConfig.from_flat({**plain, **change})])
