"""Changes of training images picture by picture: timm's and torchvision's, drawn from the trial."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment, create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision import transforms

from tcpa_core.config import TrialConfig
from tcpa_core.data.base import load_dataset
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import DataConfig
from tcpa_core.training.augment import Distortions, jittered
from tcpa_core.training.distorted_source import DistortedSource
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.timm_draws import timm_module
from tcpa_core.training.trial_data import load_trial_data
from tests.tcpa_core.data_layouts import make

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NOISE = np.random.default_rng(0).integers(0, 256, (3, 40, 56), dtype=np.uint8)
SMOOTH = np.asarray(
    Image.fromarray(NOISE[:, :8, :8].transpose(1, 2, 0)).resize((56, 40), Image.Resampling.BICUBIC)
).transpose(2, 0, 1)


def picture(planes: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))


POLICIES = (
    *("rand-m9-mstd0.5-inc1", "rand-m5-n3", "rand-m9-mstd101-p1-inc1", "rand-m15-mmax20-n4-p1"),
    *("rand-mstd1-tweights", "rand-m9-t3a-p1", "rand-m9-t3aw", "original", "originalr-mstd0.5"),
    *("v0", "v0r", "3a"),
)


def posterized(image: Image.Image, bits: int) -> Image.Image:
    """As Pillow up to version 12: no bits are black."""
    return image.point([i & ~(2 ** (8 - bits) - 1) for i in range(256)] * 3)


@pytest.mark.parametrize("bits", range(-4, 9))
def test_what_a_policy_posterizes_is_what_it_was(bits: int) -> None:
    ours = timm_module("timm.data.auto_augment").ImageOps.posterize(picture(SMOOTH), bits)
    np.testing.assert_array_equal(ours, posterized(picture(SMOOTH), bits))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize("policy", POLICIES)
def test_distortions_are_timms(
    policy: str, interpolation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its transform of that name for the same draws, to the bit."""
    monkeypatch.setattr("PIL.ImageOps.posterize", posterized)
    cfg = DataConfig(auto_augment=policy, train_interpolation=interpolation)
    ours = Distortions(cfg, 40, MEAN)
    theirs = create_transform(
        40,
        is_training=True,
        auto_augment=policy,
        color_jitter=None,
        interpolation=interpolation,
        mean=MEAN,
        std=STD,
    ).transforms[2]  # behind crop and mirroring
    assert isinstance(theirs, auto_augment.RandAugment | auto_augment.AutoAugment)
    planes, changed = SMOOTH[:, :, :40], 0
    for seed in range(25):
        found = ours(planes, seed=seed, mirrored=False)
        random.seed(seed)
        if isinstance(theirs, auto_augment.RandAugment):  # which asks numpy first
            np.random.seed(random.getrandbits(32))
        wanted = theirs(picture(planes))
        np.testing.assert_array_equal(found, np.asarray(wanted).transpose(2, 0, 1))
        changed += not np.array_equal(found, planes)
    assert changed > 8


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize(
    ("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (2.0, 3.0))]
)
def test_parts_are_timms(scale: Any, ratio: Any, interpolation: Any) -> None:
    cfg = DataConfig(resized_crop=scale, crop_ratio=ratio, train_interpolation=interpolation)
    ours = Distortions(cfg, 24, MEAN)
    theirs = RandomResizedCropAndInterpolation(24, scale, ratio, interpolation)
    for planes in (NOISE, NOISE[:, :, :17], NOISE[:, :3]):
        for seed in range(15):
            random.seed(seed)
            wanted = np.asarray(theirs(picture(planes))).transpose(2, 0, 1)
            np.testing.assert_array_equal(ours(planes, seed=seed, mirrored=False), wanted)
            mirrored = ours(planes, seed=seed, mirrored=True)
            np.testing.assert_array_equal(mirrored, wanted[:, :, ::-1])


def test_parts_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the places that timm draws; how these are drawn is the same formula."""
    ours = Distortions(DataConfig(resized_crop=(0.08, 1.0)), 24, MEAN)
    theirs = transforms.RandomResizedCrop(24, interpolation=transforms.InterpolationMode.BICUBIC)
    for seed in range(10):
        random.seed(seed)
        place = RandomResizedCropAndInterpolation.get_params(
            picture(NOISE), (0.08, 1.0), (3 / 4, 4 / 3)
        )
        monkeypatch.setattr(theirs, "get_params", lambda *_, place=place: place)
        wanted = np.asarray(theirs(picture(NOISE))).transpose(2, 0, 1)
        np.testing.assert_array_equal(ours(NOISE, seed=seed, mirrored=False), wanted)


@pytest.mark.parametrize("strengths", [(0.4, 0.4, 0.4, 0.0), (0.0, 0.8, 0.0, 0.5), (2.0, 0, 0, 0)])
def test_jitter_is_torchvisions(strengths: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For factors and an order that are ours, drawn from the same ranges."""
    theirs = transforms.ColorJitter(*strengths)
    names = ("brightness", "contrast", "saturation", "hue")
    seen: dict[str, list[float]] = {name: [] for name in names}
    orders = set()
    for seed in range(60):
        calls: list[tuple[str, float]] = []
        with monkeypatch.context() as patched:
            for name in names:
                change = getattr(transforms.functional, f"adjust_{name}")

                def noted(
                    image: Any,
                    factor: float,
                    *,
                    calls: Any = calls,
                    name: str = name,
                    change: Any = change,
                ) -> Any:
                    calls.append((name, factor))
                    return change(image, factor)

                patched.setattr(f"tcpa_core.training.augment.F.adjust_{name}", noted)
            found = jittered(picture(SMOOTH), strengths, random.Random(seed))
        for name, factor in calls:
            seen[name].append(factor)
        drawn = dict(calls)
        order = [names.index(name) for name, _ in calls]
        orders.add(tuple(order))
        rest = [i for i in range(4) if i not in order]
        given = torch.tensor(order + rest), *(drawn.get(name) for name in names)
        monkeypatch.setattr(theirs, "get_params", lambda *_, given=given: given)
        np.testing.assert_array_equal(found, theirs(picture(SMOOTH)))
    for name, strength in zip(names, strengths, strict=True):
        middle = 0.0 if name == "hue" else 1.0
        low = middle - strength if name == "hue" else max(0.0, 1 - strength)
        assert bool(seen[name]) == bool(strength)
        assert all(low <= factor <= middle + strength for factor in seen[name])
    assert len(orders) == math.factorial(sum(map(bool, strengths)))


def test_colours_change_behind_the_policy() -> None:
    both = DataConfig(auto_augment="rand-m9-mstd0.5-inc1", color_jitter=(0.4, 0.4, 0.4, 0.0))
    policy = Distortions(both.model_copy(update={"color_jitter": None}), 40, MEAN)
    ours = Distortions(both, 40, MEAN)
    planes = SMOOTH[:, :, :40]
    for seed in range(8):
        first = policy(planes, seed=seed, mirrored=False)
        found = ours(planes, seed=seed, mirrored=False)
        assert found.shape == first.shape and not np.array_equal(found, first)


class TestSettings:
    @pytest.mark.parametrize("policy", [p for p in POLICIES])
    def test_policies_that_timm_knows(self, policy: str) -> None:
        assert DataConfig(auto_augment=policy).auto_augment == policy

    @pytest.mark.parametrize(
        "policy",
        ["rand-m9-w0", "rand-9", "augmix-m3", "v1", "", "rand-m", "original-m9", "rand-n0"],
    )
    def test_others_are_refused_with_an_example(self, policy: str) -> None:
        with pytest.raises(ValueError, match=r"policy of timm.*'rand-m9-mstd0\.5-inc1'"):
            DataConfig(auto_augment=policy)

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"resized_crop": [0.0, 1.0]}, r"resized_crop must be \[smallest, largest\]"),
            ({"resized_crop": [0.5, 0.2]}, r"resized_crop must be"),
            ({"resized_crop": [0.5, 1.2]}, r"up to 1, got \[0\.5, 1\.2\]"),
            ({"crop_ratio": [1.5, 0.5]}, r"crop_ratio must be"),
            ({"color_jitter": 0.0}, r"color_jitter must be"),
            ({"color_jitter": [0.4, 0.4, 0.4, 0.6]}, r"hue up to 0\.5"),
            ({"color_jitter": [0.4, 0.4]}, r"color_jitter"),
            (
                {"resize": "short_side", "random_crop": True, "resized_crop": [0.08, 1.0]},
                r"two ways",
            ),
        ],
    )
    def test_ranges_are_checked(self, settings: dict[str, Any], match: str) -> None:
        with pytest.raises(ValueError, match=match):
            DataConfig(**settings)

    def test_one_number_jitters_as_in_timm(self) -> None:
        assert DataConfig(color_jitter=0.4).color_jitter == (0.4, 0.4, 0.4, 0.0)  # type: ignore[arg-type]
        flat = TrialConfig.from_flat({"data.color_jitter": 0.4}).flat()
        assert TrialConfig.from_flat(flat).data.color_jitter == (0.4, 0.4, 0.4, 0.0)

    def test_what_changes_nothing_makes_no_other_trial(self) -> None:
        plain = TrialConfig.from_flat({}).digest("d", "w")
        for idle in (
            {"data.crop_ratio": [0.5, 2.0]},
            {"data.erase_mode": "pixel"},
            {"data.train_interpolation": "bicubic"},
            {"data.train_interpolation": "random"},
            {"train.mixup_switch_prob": 0.3},
            {"train.mixup_prob": 0.0, "train.cutmix_alpha": 1.0},
        ):
            assert TrialConfig.from_flat(idle).digest("d", "w") == plain, idle
        for used in (
            {"data.train_interpolation": "bilinear"},
            {"data.resized_crop": [0.08, 1.0]},
            {"data.color_jitter": 0.4},
            {"data.erase_prob": 0.2},
            {"train.cutmix_alpha": 1.0},
        ):
            assert TrialConfig.from_flat(used).digest("d", "w") != plain, used


RECIPES: dict[str, dict[str, Any]] = {
    "distorted": {"auto_augment": "rand-m9-mstd0.5-inc1", "flip": True},
    "distorted crops": {
        "auto_augment": "rand-m9-mstd0.5-inc1", "flip": True, "resize": "short_side",
        "random_crop": True,
    },
    "jittered": {"color_jitter": (0.4, 0.4, 0.4, 0.1)},
    "parts": {"resized_crop": (0.08, 1.0), "train_interpolation": "random", "flip": True},
    "parts, short side": {
        "resized_crop": (0.3, 1.0), "resize": "short_side", "auto_augment": "v0",
    },
}  # fmt: skip


def source(root: Path, settings: dict[str, Any], side: int = 8, kind: Any = DistortedSource) -> Any:
    cfg = make("folder", root).model_copy(update=settings)
    data = load_dataset(cfg, side, cache_dir=root.parent / "cache")
    return kind(data.splits["train"], cfg, side, MEAN, STD, "cpu")


class TestSource:
    @pytest.mark.parametrize("recipe", RECIPES)
    def test_an_image_follows_from_its_own_draws(self, recipe: str, tmp_path: Path) -> None:
        data = source(tmp_path / "set", RECIPES[recipe])
        draws = torch.rand(6, data.num_draws, generator=torch.Generator().manual_seed(0))
        draws = (draws * 2**24).floor() / 2**24
        indices = torch.tensor([0, 1, 2, 3, 4, 5])
        together = data.batch(indices, draws)
        assert together.shape == (6, 3, 8, 8)
        order = torch.tensor([4, 1, 5, 0, 3, 2])
        assert torch.equal(data.batch(indices[order], draws[order]), together[order])
        for i in range(6):
            assert torch.equal(data.batch(indices[i : i + 1], draws[i : i + 1])[0], together[i])
        other = data.batch(indices, (draws + 0.37) % 1)
        assert not torch.equal(other, together)

    @pytest.mark.parametrize("recipe", RECIPES)
    def test_without_draws_images_are_those_of_a_plain_split(
        self, recipe: str, tmp_path: Path
    ) -> None:
        """Also where the split holds whole pictures: they are resized as the others are."""
        settings = RECIPES[recipe]
        plain = {k: v for k, v in settings.items() if k == "resize"}
        ours = source(tmp_path / "set", settings)
        theirs = source(tmp_path / "set", plain, kind=ImageSource)
        assert torch.equal(ours.batch(slice(0, 6)), theirs.batch(slice(0, 6)))

    def test_parts_come_from_the_whole_pictures(self, tmp_path: Path) -> None:
        data = source(tmp_path / "set", {"resized_crop": (0.2, 0.6)})
        draws = torch.rand(6, data.num_draws, generator=torch.Generator().manual_seed(0))
        draws = (draws * 2**24).floor() / 2**24
        found = data.batch(slice(0, 6), draws)
        theirs = RandomResizedCropAndInterpolation(8, (0.2, 0.6), interpolation="bicubic")
        paths = sorted((tmp_path / "set" / "train").rglob("*.PNG"))
        for image, path, row in zip(found, paths, draws.tolist(), strict=True):
            random.seed(int(row[3] * 2**24) << 24 | int(row[4] * 2**24))
            with Image.open(path) as original:
                part = np.asarray(theirs(original)).astype(np.float64) / 255
            wanted = (part - MEAN) / STD
            np.testing.assert_allclose(image.numpy().transpose(1, 2, 0), wanted, atol=1e-5)

    def test_val_and_test_are_left_alone(self, tmp_path: Path) -> None:
        settings = {"data.name": "folder", "data.root": str(tmp_path), "data.flip": True}
        make("folder", tmp_path)
        changed = {**settings, "data.resized_crop": [0.08, 1.0], "data.auto_augment": "v0"}
        config = TrialConfig.from_flat(changed)
        backbone = load_backbone(config.backbone)
        plain = load_trial_data(TrialConfig.from_flat(settings), backbone)
        data = load_trial_data(config, backbone)
        for name in ("val", "test"):
            ours, theirs = (d.split(name).batch(slice(0, 3)) for d in (data, plain))  # type: ignore[arg-type]
            assert torch.equal(ours, theirs)
        assert isinstance(data.train, DistortedSource) and type(plain.train) is ImageSource

    def test_training_images_may_have_a_filter_of_their_own(self, tmp_path: Path) -> None:
        """V-PETL resizes those that it distorts by another filter than val and test."""
        cfg = make("folder", tmp_path / "set")
        both = cfg.model_copy(
            update={"train_interpolation": "bilinear", "train_on": "train_and_val"}
        )
        for first, second in ((cfg, cfg.model_copy(update={"interpolation": "bilinear"})),):
            bicubic, bilinear = (
                load_dataset(c, 8, cache_dir=tmp_path / "c") for c in (first, second)
            )
            mixed = load_dataset(both, 8, cache_dir=tmp_path / "c")
            for split, wanted in (("val", bicubic), ("test", bicubic)):
                for i in range(3):
                    np.testing.assert_array_equal(
                        mixed.splits[split].images.image(i), wanted.splits[split].images.image(i)
                    )
            for i in range(6):
                np.testing.assert_array_equal(
                    mixed.splits["train"].images.image(i), bilinear.splits["train"].images.image(i)
                )
            np.testing.assert_array_equal(
                mixed.splits["train"].images.image(6), bilinear.splits["val"].images.image(0)
            )
