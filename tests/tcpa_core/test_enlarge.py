"""Windows that are enlarged on a device equal parts of what Pillow makes, to the bit."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from tcpa_core.data._cache import ImageStore
from tcpa_core.data._decode import ResizeRule
from tcpa_core.training.enlarge import BITS, Enlarger, taps

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SIZES = [1, 2, 3, 5, 8, 13, 28, 31, 32, 33, 64, 96, 105, 200, 223, 224, 255, 256]
"""Sides of stored pictures."""


def store_of(pictures: list[np.ndarray], rule: ResizeRule) -> ImageStore:
    """A store of pictures [h, w, 3], in memory."""
    planes = [np.ascontiguousarray(picture.transpose(2, 0, 1)) for picture in pictures]
    sizes = np.array([picture.shape[:2] for picture in pictures], np.int64)
    lengths = [part.size for part in planes]
    return ImageStore(
        np.concatenate([part.ravel() for part in planes]),
        np.cumsum([0, *lengths[:-1]]),
        sizes[:, 0].copy(),
        sizes[:, 1].copy(),
        np.array([part.min() for part in planes], np.int64),
        np.array([part.max() for part in planes], np.int64),
        np.zeros(len(planes), bool),
        rule=rule,
    )


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Half of the values at the ends of the range, where the filter has to be cut off."""
    random = np.random.default_rng(seed)
    picture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    ends = random.integers(0, 2, picture.shape, dtype=np.uint8) * 255
    return np.where(random.random(picture.shape) < 0.5, ends, picture).astype(np.uint8)


def enlarger(store: ImageStore, side: int) -> Enlarger:
    assert store.rule is not None
    return Enlarger(
        torch.from_numpy(store.pixels),
        torch.from_numpy(store.offsets),
        (store.heights, store.widths),
        store.sizes(),
        side,
        store.rule.interpolation,
    )


@pytest.mark.parametrize("interpolation", FILTERS)
def test_pictures_of_many_sizes_are_enlarged_as_pillow_does(interpolation):
    shapes = list(itertools.product(SIZES[::3], SIZES)) + [(side, side) for side in SIZES]
    pictures = [noise(h, w, seed) for seed, (h, w) in enumerate(shapes)]
    store = store_of(pictures, ResizeRule("squash", 256, interpolation))
    found = enlarger(store, 256).cut(torch.arange(len(pictures)), None)
    for picture, made in zip(pictures, found, strict=True):
        expected = Image.fromarray(picture).resize((256, 256), FILTERS[interpolation])
        np.testing.assert_array_equal(made.permute(1, 2, 0).numpy(), np.asarray(expected))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("to", [2, 7, 8, 32, 224, 225, 384, 438, 512])
def test_every_side_is_enlarged_to_other_sides_as_pillow_does(interpolation, to):
    sides = [side for side in range(1, 257) if side <= to][:: 1 if to < 100 else 7]
    pictures = [noise(side, side, side) for side in sides]
    store = store_of(pictures, ResizeRule("squash", to, interpolation))
    cut = enlarger(store, to)
    for index, picture in enumerate(pictures):
        (made,) = cut.cut(torch.tensor([index]), None)
        expected = Image.fromarray(picture).resize((to, to), FILTERS[interpolation])
        np.testing.assert_array_equal(made.permute(1, 2, 0).numpy(), np.asarray(expected))


@pytest.mark.parametrize("interpolation", FILTERS)
def test_windows_of_strips_and_squares_are_parts_of_the_whole(interpolation):
    shapes = [(8, 8), (3, 11), (11, 3), (1, 4), (32, 40), (48, 48), (48, 90), (61, 48), (20, 70)]
    pictures = [noise(h, w, seed) for seed, (h, w) in enumerate(shapes)]
    rule = ResizeRule("short_side", 48, interpolation)
    store = store_of(pictures, rule)
    random = np.random.default_rng(1)
    images = torch.from_numpy(random.integers(0, len(shapes), 400))
    heights, widths = (torch.from_numpy(size)[images] for size in store.sizes())
    room = torch.stack([heights, widths]) - 40
    corner = (torch.from_numpy(random.random((2, 400))) * (room + 1)).long()
    corner[:, :9], corner[:, 9:18] = 0, room[:, 9:18]  # the ends as well
    found = enlarger(store, 40).cut(images, corner)
    for index, (top, left), made in zip(images.tolist(), corner.T.tolist(), found, strict=True):
        whole = rule.apply(Image.fromarray(pictures[index]), "")
        expected = whole[top : top + 40, left : left + 40]
        np.testing.assert_array_equal(made.permute(1, 2, 0).numpy(), expected)


def test_pictures_at_their_final_size_pass_unchanged():
    pictures = [noise(16, 16, 1), noise(16, 30, 2), noise(4, 5, 3)]
    store = store_of(pictures, ResizeRule("short_side", 16, "bicubic"))
    found = enlarger(store, 16).cut(torch.tensor([0, 1]), torch.tensor([[0, 0], [0, 14]]))
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).numpy(), pictures[0])
    np.testing.assert_array_equal(found[1].permute(1, 2, 0).numpy(), pictures[1][:, 14:])


@pytest.mark.parametrize("interpolation", FILTERS)
def test_no_sum_of_taps_leaves_32_bits(interpolation):
    """The brightest and the darkest picture that the signs of the weights allow."""
    for size in SIZES:
        _, weights = taps(size, 512, interpolation)
        assert (weights.clip(0) * 255.0).sum(1).max() + 2 ** (BITS - 1) < 2**31
        assert (weights.clip(None, 0) * 255.0).sum(1).min() >= -(2**31)
