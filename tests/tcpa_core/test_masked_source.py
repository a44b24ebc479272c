"""Masks beside pictures: cut, mirrored and scaled alike, and whole for scoring."""

# The class of a pixel can be told from its colour here, so that a batch shows whether its masks
# belong to it.

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tcpa_core.data.base import IGNORED, Dataset, ImageStore, load_dataset
from tcpa_core.settings import DataConfig
from tcpa_core.training.masked_source import MaskedSource
from tcpa_core.training.scaled import Places, Scaler

SIDE = 16
SIZES = ((24, 40), (40, 24), (31, 33), (18, 20))
"""Heights and widths: larger and smaller than what is asked for below."""
HALF = (0.5,) * 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose red values are the class times 60, in large areas."""
    root = tmp_path_factory.mktemp("masked")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        for i in range(count):
            height, width = SIZES[i % len(SIZES)]
            coarse = rng.integers(0, 4, (3, 3), dtype=np.uint8)
            rows, columns = np.arange(height) * 3 // height, np.arange(width) * 3 // width
            classes = coarse[rows[:, None], columns]
            for folder in (split, f"{split}annot"):
                (root / folder).mkdir(exist_ok=True)
            picture = np.stack([classes * 60, classes * 20, 255 - classes * 60], -1)
            Image.fromarray(picture).save(root / split / f"{i}.png")
            Image.fromarray(classes).save(root / f"{split}annot" / f"{i}.png")
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    return root


def loaded(root: Path, cache: Path, **settings: object) -> tuple[DataConfig, Dataset]:
    told = {"resize": "short_side", "resize_to": 20, "interpolation": "bilinear", **settings}
    cfg = DataConfig(name="segfolder", root=str(root), **told)
    return cfg, load_dataset(cfg, SIDE, cache_dir=cache)


def source(
    root: Path, cache: Path, split: str = "train", size: int = SIDE, **settings: object
) -> MaskedSource:
    cfg, data = loaded(root, cache, **settings)
    return MaskedSource(data.splits[split], cfg, size, HALF, HALF, "cpu")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def draws(count: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**24, (count, width), generator=generator) * 2.0**-24


def shown(images: Tensor) -> Tensor:
    """What class each pixel's red value is nearest to, and how far away it is."""
    red = (images[:, 0] + 1) * 127.5
    return torch.stack([(red / 60).round(), (red - (red / 60).round() * 60).abs()])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"flip": True},
        {"random_crop": True, "flip": True},
        {"scale_range": (0.5, 2.0), "flip": True},
        {"scale_range": (0.5, 2.0), "flip": True, "resize": "squash", "resize_to": None},
        {"scale_range": (1.5, 3.0), "antialias": False},
        {"scale_range": (0.5, 2.0), "max_class_share": 0.5, "flip": True},
        {"train_on": "train_and_val", "random_crop": True},
    ],
    ids=str,
)
def test_masks_belong_to_their_pictures(root: Path, cache: Path, settings: dict) -> None:
    found = source(root, cache, **settings)
    for seed in range(4):
        drawn = draws(len(found), found.num_draws, seed)
        numbers = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
        images, masks = found.batch(numbers, drawn), found.masks(numbers, drawn)
        assert masks.shape == (len(found), SIDE, SIDE) and masks.dtype == torch.uint8
        beyond = (images == 0).all(1)
        assert (masks[beyond] == IGNORED).all() and (masks[~beyond] != IGNORED).all()
        classes, away = shown(images)
        pure = ~beyond & (away < 2)  # not on an edge between areas, where colours are mixed
        assert pure.sum() > 0.5 * (~beyond).sum()
        assert (classes[pure] == masks[pure]).float().mean() > 0.97  # at an edge a mixture may be
        # the colour of a third class, as that of classes 0 and 2 is of class 1


def test_a_small_picture_lies_in_the_upper_left_corner(root: Path, cache: Path) -> None:
    found = source(root, cache, scale_range=(0.5, 0.5))
    drawn = draws(8, found.num_draws)
    masks = found.masks(slice(0, 8), drawn)
    inside = masks != IGNORED
    for index in range(8):
        height, width = SIZES[index % 4]
        short = 10
        wanted = (
            min(SIDE, round(int(20 * height / min(height, width)) / 2)),
            min(SIDE, round(int(20 * width / min(height, width)) / 2)),
        )
        assert min(wanted) == short
        rows, columns = inside[index].any(1).sum(), inside[index].any(0).sum()
        assert abs(rows - wanted[0]) <= 1 and abs(columns - wanted[1]) <= 1
        assert inside[index, :rows, :columns].all() and inside[index].sum() == rows * columns


@pytest.mark.parametrize("filter_", ["bilinear", "bicubic"])
def test_scaled_windows_are_what_pillow_makes(filter_: str) -> None:
    kind = Image.Resampling[filter_.upper()]
    # Without values that a filter could take beyond 0 or 255, where Pillow cuts them off.
    rng = np.random.default_rng(0)
    pictures = [rng.integers(80, 176, (3, *size), dtype=np.uint8) for size in SIZES]
    scaler = Scaler(stored(pictures), SIDE, torch.device("cpu"), filter_, antialias=True)
    numbers = torch.arange(4)
    for to in (17, 30, 51):
        seen = torch.full((2, 4), to)
        corner = torch.tensor([[0, 1, to - SIDE, 0], [0, to - SIDE, 1, 1]])
        places = Places(scaler.stored, seen, corner)
        got = scaler.cut_scaled(numbers, places).int()
        for n, picture in enumerate(pictures):
            whole = np.asarray(Image.fromarray(picture.transpose(1, 2, 0)).resize((to, to), kind))
            top, left = corner[:, n].tolist()
            wanted = torch.from_numpy(whole[top : top + SIDE, left : left + SIDE].copy())
            assert (got[n] - wanted.permute(2, 0, 1).int()).abs().max() <= 1


def stored(pictures: list[np.ndarray]) -> ImageStore:
    """Planes as the cache has them."""
    sizes = np.array([one.shape[1:] for one in pictures], np.int64)
    bounds = np.cumsum([0, *(one.size for one in pictures)])
    none = np.zeros(len(pictures), np.int64)
    return ImageStore(
        np.concatenate([one.ravel() for one in pictures]),
        bounds[:-1], sizes[:, 0], sizes[:, 1], none, none, none.astype(bool),
    )  # fmt: skip


def test_crops_of_one_class_are_drawn_anew(root: Path, cache: Path) -> None:
    """As a literal loop over the places that the draws give."""
    found = source(root, cache, random_crop=True, max_class_share=0.6, resize_to=40)
    plain = source(root, cache, random_crop=True, resize_to=40)
    assert (found.num_draws, plain.num_draws) == (24, 3)
    drawn = draws(8, found.num_draws)
    masks = found.masks(slice(0, 8), drawn)
    tries = []
    for index in range(8):
        one = slice(index, index + 1)
        for tried in range(11):
            at = [0, 1] if tried == 0 else [2 + 2 * tried, 3 + 2 * tried]
            mask = plain.masks(one, drawn[one][:, [*at, 2]])[0]
            counts = np.bincount(mask.flatten().numpy(), minlength=256)[:255]
            if counts.max() < 0.6 * counts.sum() and (counts > 0).sum() > 1:
                break
        tries.append(tried)
        assert torch.equal(masks[index], mask)
        assert torch.equal(found.batch(one, drawn[one]), plain.batch(one, drawn[one][:, [*at, 2]]))
    assert min(tries) == 0 and max(tries) > 1


def test_evaluation_shows_whole_pictures_and_masks_of_files(root: Path, cache: Path) -> None:
    found = source(root, cache, "val")
    for index, (height, width) in enumerate(SIZES):
        stored = np.asarray(Image.open(root / "valannot" / f"{index}.png"))
        assert (found.truth(index).numpy() == stored).all()
        picture = found.picture(index)
        scale = 20 / min(height, width)
        assert picture.shape == (3, int(height * scale), int(width * scale))
        assert picture.dtype == torch.float32 and -1 <= picture.min() < picture.max() <= 1


def test_whole_pictures_are_what_training_sees_unscaled(root: Path, cache: Path) -> None:
    found = source(root, cache, "val", size=16)
    batch = found.batch(slice(0, 4))
    for index in range(4):
        picture = found.picture(index)
        top, left = (round((size - 16) / 2) for size in picture.shape[1:])
        assert torch.equal(batch[index], picture[:, top : top + 16, left : left + 16])


def test_draws_alone_say_what_is_cut(root: Path, cache: Path) -> None:
    found = source(root, cache, scale_range=(0.5, 2.0), flip=True)
    drawn = draws(8, found.num_draws)
    numbers = torch.arange(8)
    together = found.batch(numbers, drawn), found.masks(numbers, drawn)
    for index in range(8):
        one = slice(index, index + 1)
        assert torch.equal(found.batch(numbers[one], drawn[one])[0], together[0][index])
        assert torch.equal(found.masks(numbers[one], drawn[one])[0], together[1][index])
    assert not torch.equal(found.masks(numbers, draws(8, 4, seed=1)), together[1])


def test_masks_of_small_pictures_are_enlarged_with_them(root: Path, cache: Path) -> None:
    cfg, data = loaded(root, cache, resize_to=60)
    found = MaskedSource(data.splits["train"], cfg, 60, HALF, HALF, "cpu")
    assert data.splits["train"].masks is not None
    assert data.splits["train"].masks.heights.tolist() == [SIZES[i % 4][0] for i in range(8)]
    images, masks = found.batch(slice(0, 8)), found.masks(slice(0, 8))
    classes, away = shown(images)
    assert (classes[away < 2] == masks[away < 2]).float().mean() > 0.97
