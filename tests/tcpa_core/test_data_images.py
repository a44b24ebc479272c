"""Batches equal torchvision's pipeline; what is random comes from the given draws alone."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tcpa_core.data.base import Split, load_dataset
from tcpa_core.errors import ShapeError
from tcpa_core.settings import DataConfig
from tcpa_core.streams import Draws, Stream, row_keys
from tcpa_core.training.image_source import DRAWS, ImageSource
from tests.tcpa_core.data_layouts import make

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(14, 23), (19, 11), (11, 11), (40, 13), (12, 12)]  # of the ragged images, height, width


def draw(count: int, seed: int) -> torch.Tensor:
    """What a training step of a trial with this seed draws for its images."""
    rows = row_keys(torch.arange(count)[None], count)
    return Draws([Stream(seed)], [0]).uniform("augment", rows, DRAWS)[0]


@pytest.fixture(scope="module")
def ragged(tmp_path_factory) -> tuple[DataConfig, Split, list[Image.Image]]:
    """Images of many shapes with short side 11 and 10 after the resize."""
    root = tmp_path_factory.mktemp("ragged")
    make("vtab1k", root)
    images = []
    for i, size in enumerate(SIZES):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        images.append(Image.fromarray(pixels))
        images[-1].save(root / f"images/train800/{i:06d}.png")
    cfg = DataConfig(name="vtab1k", root=str(root), resize="short_side", resize_to=11)
    return cfg, load_dataset(cfg, 8, cache_dir=root / "cache").splits["train"], images


def source(split: Split, cfg: DataConfig, img_size: int = 8) -> ImageSource:
    return ImageSource(split, cfg, img_size, MEAN, STD, "cpu")


def reference(*steps) -> v2.Compose:
    tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return v2.Compose([*steps, *tensor])


@pytest.mark.parametrize("img_size", [8, 9, 10, 11])
def test_centre_crop_equals_torchvision(ragged, img_size):
    cfg, split, images = ragged
    pipeline = reference(
        v2.Resize(11, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(img_size)
    )
    expected = torch.stack([pipeline(image) for image in images])
    result = source(split, cfg, img_size).batch(torch.arange(len(images)))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_squash_equals_torchvision(ragged, tmp_path, interpolation):
    cfg, _, images = ragged
    cfg = DataConfig(name="vtab1k", root=cfg.root, interpolation=interpolation)
    split = load_dataset(cfg, 8, cache_dir=tmp_path).splits["train"]
    mode = v2.InterpolationMode(interpolation)
    pipeline = reference(v2.Resize((8, 8), interpolation=mode))
    expected = torch.stack([pipeline(image) for image in images])
    result = source(split, cfg).batch(torch.arange(len(images)))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_order_and_repeats_follow_the_indices(ragged):
    cfg, split, _ = ragged
    data = source(split, cfg)
    every = data.batch(torch.arange(len(data)))
    indices = torch.tensor([3, 0, 3, 5])
    torch.testing.assert_close(data.batch(indices), every[indices], rtol=0, atol=0)
    assert data.batch(torch.empty(0, dtype=torch.int64)).shape == (0, 3, 8, 8)


class TestRandom:
    def cfg(self, ragged, **settings) -> DataConfig:
        return ragged[0].model_copy(update=settings)

    def test_same_draws_same_batch(self, ragged):
        data = source(ragged[1], self.cfg(ragged, random_crop=True, flip=True))
        indices = torch.tensor([0, 1, 2, 3, 4] * 4)
        first, again, other = (data.batch(indices, draw(20, seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_global_generator_is_untouched(self, ragged):
        data = source(ragged[1], self.cfg(ragged, random_crop=True, flip=True))
        before = torch.get_rng_state()
        data.batch(torch.arange(5), draw(5, 0))
        assert torch.equal(torch.get_rng_state(), before)

    def test_crops_are_all_windows_evenly(self, ragged):
        cfg, split, _ = ragged
        data = source(split, self.cfg(ragged, random_crop=True), img_size=10)
        image = split.images.image(2)  # 11 x 11: four windows
        windows = {image[y : y + 10, x : x + 10].tobytes(): (y, x) for y in (0, 1) for x in (0, 1)}
        batch = data.batch(torch.full((800,), 2), draw(800, 0))
        pixels = (batch * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
        seen = [
            windows[p.tobytes()] for p in pixels.round().byte().permute(0, 2, 3, 1).numpy().copy()
        ]
        counts = [seen.count(window) for window in windows.values()]
        assert sum(counts) == 800 and min(counts) > 150

    def test_crops_reach_every_edge_of_a_wide_image(self, ragged):
        cfg, split, _ = ragged
        index = 3  # 40 x 13 becomes 33 x 11
        assert split.images.image(index).shape == (33, 11, 3)
        data = source(split, self.cfg(ragged, random_crop=True))
        plain = split.images.image(index)
        top, bottom = plain[0, 0:8], plain[-1, 3:11]
        batch = data.batch(torch.full((2000,), index), draw(2000, 0))
        std, mean = torch.tensor(STD).view(3, 1, 1), torch.tensor(MEAN).view(3, 1, 1)
        pixels = ((batch * std + mean) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        assert (pixels[:, 0] == top).all(axis=(1, 2)).any()
        assert (pixels[:, -1] == bottom).all(axis=(1, 2)).any()

    def test_flip_mirrors_about_half(self, ragged):
        data = source(ragged[1], self.cfg(ragged, flip=True))
        indices = torch.full((400,), 1)
        plain = data.batch(indices)
        drawn = data.batch(indices, draw(400, 0))
        mirrored = (drawn == plain.flip(-1)).flatten(1).all(1)
        assert ((drawn == plain).flatten(1).all(1) ^ mirrored).all()
        assert 150 < mirrored.sum() < 250

    def test_switches_do_not_move_each_others_draws(self, ragged):
        """The same images are mirrored and the same windows cut, alone and together."""
        indices = torch.arange(5).repeat(8)
        crop, flip, both = (
            source(ragged[1], self.cfg(ragged, **settings)).batch(indices, draw(40, 7))
            for settings in (
                {"random_crop": True},
                {"flip": True},
                {"random_crop": True, "flip": True},
            )
        )
        plain = source(ragged[1], ragged[0]).batch(indices)
        mirrored = (flip != plain).flatten(1).any(1)
        assert mirrored.any() and not mirrored.all()
        expected = torch.where(mirrored.view(-1, 1, 1, 1), crop.flip(-1), crop)
        assert torch.equal(both, expected)

    def test_place_and_mirroring_are_independent(self, ragged):
        data = source(ragged[1], self.cfg(ragged, random_crop=True, flip=True), img_size=10)
        batch = data.batch(torch.full((800,), 2), draw(800, 0))
        _, counts = batch.flatten(1).unique(dim=0, return_counts=True)
        assert len(counts) == 8 and counts.min() > 60  # four windows, mirrored or not

    def test_evaluation_ignores_the_switches(self, ragged):
        loud = source(ragged[1], self.cfg(ragged, random_crop=True, flip=True))
        plain = source(ragged[1], ragged[0])
        assert torch.equal(loud.batch(torch.arange(5)), plain.batch(torch.arange(5)))

    def test_training_without_switches_is_evaluation(self, ragged):
        data = source(ragged[1], ragged[0])
        drawn = data.batch(torch.arange(5), draw(5, 0))
        assert torch.equal(drawn, data.batch(torch.arange(5)))


def test_split_of_another_size_is_refused(ragged, tmp_path):
    cfg, split, _ = ragged
    with pytest.raises(ShapeError, match="images of side 11 do not give batches of side 12"):
        source(split, cfg, img_size=12)
    square = DataConfig(name="vtab1k", root=cfg.root)
    split = load_dataset(square, 16, cache_dir=tmp_path).splits["train"]
    with pytest.raises(ShapeError, match="images of side 16 do not give batches of side 8"):
        source(split, square)


def test_batches_do_not_write_into_the_cache(ragged):
    cfg, split, _ = ragged
    before = split.images.pixels.tobytes()
    source(split, cfg).batch(torch.arange(5)).zero_()
    assert split.images.pixels.tobytes() == before


def test_images_cut_in_host_memory_are_those_cut_on_the_device(ragged, monkeypatch):
    """What a GPU without room for the pixels is sent, here without pinning and stream."""
    data = source(ragged[1], ragged[0].model_copy(update={"random_crop": True, "flip": True}))
    empty = ImageSource._empty
    monkeypatch.setattr(ImageSource, "_empty", lambda *args, pinned=False: empty(*args))
    monkeypatch.setattr(ImageSource, "_send", lambda self, staged: staged)
    batches = [torch.tensor([3, 0, 3, 5]), torch.arange(len(data)), torch.tensor([2])]
    draws = [draw(len(indices), i) for i, indices in enumerate(batches)]
    # begun together, asked for in another order
    loads = [data._cut_elsewhere(*pair) for pair in zip(batches, draws, strict=True)]
    for i in (1, 0, 2):
        assert torch.equal(loads[i](), data.batch(batches[i], draws[i]))


def test_a_fault_in_the_thread_that_cuts_reaches_who_asks(ragged, monkeypatch):
    data = source(ragged[1], ragged[0])
    empty = ImageSource._empty
    monkeypatch.setattr(ImageSource, "_empty", lambda *args, pinned=False: empty(*args))
    load = data._cut_elsewhere(torch.tensor([len(data)]), None)
    with pytest.raises(IndexError):
        load()
