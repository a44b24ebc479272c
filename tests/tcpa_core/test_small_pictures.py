"""Small pictures are stored at their own size; trials see what they saw when all were enlarged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tcpa_core.data._cache import ImageStore
from tcpa_core.data._decode import ResizeRule
from tcpa_core.data.base import Split, load_dataset
from tcpa_core.settings import DataConfig
from tcpa_core.training import image_source
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.windows import Copied, Whole
from tests.tcpa_core.test_data_images import draw
from tests.tcpa_core.test_enlarge import noise, store_of

SIZES = [(32, 32), (1, 1), (2, 9), (31, 48), (48, 48), (49, 48), (60, 90), (20, 400), (200, 7)]
"""Height and width: enlarged, at their final size, made smaller, and strips of each kind."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def folder(root: Path, sizes: list[tuple[int, int]] = SIZES) -> DataConfig:
    """A data set of two classes; every split has a picture of each size in each."""
    for offset, split in enumerate(("train", "val", "test")):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for n, (height, width) in enumerate(sizes):
                picture = noise(height, width, 100 * offset + 10 * n + (label == "b"))
                Image.fromarray(picture).save(root / split / label / f"{n}.png")
    return DataConfig(name="folder", root=str(root))


def enlarged_at_once(cfg: DataConfig, img_size: int, split: Split) -> Split:
    """The split as a cache that stores what the resize gives would hold it."""
    rule = ResizeRule.of(cfg, img_size)
    assert cfg.root is not None
    pictures = []
    for path in split.paths:
        with Image.open(Path(cfg.root) / path) as image:
            pictures.append(rule.apply(image.convert("RGB"), path))
    store = store_of(pictures, rule)  # which leaves alone what it gave
    return Split(images=store, labels=split.labels, paths=split.paths)


WAYS = {
    "squash": {"resize": "squash"},
    "squash, flip": {"resize": "squash", "flip": True},
    "bilinear": {"resize": "squash", "interpolation": "bilinear"},
    "short side": {"resize": "short_side", "resize_to": 48},
    "crop": {"resize": "short_side", "resize_to": 48, "random_crop": True, "flip": True},
    "bilinear crop": {
        "resize": "short_side", "resize_to": 50, "random_crop": True, "interpolation": "bilinear",
    },
    "aliased": {"resize": "squash", "antialias": False},
    "aliased crop": {
        "resize": "short_side", "resize_to": 48, "random_crop": True, "antialias": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_batches_are_those_of_pictures_enlarged_once_for_all(way, tmp_path, monkeypatch):
    cfg = folder(tmp_path / "set").model_copy(update=WAYS[way])
    monkeypatch.setattr(image_source, "ENLARGED_BYTES", 0)  # batch by batch
    split = load_dataset(cfg, 48, cache_dir=tmp_path / "cache").splits["train"]
    sources = [
        ImageSource(one, cfg, 48, MEAN, STD, "cpu")
        for one in (split, enlarged_at_once(cfg, 48, split))
    ]
    indices = torch.arange(len(split)).repeat(4)
    for draws in (None, draw(len(indices), 3)):
        found, expected = (source.batch(indices, draws) for source in sources)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("cropped", [False, True])
def test_a_split_that_fits_is_enlarged_once(cropped, tmp_path, monkeypatch):
    how = {"resize": "short_side", "resize_to": 60, "random_crop": True} if cropped else {}
    cfg = folder(tmp_path / "set", [(16, 16), (31, 31)]).model_copy(update=how)
    split = load_dataset(cfg, 48, cache_dir=tmp_path / "cache").splits["train"]
    once = ImageSource(split, cfg, 48, MEAN, STD, "cpu")
    monkeypatch.setattr(image_source, "ENLARGED_BYTES", 0)
    each_time = ImageSource(split, cfg, 48, MEAN, STD, "cpu")
    monkeypatch.setattr(ResizeRule, "enlarge", None)  # not asked again
    indices, draws = torch.arange(4).repeat(5), draw(20, 0)
    found = once.batch(indices, draws)
    monkeypatch.undo()
    assert isinstance(once._windows, Copied if cropped else Whole)
    assert torch.equal(found, each_time.batch(indices, draws))


def test_several_threads_enlarge_the_same(tmp_path, monkeypatch):
    cfg = folder(tmp_path / "set")
    monkeypatch.setattr(image_source, "ENLARGED_BYTES", 0)
    split = load_dataset(cfg, 48, cache_dir=tmp_path / "cache").splits["train"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    one = ImageSource(split, cfg, 48, MEAN, STD, "cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    three = ImageSource(split, cfg, 48, MEAN, STD, "cpu")
    indices = torch.arange(len(split)).repeat(3)
    assert torch.equal(one.batch(indices), three.batch(indices))
    assert three._windows._threads == 3


def test_what_is_stored(tmp_path):
    cfg = folder(tmp_path / "set")
    images = load_dataset(cfg, 48, cache_dir=tmp_path / "cache").splits["train"].images
    stored = list(zip(images.heights.tolist(), images.widths.tolist(), strict=True))[: len(SIZES)]
    # both sides are enlarged or kept / one side is made smaller
    assert stored == [*SIZES[:5], *[(48, 48)] * 4]
    by_side = cfg.model_copy(update={"resize": "short_side", "resize_to": 48})
    images = load_dataset(by_side, 48, cache_dir=tmp_path / "cache").splits["train"].images
    stored = list(zip(images.heights.tolist(), images.widths.tolist(), strict=True))[: len(SIZES)]
    # made smaller / strips that would be enlarged as a whole for every crop
    assert stored == [
        *[(32, 32), (1, 1), (48, 216), (31, 48), (48, 48), (49, 48)],
        *[(48, 72), (48, 960), (1371, 48)],
    ]


@pytest.mark.parametrize("way", WAYS)
def test_an_image_is_given_as_trials_see_it(way, tmp_path):
    cfg = folder(tmp_path / "set").model_copy(update=WAYS[way])
    split = load_dataset(cfg, 48, cache_dir=tmp_path / "cache").splits["val"]
    expected = enlarged_at_once(cfg, 48, split).images
    for index in range(len(split)):
        np.testing.assert_array_equal(split.images.image(index), expected.image(index))
    for found, wanted in zip(split.images.sizes(), expected.sizes(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_picture_that_was_resized_is_not_resized_again():
    for resize in ("squash", "short_side"):
        for antialias in (True, False):
            rule = ResizeRule(resize, 37, "bicubic", antialias)
            for width in range(1, 300, 7):
                for height in range(1, 300, 11):
                    stored = rule.stored_size(width, height)
                    seen = rule.size(width, height)
                    assert rule.size(*stored) == seen
                    assert rule.size(*seen) == seen
                    assert stored[0] * stored[1] <= max(seen[0] * seen[1], width * height)
                    assert stored in ((width, height), seen)


def test_pictures_may_be_kept_as_they_are():
    """For what cuts windows of any size out of the source."""
    rule = ResizeRule("short_side", 40, "bicubic", whole=True)
    for size in ((40, 7), (40, 300), (80, 120)):
        assert rule.stored_size(*size) == size
    assert rule.size(80, 120) == (40, 60)
    for shape in ((30, 33), (80, 120)):
        image = Image.fromarray(noise(*shape))
        stored = rule.store(image, "")
        np.testing.assert_array_equal(stored, np.asarray(image))
        seen = rule.enlarge(stored.transpose(2, 0, 1)).transpose(1, 2, 0)
        np.testing.assert_array_equal(seen, rule.apply(image, ""))


def test_cifar_at_224_pixels_takes_less_than_5_kB_a_picture(tmp_path):
    """0.25 GB for the 50,000 of CIFAR-10."""
    cfg = folder(tmp_path / "set", [(32, 32)] * 50)
    for way in (cfg, cfg.model_copy(update={"resize": "short_side", "random_crop": True})):
        cache = tmp_path / way.resize
        splits = load_dataset(way, 224, cache_dir=cache).splits
        taken = sum(path.stat().st_blocks * 512 for path in (cache / "pixels").glob("*.pixels"))
        assert taken <= 5_000 * sum(map(len, splits.values()))


class TestTrainAndVal:
    @pytest.fixture
    def cfg(self, tmp_path) -> DataConfig:
        cfg = folder(tmp_path / "set")
        return cfg.model_copy(update={"train_on": "train_and_val"})

    def test_nothing_is_stored_twice(self, cfg, tmp_path):
        cache = tmp_path / "cache"
        load_dataset(cfg.model_copy(update={"train_on": "train"}), 48, cache_dir=cache)
        before = {path.name: path.stat().st_ino for path in (cache / "pixels").glob("*.pixels")}
        assert len(before) == 3
        stages = set()
        splits = load_dataset(
            cfg, 48, cache_dir=cache, progress=lambda stage, *_: stages.add(stage)
        ).splits
        after = {path.name: path.stat().st_ino for path in (cache / "pixels").glob("*.pixels")}
        assert after == before and not [stage for stage in stages if "decode" in stage]
        assert splits["train"].images.entries[1] is splits["val"].images

    @pytest.mark.parametrize("room", [0, 2**26])
    def test_batches_take_from_both(self, cfg, tmp_path, monkeypatch, room):
        monkeypatch.setattr(image_source, "ENLARGED_BYTES", room)
        splits = load_dataset(cfg, 48, cache_dir=tmp_path / "cache").splits
        joined = ImageSource(splits["train"], cfg, 48, MEAN, STD, "cpu")
        whole = ImageSource(enlarged_at_once(cfg, 48, splits["train"]), cfg, 48, MEAN, STD, "cpu")
        count = len(splits["train"])
        assert count == len(joined) == 4 * len(SIZES)
        indices = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        assert torch.equal(joined.batch(indices), whole.batch(indices))

    def test_pictures_of_one_size_need_no_enlarging(self, cfg, tmp_path):
        cfg = cfg.model_copy(update={"root": folder(tmp_path / "even", [(60, 70)]).root})
        splits = load_dataset(cfg, 48, cache_dir=tmp_path / "cache").splits
        joined = ImageSource(splits["train"], cfg, 48, MEAN, STD, "cpu")
        parts = [
            ImageSource(entry_split(splits["train"], n), cfg, 48, MEAN, STD, "cpu") for n in (0, 1)
        ]
        found = joined.batch(torch.tensor([3, 0, 2, 1]))
        expected = torch.cat([part.batch(torch.arange(2)) for part in parts])
        assert torch.equal(found, expected[[3, 0, 2, 1]])

    def test_an_index_beyond_the_last_is_an_error(self, cfg, tmp_path):
        images = load_dataset(cfg, 48, cache_dir=tmp_path / "cache").splits["train"].images
        with pytest.raises(IndexError):
            images.image(len(images))


def entry_split(split: Split, number: int) -> Split:
    """One of the entries that a split is made of."""
    images: ImageStore = split.images.entries[number]
    return Split(images=images, labels=np.zeros(len(images), np.int64), paths=())
