"""Copies stand for files that a machine does not have: the same numbers, and nothing damaged."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tcpa_core import plugins
from tcpa_core.data import _room
from tcpa_core.data.base import (
    Dataset,
    files_of,
    load_dataset,
    open_manifest,
    source_key,
    write_manifest,
)
from tcpa_core.errors import DataError, WeightsError
from tcpa_core.model.load_backbone import load_backbone, weights_fingerprint, weights_path
from tcpa_core.model.weights_bundle import bundle_of, open_bundle
from tcpa_core.record.events import Ended, Epoch
from tcpa_core.settings import DATASETS, BackboneConfig, DataConfig
from tcpa_core.training.commands import Submit
from tcpa_core.training.stand_ins import StandIns
from tcpa_core.training.worker import Worker
from tests.tcpa_core.data_layouts import make

WITH_FILES = [name for name in plugins.names(DATASETS) if name != "digits"]


class Other:
    """A cache of another machine; counts the bytes that it gives."""

    def __init__(self, cache: Path, step: int = 1000) -> None:
        self.files: dict[str, Path] = {}
        self.cache = cache
        self.given: dict[str, int] = {}
        self.breaks_at: int | None = None
        self._step = step

    def __call__(self, name: str) -> Iterator[bytes]:
        data = self.files.get(name, self.cache / name).read_bytes()
        for start in range(0, len(data), self._step):
            if self.breaks_at is not None and start >= self.breaks_at:
                raise ConnectionError("the other machine is gone")
            chunk = data[start : start + self._step]
            self.given[name] = self.given.get(name, 0) + len(chunk)
            yield chunk


@pytest.fixture
def other(tmp_path: Path) -> Other:
    return Other(tmp_path / "other")


def prepared(other: Other, cfg: DataConfig, size: int = 8) -> tuple[Dataset, str]:
    """Decoded on the other machine."""
    data = load_dataset(cfg, size, cache_dir=other.cache)
    return data, write_manifest(data, other.cache)


def same(one: Dataset, two: Dataset) -> bool:
    for name, split in one.splits.items():
        got = two.splits[name]
        assert got.paths == split.paths and got.labels.dtype == split.labels.dtype
        np.testing.assert_array_equal(got.labels, split.labels)
        assert got.images.rule == split.images.rule
        for index in range(len(split)):
            np.testing.assert_array_equal(got.images.seen(index), split.images.seen(index))
    fields = [each.name for each in dataclasses.fields(Dataset) if each.name != "splits"]
    return all(getattr(one, name) == getattr(two, name) for name in fields)


@pytest.mark.parametrize("kind", WITH_FILES)
def test_a_data_set_of_every_kind_is_the_same_without_its_files(
    kind: str, other: Other, tmp_path: Path
) -> None:
    cfg = make(kind, tmp_path / "root")
    data, manifest = prepared(other, cfg)
    shutil.rmtree(tmp_path / "root")
    with pytest.raises(DataError):
        load_dataset(cfg, 8, cache_dir=tmp_path / "here")
    assert same(data, open_manifest(manifest, tmp_path / "here", fetch=other))
    assert same(data, open_manifest(manifest, tmp_path / "here"))
    assert sum(other.given.values()) == sum(files_of(manifest, tmp_path / "here").values())


@pytest.mark.parametrize(
    "settings",
    [
        {"train_on": "train_and_val"},
        {"resized_crop": (0.1, 1.0)},
        {"resize": "short_side", "train_interpolation": "bilinear"},
        {"size_per_class": 1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_whatever_train_is_made_of(settings, other: Other, tmp_path: Path) -> None:
    cfg = make("folder", tmp_path / "root").model_copy(update=settings)
    data, manifest = prepared(other, cfg)
    assert same(data, open_manifest(manifest, tmp_path / "here", fetch=other))


class TestTransfer:
    @pytest.fixture
    def manifest(self, other: Other, tmp_path: Path) -> str:
        return prepared(other, make("folder", tmp_path / "root"))[1]

    def entries(self, cache: Path) -> list[Path]:
        return sorted((cache / "pixels").glob("*.pixels"))

    def test_only_what_is_lacking_or_damaged_is_fetched(
        self, other: Other, manifest: str, tmp_path: Path
    ) -> None:
        here = tmp_path / "here"
        open_manifest(manifest, here, fetch=other)
        first, second, third = self.entries(here)
        first.unlink()
        damaged = bytearray(second.read_bytes())
        damaged[5] ^= 1
        second.write_bytes(damaged)
        other.given.clear()
        with pytest.warns(RuntimeWarning, match="is damaged"):
            open_manifest(manifest, here, fetch=other)
        assert set(other.given) == {f"pixels/{first.name}", f"pixels/{second.name}"}
        assert [path.read_bytes() for path in self.entries(here)] == [
            (other.cache / "pixels" / path.name).read_bytes() for path in (first, second, third)
        ]

    @pytest.mark.parametrize("breaks_at", [0, 1000])
    def test_one_that_breaks_off_leaves_nothing_and_is_begun_anew(
        self, breaks_at: int, other: Other, manifest: str, tmp_path: Path
    ) -> None:
        here = tmp_path / "here"
        other.breaks_at = breaks_at
        with pytest.raises((ConnectionError, DataError), match="gone"):
            open_manifest(manifest, here, fetch=other)
        assert not list(here.rglob("*.tmp")) and not list(here.rglob("*.pixels"))
        other.breaks_at = None
        assert open_manifest(manifest, here, fetch=other).num_classes == 3

    def test_what_comes_damaged_is_not_used(
        self, other: Other, manifest: str, tmp_path: Path
    ) -> None:
        entry = self.entries(other.cache)[0]
        damaged = bytearray(entry.read_bytes())
        damaged[5] ^= 1
        entry.write_bytes(damaged)
        with pytest.warns(RuntimeWarning), pytest.raises(DataError, match="damaged"):
            open_manifest(manifest, tmp_path / "here", fetch=other)
        assert not (tmp_path / "here/pixels" / entry.name).exists()

    def test_a_damaged_manifest_is_not_used_and_fetched_again(
        self, other: Other, manifest: str, tmp_path: Path
    ) -> None:
        here = tmp_path / "here"
        good = (other.cache / manifest).read_text()
        (other.cache / manifest).write_text(good.replace('"folder"', '"tfds"'))
        with pytest.raises(DataError, match="came damaged"):
            open_manifest(manifest, here, fetch=other)
        (other.cache / manifest).write_text(good)
        assert open_manifest(manifest, here, fetch=other).name == "folder"

    def test_one_of_another_version_is_refused(self, other: Other, tmp_path: Path) -> None:
        text = json.dumps({"schema": 0}).encode()
        (other.cache / "manifests").mkdir(parents=True)
        name = f"manifests/{hashlib.sha256(text).hexdigest()}.json"
        (other.cache / name).write_bytes(text)
        with pytest.raises(DataError, match=r"schema 0, known: 1\); use one version"):
            open_manifest(name, tmp_path / "here", fetch=other)

    def test_a_disk_without_room_is_told_before_anything_is_sent(
        self, other: Other, manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_room, "free_bytes", lambda folder: 1000)
        with pytest.raises(DataError, match="cache folder is too small"):
            open_manifest(manifest, tmp_path / "here", fetch=other)
        assert set(other.given) == {manifest}

    def test_without_a_way_to_fetch_what_is_gone_is_named(
        self, other: Other, manifest: str, tmp_path: Path
    ) -> None:
        here = tmp_path / "here"
        open_manifest(manifest, here, fetch=other)
        gone = self.entries(here)[0]
        gone.unlink()
        with pytest.raises(DataError, match=f"{gone.name} is gone"):
            open_manifest(manifest, here)

    def test_files_are_counted(self, other: Other, manifest: str) -> None:
        found = files_of(manifest, other.cache)
        assert len(found) == 4 and manifest in found
        assert all((other.cache / name).stat().st_size == size for name, size in found.items())


class TestSourceKey:
    CFG = DataConfig(name="folder", root="/data", resize="short_side")
    AT_TRAINING = {
        "random_crop": True, "flip": True, "crop_ratio": (0.5, 2.0), "auto_augment": "v0",
        "color_jitter": (0.1, 0.1, 0.1, 0.0), "norm_stats": "half", "erase_prob": 0.5,
        "erase_mode": "rand", "max_class_share": 0.75,
    }  # fmt: skip

    @pytest.mark.parametrize("field", DataConfig.model_fields)
    def test_tells_what_is_stored(self, field: str, tmp_path: Path) -> None:
        values = {
            **self.AT_TRAINING, "name": "imagelist", "root": "/other", "resize": "squash",
            "resize_to": 300, "interpolation": "bilinear", "antialias": False,
            "resized_crop": (0.5, 1.0), "train_interpolation": "bilinear", "val_fraction": 0.5,
            "split_seed": 7, "group": "(a)", "split": "own", "splits_dir": "/lists",
            "size_per_class": 5, "image_column": "a", "label_column": "b", "train_list": "c",
            "train_on": "train_and_val", "num_classes": 3, "ignore": (1,),
            "reduce_zero_label": True, "scale_range": (0.5, 2.0),
        }  # fmt: skip
        changed = self.CFG.model_copy(update={field: values[field]})
        assert changed != self.CFG
        assert (source_key(changed) == source_key(self.CFG)) == (field in self.AT_TRAINING)

    @pytest.mark.parametrize("field", AT_TRAINING)
    def test_what_it_leaves_out_changes_no_stored_image(
        self, field: str, other: Other, tmp_path: Path
    ) -> None:
        kind = "segfolder" if field == "max_class_share" else "folder"
        cfg = make(kind, tmp_path / "root").model_copy(update={"resize": "short_side"})
        changed = cfg.model_copy(update={field: self.AT_TRAINING[field]})
        assert prepared(other, cfg)[1] == prepared(other, changed)[1]


class TestWeights:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "hub").mkdir()
        source = weights_path(BackboneConfig())
        state = {name: tensor * 1.01 for name, tensor in load_file(source).items()}
        save_file(state, tmp_path / "hub/mine.safetensors")
        return tmp_path / "hub/mine.safetensors"

    @pytest.mark.parametrize("beside", ["nothing", "description", "others"])
    def test_have_the_same_identity_and_numbers(
        self, beside: str, file: Path, tmp_path: Path
    ) -> None:
        if beside != "nothing":
            config = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
            (file.parent / "config.json").write_text(json.dumps(config))
        if beside == "others":
            shutil.copy(file, file.parent / "another.safetensors")
        cfg = BackboneConfig(
            weights=str(file), norm_stats=None if beside == "description" else "clip"
        )
        here, other = tmp_path / "here", Other(tmp_path)
        bundle, other.files = bundle_of(cfg)
        found = cfg.model_copy(update={"weights": str(open_bundle(bundle, here, fetch=other))})
        for stats in (None, "clip"):  # what is beside the file counts where none are set
            theirs, ours = (one.model_copy(update={"norm_stats": stats}) for one in (cfg, found))
            assert weights_fingerprint(ours) == weights_fingerprint(theirs)
        there, here_ = load_backbone(cfg), load_backbone(found)
        tensors = (one.vit.state_dict().values() for one in (there, here_))
        assert all(map(torch.equal, *tensors))
        assert there.norm_stats("checkpoint") == here_.norm_stats("checkpoint")
        sent = dict(other.given)
        open_bundle(bundle, here, fetch=other)
        assert other.given == sent  # nothing is sent twice

    def test_come_damaged_or_not_at_all(self, file: Path, tmp_path: Path) -> None:
        here, other = tmp_path / "here", Other(tmp_path)
        bundle, other.files = bundle_of(BackboneConfig(weights=str(file)))
        other.breaks_at = 2000
        with pytest.raises((ConnectionError, DataError), match="gone"):
            open_bundle(bundle, here, fetch=other)
        assert not list(here.rglob("*.tmp")) and not (here / bundle.path).exists()
        other.breaks_at = None
        good = file.read_bytes()
        file.write_bytes(good[:-1] + b"x")
        with pytest.raises(WeightsError, match="came damaged"):
            open_bundle(bundle, here, fetch=other)
        file.write_bytes(good)
        assert open_bundle(bundle, here, fetch=other).read_bytes() == good


def test_a_worker_trains_the_same_on_copies(tmp_path: Path) -> None:
    cfg = make("folder", tmp_path / "root")
    weights = tmp_path / "w.safetensors"
    shutil.copy(weights_path(BackboneConfig()), weights)
    params = {
        "backbone.name": "vit_nano", "backbone.weights": str(weights), "data.name": "folder",
        "data.root": cfg.root, "data.flip": True, "methods": ["linear"], "train.epochs": 2,
        "train.batch_size": 4,
    }  # fmt: skip
    command = Submit(trial="a", params=params, until_epoch=2, test_at_end=True)

    def told(worker: Worker) -> list[object]:
        worker.take(command)
        events = []
        while not worker.idle:
            events += worker.work()
        [result] = [event.result for event in events if isinstance(event, Ended)]
        scores = [e.report.val_loss for e in events if isinstance(e, Epoch)]
        return [*scores, result.status, result.test_accuracy, result.test_loss]

    there = told(Worker(tmp_path / "study", tmp_path / "other", "cpu"))
    other = Other(tmp_path / "other")
    manifest = write_manifest(load_dataset(cfg, 32, cache_dir=other.cache), other.cache)
    bundle, other.files = bundle_of(BackboneConfig(weights=str(weights)))
    stand_ins = StandIns({(source_key(cfg), 32): manifest}, {str(weights): bundle}, other)
    backbone = BackboneConfig(weights=str(weights))
    shutil.rmtree(tmp_path / "root")
    other.files = {name: weights.rename(tmp_path / "moved") for name in other.files}
    worker = Worker(tmp_path / "again", tmp_path / "here", "cpu")
    worker.use(stand_ins)
    stand_ins.data_fingerprint(cfg, tmp_path / "here")
    stand_ins.weights_fingerprint(backbone, tmp_path / "here")
    assert told(worker) == there and "completed" in there


class TestStandIns:
    """Where files are, they are read; where they are not, copies are."""

    def test_nothing_is_sent_to_where_files_are(self, other: Other, tmp_path: Path) -> None:
        cfg = make("folder", tmp_path / "root")
        data, manifest = prepared(other, cfg)
        stand_ins = StandIns({(source_key(cfg), 8): manifest}, fetch=other)
        here = tmp_path / "here"
        assert stand_ins.data_fingerprint(cfg, here) == data.fingerprint
        assert same(stand_ins.load_dataset(cfg, 8, cache_dir=here), data)
        assert not other.given

    def test_every_size_is_sent_and_told_apart(self, other: Other, tmp_path: Path) -> None:
        cfg = make("folder", tmp_path / "root")
        sizes = {size: prepared(other, cfg, size) for size in (4, 8)}
        manifests = {(source_key(cfg), size): name for size, (_, name) in sizes.items()}
        stand_ins = StandIns(manifests, fetch=other)
        shutil.rmtree(tmp_path / "root")
        here = tmp_path / "here"
        assert stand_ins.data_fingerprint(cfg, here) == sizes[4][0].fingerprint
        sent = dict(other.given)
        for size, (data, _) in sizes.items():
            assert same(stand_ins.load_dataset(cfg, size, cache_dir=here), data)
        assert other.given == sent

    def test_what_is_deleted_from_the_cache_comes_again(self, other: Other, tmp_path: Path) -> None:
        cfg = make("folder", tmp_path / "root")
        data, manifest = prepared(other, cfg)
        stand_ins = StandIns({(source_key(cfg), 8): manifest}, fetch=other)
        shutil.rmtree(tmp_path / "root")
        here = tmp_path / "here"
        stand_ins.data_fingerprint(cfg, here)
        for path in (here / "pixels").glob("*.pixels"):
            path.unlink()
        assert same(stand_ins.load_dataset(cfg, 8, cache_dir=here), data)

    def test_a_damaged_copy_of_weights_is_replaced_and_none_is_used_beside_the_file(
        self, other: Other, tmp_path: Path
    ) -> None:
        file = tmp_path / "w.safetensors"
        shutil.copy(weights_path(BackboneConfig()), file)
        cfg = BackboneConfig(weights=str(file))
        wanted = weights_fingerprint(cfg)
        bundle, other.files = bundle_of(cfg)
        other.files = {name: file.rename(tmp_path / "moved") for name in other.files}
        stand_ins, here = StandIns({}, {str(file): bundle}, other), tmp_path / "here"
        assert stand_ins.weights_fingerprint(cfg, here) == wanted
        copy = here / bundle.path
        copy.write_bytes(copy.read_bytes()[:1000])
        assert stand_ins.weights_fingerprint(cfg, here) == wanted
        copy.write_bytes(b"damaged")
        (tmp_path / "moved").rename(file)
        assert stand_ins.backbone(cfg, here) == cfg

    def test_other_settings_and_nothing_to_send_are_refused(
        self, other: Other, tmp_path: Path
    ) -> None:
        cfg = make("folder", tmp_path / "root")
        _, manifest = prepared(other, cfg)
        stand_ins = StandIns({(source_key(cfg), 8): manifest}, fetch=other)
        shutil.rmtree(tmp_path / "root")
        lists = cfg.model_copy(update={"val_fraction": 0.5})
        with pytest.raises(DataError, match="does not exist"):
            stand_ins.data_fingerprint(lists, tmp_path / "here")
        with pytest.raises(DataError, match="does not exist"):
            StandIns().data_fingerprint(cfg, tmp_path / "here")
        with pytest.raises(WeightsError, match="no file"):
            stand_ins.weights_fingerprint(BackboneConfig(weights="/nowhere.npz"), tmp_path)
