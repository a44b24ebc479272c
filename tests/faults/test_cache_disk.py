"""Caches on disks that are small, full or read-only: said with both numbers, and never filled."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.planning.plan import plan_space
from spaces.load import space_of
from tcpa_core.data import _hashes, _room
from tcpa_core.data._cache import open_or_build
from tcpa_core.data.base import (
    SPLITS,
    CacheNeed,
    cache_need,
    dataset_fingerprint,
    load_dataset,
)
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig
from tests.faults.test_disk import Disk

COUNT = 40
"""Pictures of a split; at 224 pixels of all three: 18 MB, more than the disk has."""


@pytest.fixture
def disk(tmp_path: Path) -> Any:
    made = Disk(tmp_path / "disk", "12m")
    yield made
    made.close()


@pytest.fixture
def cfg(tmp_path: Path) -> DataConfig:
    """Large pictures, in files that take little."""
    for n, split in enumerate(SPLITS):
        for i in range(COUNT):
            path = tmp_path / "set" / split / f"class {i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (240, 250), (i, n, 7)).save(path)
    return DataConfig(name="folder", root=str(tmp_path / "set"))


def stored(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.suffix not in (".lock", ".json"))


def test_the_need_is_told_before_anything_is_decoded(
    cfg: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    told: list[CacheNeed] = []
    stages: list[str] = []

    def tell(need: CacheNeed) -> None:
        told.append(need)
        assert not [stage for stage in stages if "decode" in stage]

    need = cache_need(cfg, 224, cache_dir=cache)
    assert (need.images, need.num_bytes) == (3 * COUNT, 3 * COUNT * 3 * 224**2)
    assert need.folder == cache and not (cache / "pixels").exists()
    monkeypatch.setattr(Image.Image, "load", None)  # headers alone
    assert cache_need(cfg, 224, cache_dir=cache).num_bytes == need.num_bytes
    monkeypatch.undo()
    data = load_dataset(
        cfg, 224, cache_dir=cache, told=tell, progress=lambda stage, *_: stages.append(stage)
    )
    assert [(one.images, one.num_bytes) for one in told] == [(need.images, need.num_bytes)]
    taken = sum(split.images.entries[0].pixels.nbytes for split in data.splits.values())
    assert taken == need.num_bytes
    assert str(need).startswith("120 images will be decoded into ") and "(18.1 MB)" in str(need)
    # What is there takes nothing.
    assert cache_need(cfg, 224, cache_dir=cache).images == 0
    load_dataset(cfg, 224, cache_dir=cache, told=tell)
    assert len(told) == 1
    # Pictures that would be enlarged take what they are.
    assert cache_need(cfg, 300, cache_dir=cache).num_bytes == 3 * COUNT * 3 * 240 * 250


def test_the_need_of_pictures_without_files(tmp_path: Path) -> None:
    need = cache_need(DataConfig(), 32, cache_dir=tmp_path)
    assert (need.images, need.num_bytes) == (1797, 1797 * 3 * 64)


def test_a_disk_that_is_too_small_is_refused_before_it_is_touched(
    cfg: DataConfig, disk: Disk
) -> None:
    free = os.statvfs(disk.path).f_bavail * os.statvfs(disk.path).f_frsize
    with pytest.raises(DataError) as refused:
        load_dataset(cfg, 224, cache_dir=disk.path / "cache")
    text = str(refused.value)
    assert "120 decoded images need 18.1 MB" in text and f"{disk.path}" in text
    assert "MB free" in text and "TCPA_CACHE" in text and "backbone.img_size" in text
    assert stored(disk.path / "cache") in ([], ["hashes"])
    assert free - os.statvfs(disk.path).f_bavail * os.statvfs(disk.path).f_frsize < 2**17
    assert len(load_dataset(cfg, 64, cache_dir=disk.path / "cache").splits["train"]) == COUNT


def test_a_plan_is_refused_as_well(
    cfg: DataConfig, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(disk.path / "cache"))
    base = {
        "methods": ["linear"],
        "data.name": "folder",
        "data.root": cfg.root,
        "backbone.name": "vit_tiny_patch16_224",
        "backbone.weights": "random",
    }
    axes = {"optim.lr": {"choice": [0.1, 0.2]}}
    space = space_of({"name": "small", "base": base, "axes": axes, "budget": {"trials": 2}})
    with pytest.raises(DataError, match=r"120 decoded images need 18\.1 MB"):
        plan_space(space, "small", disk.path / "studies")


def test_what_fits_alone_but_not_together_is_refused_by_the_plan(
    cfg: DataConfig, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan keeps nothing, so that the second data set finds as much room as the first."""
    monkeypatch.setenv("TCPA_CACHE", str(disk.path / "cache"))
    base = {"methods": ["linear"], "data.name": "folder", "data.root": cfg.root}
    axes = {"data.interpolation": {"choice": ["bicubic", "bilinear"]}}
    sized = {**base, "backbone.name": "vit_tiny_patch16_224", "backbone.weights": "random"}
    space = space_of(
        {
            "name": "small",
            "base": {**sized, "backbone.img_size": 144},
            "axes": axes,
            "budget": {"trials": 2},
        }
    )
    with pytest.raises(DataError, match=r"240 decoded images need 14\.9 MB"):
        plan_space(space, "small", disk.path / "studies")


def test_who_decodes_in_passing_needs_room_there(
    cfg: DataConfig, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
    with pytest.raises(DataError, match=r"need 18\.1 MB in .*disk, .* set TMPDIR to a folder"):
        load_dataset(cfg, 224, cache_dir=tmp_path / "cache", keep=False)


def test_a_disk_that_fills_meanwhile_is_left_with_a_reserve(disk: Disk) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 500, 500, 3), dtype=np.uint8)
    seen: list[int] = []

    def watch(stage: str, done: int, total: int) -> None:
        about = os.statvfs(disk.path)
        seen.append(about.f_bavail * about.f_frsize)

    with pytest.raises(
        DataError, match=r"has only 0\.\d MB left, with 1\d\.\d MB of decoded .*TCPA"
    ):
        open_or_build(disk.path / "pixels", "key", 30, lambda i: images[i], watch, "decode")
    assert min(seen) > 0, "others can still write"
    assert stored(disk.path) == ["pixels"]


def test_little_is_written_to_a_disk_that_is_nearly_full(cfg: DataConfig, disk: Disk) -> None:
    disk.fill(leave=1_600_000)
    assert len(load_dataset(cfg, 32, cache_dir=disk.path / "cache").splits["val"]) == COUNT


def test_the_reserve_is_what_is_written_up_to_a_share_of_the_disk(tmp_path: Path) -> None:
    size = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert _room.reserve(tmp_path, 1000) == 1000
    assert _room.reserve(tmp_path / "not" / "there", 2**60) == min(2**30, size // 50)


class TestReadOnly:
    @pytest.fixture
    def cache(self, cfg: DataConfig, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A cache with all that a data set needs at 32 pixels, which cannot be written to."""
        monkeypatch.setattr(_hashes, "RACY_NS", -1)
        load_dataset(cfg, 32, cache_dir=disk.path / "cache")
        disk.make("ro")
        return disk.path / "cache"

    @pytest.mark.parametrize("train_on", ["train", "train_and_val"])
    def test_works_as_it_is_and_after_a_file_was_touched(
        self, cache: Path, cfg: DataConfig, train_on: str
    ) -> None:
        cfg = cfg.model_copy(update={"train_on": train_on})
        before = load_dataset(cfg, 32, cache_dir=cache)
        for path in sorted(Path(str(cfg.root)).rglob("*.png"))[::7]:
            os.utime(path)
        read: list[int] = []
        after = load_dataset(
            cfg, 32, cache_dir=cache, progress=lambda stage, done, total: read.append(total)
        )
        assert set(read) == {18}, "hashes of what was touched, and nothing decoded"
        assert after.fingerprint == before.fingerprint
        assert after.fingerprint == dataset_fingerprint(cfg, cache_dir=cache)

    def test_is_not_read_again_although_it_cannot_hold_a_mark(
        self, cache: Path, cfg: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        monkeypatch.setattr("tcpa_core.data._marks.RACY_NS", -1)
        load_dataset(cfg, 32, cache_dir=cache)
        monkeypatch.setattr("tcpa_core.data._cache._crc", None)
        load_dataset(cfg, 32, cache_dir=cache)

    def test_what_it_lacks_is_an_error(self, cache: Path, cfg: DataConfig) -> None:
        with pytest.raises(DataError, match=r"cannot be used \(Read-only file system\)"):
            load_dataset(cfg, 40, cache_dir=cache)


def test_hashes_that_cannot_be_noted_are_no_error(cfg: DataConfig, disk: Disk) -> None:
    disk.fill(leave=0)
    assert dataset_fingerprint(cfg, cache_dir=disk.path) == dataset_fingerprint(cfg)
