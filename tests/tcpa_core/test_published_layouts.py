"""Published data sets in their distributors' layouts: read as they are, and refused in words."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from tcpa_core import plugins
from tcpa_core.chain import deviations
from tcpa_core.config import TrialConfig
from tcpa_core.data import base
from tcpa_core.data._mat import numbers, read_mat, shapes_of, texts
from tcpa_core.data._published import PUBLISHED, published_key
from tcpa_core.data.base import Dataset, Listing, dataset_fingerprint, load_dataset
from tcpa_core.errors import DataError
from tcpa_core.settings import DATASETS, DataConfig
from tests.tcpa_core.data_layouts import picture
from tests.tcpa_core.published_layouts import UNPACKED, VARIANTS, WRITERS, python2_pickle

EVERY = {**{name: (name, write) for name, write in WRITERS.items()}, **VARIANTS}
"""Data.name and what writes the layout."""

SIZES = {
    "cifar10": (24, 6, 6), "cifar100": (12, 3, 6), "svhn": (20, 10, 10), "dtd": (12, 12, 12),
    "food101": (12, 3, 6), "gtsrb": (21, 6, 6), "flowers102": (12, 12, 12),
    "stanford_cars": (9, 3, 6), "pets": (9, 3, 6), "cub": (9, 3, 6), "nabirds": (9, 3, 6),
    "stanford_dogs": (9, 3, 6), "eurosat": (9, 3, 3), "resisc45": (9, 3, 3),
    "caltech101": (9, 3, 3), "sun397": (9, 3, 3), "aircraft": (12, 12, 12),
    "imagenette": (9, 3, 12), "tiny_imagenet": (9, 3, 12),
}  # fmt: skip
"""Train, val and test of the miniatures."""

NAMES = {
    "cifar10": ("airplane", "automobile", "bird"),
    "cifar100": ("apple", "aquarium_fish", "baby"),
    "svhn": tuple("0123456789"),
    "gtsrb": ("0", "1", "2"),
    "flowers102": ("1", "2", "3"),
    "stanford_cars": (
        "AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo Convertible 2012",
    ),
    "pets": ("Abyssinian", "american_bulldog", "yorkshire_terrier"),
    "nabirds": ("American Black Duck", "Mallard", "Oak Titmouse"),
    "sun397": ("abbey", "apartment_building/outdoor", "zoo"),
    "imagenette": ("tench", "English springer", "parachute"),
}  # fmt: skip


IN_PATH = ("dtd", "food101", "cub", "stanford_dogs", "eurosat", "resisc45", "caltech101",
           "tiny_imagenet")  # fmt: skip
"""Kinds whose images lie in folders of the classes' names."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))


def made(layout: str, root: Path, **settings: Any) -> DataConfig:
    name, write = EVERY[layout]
    write(root)
    return DataConfig(name=name, root=str(root), **settings)


def listing(cfg: DataConfig) -> Listing:
    return base._read(cfg)


def keys(cfg: DataConfig, split: str) -> tuple[str, ...]:
    return listing(cfg).splits[split].keys


def error(cfg: DataConfig) -> str:
    with pytest.raises(DataError) as caught:
        dataset_fingerprint(cfg)
    return str(caught.value)


class TestLayouts:
    @pytest.mark.parametrize("layout", EVERY)
    def test_is_read_as_it_is_unpacked(self, layout: str, tmp_path: Path) -> None:
        cfg = made(layout, tmp_path / "set")
        data = load_dataset(cfg, 8)
        assert tuple(len(data.splits[s]) for s in base.SPLITS) == SIZES[cfg.name]
        assert data.class_names == NAMES.get(cfg.name, data.class_names)
        for split in data.splits.values():
            assert set(split.labels.tolist()) == set(range(data.num_classes))
        assert all(self._agrees(data, cfg.name))
        told = [note for note in data.summary.notes if PUBLISHED[cfg.name].title in note]
        assert len(told) == 1 and f"of {data.num_classes} classes" in told[0]

    def _agrees(self, data: Dataset, kind: str) -> list[bool]:
        """Whether each image whose path names its class has the label of that class."""
        found = []
        for split in data.splits.values():
            for path, label in zip(split.paths, split.labels, strict=True):
                if kind in IN_PATH and "val/images" not in path:
                    found.append(data.class_names[label] in path.split("/"))
                elif kind in ("pets", "sun397"):
                    found.append(data.class_names[label] in path)
        return found

    @pytest.mark.parametrize("layout", UNPACKED)
    def test_the_unpacked_folder_itself_is_the_same(self, layout: str, tmp_path: Path) -> None:
        cfg = made(layout, tmp_path / "set")
        inside = DataConfig(name=cfg.name, root=str(tmp_path / "set" / UNPACKED[layout]))
        assert dataset_fingerprint(inside) == dataset_fingerprint(cfg)

    @pytest.mark.parametrize("layout", EVERY)
    def test_another_kind_names_this_one(self, layout: str, tmp_path: Path) -> None:
        cfg = made(layout, tmp_path / "set")
        other = "pets" if cfg.name != "pets" else "cub"
        said = error(DataConfig(name=other, root=cfg.root))
        assert f"layout of {cfg.name!r}" in said or f"or {cfg.name!r}" in said

    @pytest.mark.parametrize("layout", WRITERS)
    def test_a_root_too_high_or_too_low_is_told(self, layout: str, tmp_path: Path) -> None:
        cfg = made(layout, tmp_path / "one" / "two" / "set")
        for root in (tmp_path / "one" / "two", tmp_path / "one"):
            said = error(DataConfig(name=cfg.name, root=str(root)))
            assert f"set data.root={cfg.root!r}" in said, said
        start = Path(cfg.root or "") / UNPACKED.get(layout, "")
        below = next(p for p in sorted(start.iterdir(), key=str) if p.is_dir()) if any(
            p.is_dir() for p in start.iterdir()
        ) else None  # fmt: skip
        if below is not None and layout != "sun397":
            said = error(DataConfig(name=cfg.name, root=str(below)))
            assert f"data.root={str(start)!r}" in said, said

    @pytest.mark.parametrize("layout", WRITERS)
    def test_whatever_is_missing_is_named(self, layout: str, tmp_path: Path) -> None:
        """Every file and folder in turn, those of no use apart; none ends in another error."""
        cfg = made(layout, tmp_path / "set")
        start = Path(cfg.root or "") / UNPACKED.get(layout, "")
        whole = dataset_fingerprint(cfg)
        for path in [p for p in sorted(start.iterdir()) if p.name[0] != "."]:
            path.rename(tmp_path / "away")
            try:
                changed = dataset_fingerprint(cfg) != whole
                assert layout in CLASS_FOLDERS or not changed, path
            except DataError as err:
                assert path.name.removeprefix("0") in str(err) or "data.root" in str(err)
            (tmp_path / "away").rename(path)
        assert dataset_fingerprint(cfg) == whole

    def test_an_archive_that_was_not_unpacked_is_pointed_out(self, tmp_path: Path) -> None:
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b")
        said = error(DataConfig(name="cifar10", root=str(tmp_path)))
        assert f"{tmp_path}/cifar-10-python.tar.gz is an archive" in said and "unpack it" in said

    def test_an_image_that_is_missing_is_named(self, tmp_path: Path) -> None:
        cfg = made("food101", tmp_path)
        lost = "waffles/1005649.jpg"
        (tmp_path / "food-101" / "images" / lost).unlink()
        assert f"1 of 21 listed images are missing below {tmp_path}" in error(cfg)
        assert lost in error(cfg)

    def test_test_without_classes_is_no_test(self, tmp_path: Path) -> None:
        cfg = made("gtsrb, archives of 2011", tmp_path / "gtsrb")
        (tmp_path / "gtsrb" / "GT-final_test.csv").unlink()
        assert "GT-final_test.csv, are missing" in error(cfg)

    def test_background_counts_as_a_class_of_caltech(self, tmp_path: Path) -> None:
        assert listing(made("caltech101", tmp_path)).class_names[0] == "BACKGROUND_Google"

    def test_val_sorted_into_folders(self, tmp_path: Path) -> None:
        cfg = made("tiny_imagenet", tmp_path)
        folder = tmp_path / "tiny-imagenet-200" / "val"
        before = [base._read(cfg).splits["test"].labels]
        for line in (folder / "val_annotations.txt").read_text().splitlines():
            name, wnid = line.split("\t")[:2]
            (folder / wnid).mkdir(exist_ok=True)
            (folder / "images" / name).rename(folder / wnid / name)
        (folder / "val_annotations.txt").unlink()
        assert [base._read(cfg).splits["test"].labels] == before


CLASS_FOLDERS = ("eurosat", "resisc45", "caltech101", "sun397", "imagenette", "tiny_imagenet")
"""Sets without lists: a class folder that is away is not missed, but the sizes are told."""


class TestPixels:
    def test_cifar_is_planes_of_red_green_and_blue(self, tmp_path: Path) -> None:
        cfg = made("cifar10", tmp_path)
        found = listing(cfg).splits["test"]
        assert found.read is not None
        held = pickle.loads(
            (tmp_path / "cifar-10-batches-py" / "test_batch").read_bytes(), encoding="bytes"
        )
        rows = held[b"data"].reshape(-1, 3, 32, 32)
        for i in range(6):
            np.testing.assert_array_equal(found.read(i), rows[i].transpose(1, 2, 0))
        assert list(found.labels) == held[b"labels"]

    def test_svhn_counts_pictures_last_and_calls_zero_ten(self, tmp_path: Path) -> None:
        cfg = made("svhn", tmp_path)
        found = listing(cfg).splits["test"]
        assert found.read is not None
        pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
        for i in range(10):
            np.testing.assert_array_equal(found.read(i), pixels[..., i])
        assert found.labels == tuple(range(10))

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize("key", [str, str.encode])
    def test_pickles_of_every_age(
        self, protocol: int, key: Callable[[str], Any], tmp_path: Path
    ) -> None:
        cfg = made("cifar100", tmp_path)
        before = dataset_fingerprint(cfg)
        for file in sorted((tmp_path / "cifar-100-python").iterdir()):
            held = pickle.loads(file.read_bytes(), encoding="bytes")
            again = {key(name.decode()): value for name, value in held.items()}
            file.write_bytes(pickle.dumps(again, protocol=protocol))
        assert dataset_fingerprint(cfg) == before
        file = tmp_path / "cifar-100-python" / "train"
        held = pickle.loads(file.read_bytes())
        held[key("data")] = np.asfortranarray(held[key("data")])
        held[key("fine_labels")] = np.array(held[key("fine_labels")])
        file.write_bytes(pickle.dumps(held, protocol=protocol))
        assert dataset_fingerprint(cfg) == before
        held[key("fine_labels")] = list(held[key("fine_labels")])  # NumPy's numbers
        file.write_bytes(pickle.dumps(held, protocol=protocol))
        assert dataset_fingerprint(cfg) == before


class Shell:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


class TestDamage:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "damaged"),
            (b"\x80\x02garbage", "damaged"),
            (pickle.dumps({b"data": Shell()}), r"asks for (posix|nt)\.system"),
            (b"cbuiltins\neval\n(S'1'\ntR.", "asks for builtins.eval"),
            (b"cnumpy\nload\n(S'x'\ntR.", "asks for numpy.load"),
            (pickle.dumps([1]), "must hold a dictionary, got a list"),
            (python2_pickle({b"labels": [0]}), "has no 'data'"),
            (python2_pickle({b"data": [1, 2], b"labels": [0]}), "array of bytes"),
            (python2_pickle({b"data": np.zeros((2, 3072)), b"labels": [0]}), "array of bytes"),
            (python2_pickle({b"data": np.zeros((2, 7), np.uint8), b"labels": [0]}), r"\(2, 7\)"),
            (python2_pickle({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}),
             "2 pictures and 1 labels"),
            (python2_pickle({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]}),
             "list of whole numbers"),
        ],
    )  # fmt: skip
    def test_a_pickle_runs_nothing(
        self, content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        cfg = made("cifar10", tmp_path / "set")
        (tmp_path / "set" / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
        assert re.search(message, error(cfg)) and "data_batch_3" in error(cfg)
        assert not (tmp_path / "ran").exists()

    def test_a_pickle_cannot_change_what_reads_the_next(self, tmp_path: Path) -> None:
        """A state of slots sets attributes of the very class that it is given."""
        poison = b"\x80\x02cnumpy\nndarray\n(N}U\x0c__setstate__K\x01s\x86b."
        cfg = made("cifar10", tmp_path)
        file = tmp_path / "cifar-10-batches-py" / "data_batch_1"
        whole, before = file.read_bytes(), dataset_fingerprint(cfg)
        file.write_bytes(poison)
        error(cfg)
        file.write_bytes(whole)
        assert dataset_fingerprint(cfg) == before

    @pytest.mark.parametrize("packed", [True, False])
    def test_matlab_files_are_read_as_scipy_writes_them(self, packed: bool, tmp_path: Path) -> None:
        file = tmp_path / "a.mat"
        kinds = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
        arrays = {f"x{kind}": np.arange(24).reshape(2, 3, 4).astype(kind) for kind in kinds}
        names = ["a", "\u00e4 long one", ""]
        both = np.zeros((1, 2), dtype=[("name", object), ("class", object)])
        both[0, 0], both[0, 1] = ("first", 1), ("second", np.uint16(700))
        cells = np.array(names, dtype=object)[:, None]
        held = {**arrays, "cells": cells, "rows": ["one", "four"], "text": "word", "both": both}
        savemat(file, held, do_compression=packed)
        found = read_mat(file, list(held))
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
        assert texts(found["cells"]) == names and texts(found["text"]) == ["word"]
        assert texts(found["rows"]) == ["one", "four"]
        assert texts(found["both"]["name"]) == ["first", "second"]
        assert numbers(file, found["both"]["class"]) == [1, 700]
        assert shapes_of(file, ["xu1", "cells"]) == {"xu1": (2, 3, 4), "cells": (3, 1)}

    @pytest.mark.parametrize("layout", ["flowers102", "stanford_cars", "stanford_dogs", "svhn"])
    def test_damage_of_matlab_files_is_told(self, layout: str, tmp_path: Path) -> None:
        """Some of these files end the process that reads them with SciPy."""
        cfg = made(layout, tmp_path)
        rng = np.random.default_rng(0)
        for file in sorted(tmp_path.rglob("*.mat")):
            whole = file.read_bytes()
            for trial in range(40):
                broken = bytearray(whole)
                for at in rng.integers(128, len(whole), trial % 4 + 1):
                    broken[at] = rng.integers(256)
                file.write_bytes(broken[: len(whole) // 2] if trial == 0 else broken)
                try:
                    listing(cfg)
                except DataError:
                    continue
            file.write_bytes(whole)
        listing(cfg)

    @pytest.mark.parametrize(
        ("held", "message"),
        [
            ({"labels": np.ones((1, 9))}, "has no variable 'trnid'"),
            ({"trnid": [[1.5]], "valid": [[2]], "tstid": [[3]]}, "whole numbers"),
            ({"trnid": [[1]], "valid": [[2]], "tstid": [[999]]}, "names picture 999"),
        ],
    )
    def test_lists_of_matlab(self, held: Any, message: str, tmp_path: Path) -> None:
        cfg = made("flowers102", tmp_path)
        savemat(tmp_path / "flowers-102" / "setid.mat", held)
        assert message in error(cfg) and "setid.mat" in error(cfg)

    @pytest.mark.parametrize("content", [b"", b"\0" * 200, b"MATLAB 5.0 MAT-file" + b"x" * 300,
                                         b"\x89HDF\r\n\x1a\n" + b"\0" * 600])  # fmt: skip
    def test_what_is_no_file_of_matlab(self, content: bytes, tmp_path: Path) -> None:
        cfg = made("flowers102", tmp_path)
        (tmp_path / "flowers-102" / "setid.mat").write_bytes(content)
        assert "setid.mat" in error(cfg)

    def test_few_packed_bytes_are_not_unpacked_to_many(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cfg = made("flowers102", tmp_path)
        sets = {"trnid": [[1]], "valid": [[2]], "tstid": np.zeros((1, 10**6))}
        savemat(tmp_path / "flowers-102" / "setid.mat", sets, do_compression=True)
        assert (tmp_path / "flowers-102" / "setid.mat").stat().st_size < 10**5
        monkeypatch.setattr("tcpa_core.data._mat.MAX_BYTES", 2 * 10**6)
        assert "setid.mat is no MATLAB file, or damaged (a variable of more than" in error(cfg)
        monkeypatch.setattr("tcpa_core.data._mat.MAX_BYTES", 10**5)
        assert "a variable of shape (1, 1000000)" in error(cfg)

    def test_lists_name_the_line(self, tmp_path: Path) -> None:
        cfg = made("cub", tmp_path)
        file = tmp_path / "CUB_200_2011" / "image_class_labels.txt"
        lines = file.read_text().splitlines()
        for line, message in (
            ("3", ":3: a line must have 2 columns"),
            ("2 1", ":3: id '2' stands there twice"),
            ("77 1", "lacks picture '3' of images.txt"),
            ("3 9", "does not name class 9"),
        ):
            file.write_text("\n".join([*lines[:2], line, *lines[3:]]))
            assert message in error(cfg)

    def test_no_name_leaves_the_folder(self, tmp_path: Path) -> None:
        cfg = made("dtd", tmp_path)
        file = tmp_path / "dtd" / "dtd" / "labels" / "val1.txt"
        file.write_text(file.read_text() + "banded/../../../../secret.jpg\n")
        assert "val1.txt:13: image path must be relative" in error(cfg)


class TestSplits:
    @pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
    def test_first_four_fifths(self, name: str, tmp_path: Path) -> None:
        cfg = made(name, tmp_path, split="hta")
        train, val = (keys(cfg, split) for split in ("train", "val"))
        assert [*train, *val] == sorted([*train, *val]) and len(train) == 4 * len(val)

    @pytest.mark.parametrize("name", ["food101", "gtsrb"])
    def test_one_shuffle_cut_once(self, name: str, tmp_path: Path) -> None:
        cfg = made(name, tmp_path, split="hta")
        train, val = (keys(cfg, split) for split in ("train", "val"))
        count = len(train) + len(val)
        assert not set(train) & set(val) and len(train) == count * 4 // 5
        other = cfg.model_copy(update={"split_seed": 1})
        assert keys(other, "val") != val and len(keys(other, "val")) == len(val)

    @pytest.mark.parametrize("name", ["dtd", "flowers102"])
    def test_the_official_one(self, name: str, tmp_path: Path) -> None:
        cfg = made(name, tmp_path, split="hta")
        official = cfg.model_copy(update={"split": "official"})
        assert dataset_fingerprint(cfg) == dataset_fingerprint(official)

    @pytest.mark.parametrize("name", ["dtd", "flowers102", "aircraft"])
    def test_own_draws_from_train_and_val(self, name: str, tmp_path: Path) -> None:
        official = made(name, tmp_path)
        own = official.model_copy(update={"split": "own", "val_fraction": 0.25})
        first, second = listing(official), listing(own)
        both = {k for split in ("train", "val") for k in first.splits[split].keys}
        assert {k for split in ("train", "val") for k in second.splits[split].keys} == both
        assert second.counts["val"] == (2, 2, 2) and second.counts["train"] == (6, 6, 6)
        assert second.splits["test"].keys == first.splits["test"].keys
        label = {k: c for s in first.splits.values() for k, c in zip(s.keys, s.labels, strict=True)}
        for split in second.splits.values():
            assert [label[k] for k in split.keys] == list(split.labels)

    def test_own_keeps_tracks_together(self, tmp_path: Path) -> None:
        cfg = made("gtsrb", tmp_path, split="own")
        tracks = [{k.rpartition("_")[0] for k in keys(cfg, s)} for s in ("train", "val")]
        assert tracks[0] and tracks[1] and not tracks[0] & tracks[1]
        official = cfg.model_copy(update={"split": "official"})
        assert any("frames of 9 tracks" in n for n in load_dataset(official, 8).summary.notes)
        assert not any("tracks" in n for n in load_dataset(cfg, 8).summary.notes)

    def test_a_class_with_one_track_is_read_all_the_same(self, tmp_path: Path) -> None:
        cfg = made("gtsrb", tmp_path, split="own")
        for folder in (tmp_path / "gtsrb" / "GTSRB" / "Training").iterdir():
            for file in [*folder.glob("00001_*"), *folder.glob("00002_*")]:
                file.unlink()
        assert len(keys(cfg, "val")) == 3
        assert any("image by image" in note for note in listing(cfg).notes)

    @pytest.mark.parametrize("kind", ["vtab1k", "fgvc", "folder"])
    def test_own_is_for_every_kind(self, kind: str, tmp_path: Path) -> None:
        from tests.tcpa_core.data_layouts import make

        official = make(kind, tmp_path)
        own = official.model_copy(update={"split": "own", "val_fraction": 0.5})
        assert len(keys(own, "train")) + len(keys(own, "val")) == 9
        assert len(keys(own, "train")) != len(keys(official, "train"))

    def test_hta_of_a_set_that_is_none_of_its_ten(self, tmp_path: Path) -> None:
        cfg = made("pets", tmp_path, split="hta")
        assert any("says nothing of data.name='pets'" in note for note in listing(cfg).notes)

    @pytest.mark.parametrize("name", ["eurosat", "resisc45", "caltech101", "sun397"])
    def test_without_a_test_split_one_is_taken(self, name: str, tmp_path: Path) -> None:
        cfg = made(name, tmp_path)
        assert any("comes without a test split" in note for note in listing(cfg).notes)
        other = cfg.model_copy(update={"split_seed": 5})
        assert keys(other, "test") == keys(cfg, "test")


class TestListsOfVPT:
    """CUB, NABirds, Dogs and Cars: which of train are val stands in VPT's val.json."""

    FOLDERS = {"cub": "CUB_200_2011", "nabirds": "nabirds", "stanford_dogs": "Stanford-dogs",
               "stanford_cars": "Stanford-cars"}  # fmt: skip

    def lists(self, cfg: DataConfig, folder: Path) -> tuple[str, ...]:
        """Write the lists, as VPT has them; returns what is val."""
        found = listing(cfg.model_copy(update={"split": "official"}))
        train = [*found.splits["train"].keys, *found.splits["val"].keys]
        val = tuple(sorted(train)[::4])
        folder.mkdir(parents=True, exist_ok=True)
        rest = [key for key in train if key not in val]
        ids = {k: c + 1 for s in found.splits.values()
               for k, c in zip(s.keys, s.labels, strict=True)}  # fmt: skip
        for name, names in (("train", rest), ("val", val), ("test", found.splits["test"].keys)):
            (folder / f"{name}.json").write_text(json.dumps({key: ids[key] for key in names}))
        return val

    @pytest.mark.parametrize("name", FOLDERS)
    @pytest.mark.parametrize("place", ["beside", "given", "one of several"])
    def test_they_are_followed(self, name: str, place: str, tmp_path: Path) -> None:
        cfg = made(name, tmp_path / "set", split="hta")
        folder = tmp_path / "set" / UNPACKED.get(name, "")
        if place != "beside":
            cfg = cfg.model_copy(update={"splits_dir": str(tmp_path / "lists")})
            folder = tmp_path / "lists"
        if place == "one of several":
            folder /= self.FOLDERS[name]
        val = self.lists(cfg, folder)
        assert keys(cfg, "val") == tuple(k for k in self.train(cfg) if k in val)
        assert set(keys(cfg, "train")) == set(self.train(cfg)) - set(val)
        assert deviations(trial(cfg)) == ()

    def test_folders_above_may_differ(self, tmp_path: Path) -> None:
        """Lists of VPT beside a copy that has its folders twice."""
        cfg = made("cars, Kaggle", tmp_path, split="hta")
        val = self.lists(cfg, tmp_path)
        text = (tmp_path / "val.json").read_text()
        (tmp_path / "val.json").write_text(text.replace("cars_train/cars_train", "cars_train"))
        assert keys(cfg, "val") == val

    def train(self, cfg: DataConfig) -> list[str]:
        """All of the official train split, in its order."""
        kind = plugins.load(DATASETS, cfg.name)._KIND
        return list(kind.parts(kind._base(Path(cfg.root or ""))).splits["train"].keys)

    @pytest.mark.parametrize("name", FOLDERS)
    def test_without_them_a_tenth_is_taken_and_recorded(self, name: str, tmp_path: Path) -> None:
        cfg = made(name, tmp_path, split="hta")
        assert listing(cfg).counts["val"] == (1, 1, 1)
        said = deviations(trial(cfg))
        assert said == (
            "data.split=hta without VPT's val.json: val is a tenth of each class, by a hash",
        )
        assert f"{said[0]}." in listing(cfg).notes
        assert deviations(trial(cfg.model_copy(update={"split": "official"}))) == ()

    def test_lists_that_are_not_where_they_are_said_to_be(self, tmp_path: Path) -> None:
        cfg = made("cub", tmp_path / "set", split="hta", splits_dir=str(tmp_path / "lists"))
        assert "has no val.json" in error(cfg)
        (tmp_path / "lists").mkdir()
        assert "has no val.json" in error(cfg)

    def test_lists_of_another_copy(self, tmp_path: Path) -> None:
        cfg = made("cub", tmp_path, split="hta")
        (tmp_path / "val.json").write_text('{"200.Yellowthroat/x.jpg": 1}')
        assert "val.json names '200.Yellowthroat/x.jpg'" in error(cfg)

    def test_fgvc_reads_lists_apart_from_the_images(self, tmp_path: Path) -> None:
        cfg = made("cub", tmp_path / "sets", split="hta")
        root = tmp_path / "sets" / "CUB_200_2011"
        self.lists(cfg, tmp_path / "lists" / "CUB_200_2011")
        whole = DataConfig(name="fgvc", root=str(root), splits_dir=str(tmp_path / "lists"))
        direct = whole.model_copy(update={"splits_dir": str(tmp_path / "lists" / "CUB_200_2011")})
        assert dataset_fingerprint(whole.model_copy(update={"split": "hta"})) == (
            dataset_fingerprint(direct)
        )

    def test_fgvc_reads_lists_of_few_images(self, tmp_path: Path) -> None:
        from tests.tcpa_core.data_layouts import make

        cfg = make("fgvc", tmp_path)
        rows = json.loads((tmp_path / "train.json").read_text())
        (tmp_path / "train_0.5.json").write_text(json.dumps(dict([*rows.items()][:3])))
        few = cfg.model_copy(update={"train_list": "train_0.5.json"})
        assert keys(few, "train") == tuple([*rows][:3]) and keys(few, "val") == keys(cfg, "val")
        assert "train_0.3.json" in error(cfg.model_copy(update={"train_list": "train_0.3.json"}))

    @pytest.mark.parametrize("names", [("car_ims", "car_ims"), ("cars_train", "cars_test")])
    def test_fgvc_reads_both_copies_of_cars(self, names: tuple[str, str], tmp_path: Path) -> None:
        for offset, (split, folder) in enumerate(zip(
            ("train", "val", "test"), (names[0], *names), strict=True
        )):  # fmt: skip
            found = {f"{folder}/{100 * offset + i:06d}.jpg": i % 3 + 1 for i in range(6)}
            for i, key in enumerate(found):
                picture(tmp_path / key, 100 * offset + i)
            (tmp_path / f"{split}.json").write_text(json.dumps(found))
        assert listing(DataConfig(name="fgvc", root=str(tmp_path))).counts["test"] == (2, 2, 2)

    @pytest.mark.parametrize("lies", ["cars_train/cars_train/{}", "cars_train/{}"])
    def test_fgvc_finds_cars_in_folders_of_other_names(self, lies: str, tmp_path: Path) -> None:
        """Kaggle's copy has the folders twice; the numbers of car_ims have six digits."""
        told = "cars_train/{}" if lies.count("cars_train") == 2 else "car_ims/{}"
        for offset, split in enumerate(base.SPLITS):
            names = [f"{100 * offset + i:06d}.jpg" for i in range(6)]
            for i, name in enumerate(names):
                picture(tmp_path / lies.format(name), 100 * offset + i)
            rows = {told.format(name): i % 3 for i, name in enumerate(names)}
            (tmp_path / f"{split}.json").write_text(json.dumps(rows))
        assert keys(DataConfig(name="fgvc", root=str(tmp_path)), "val")[0] == (
            lies.format("000100.jpg")
        )

    def test_lists_of_one_copy_of_cars_beside_the_other(self, tmp_path: Path) -> None:
        cfg = made("stanford_cars", tmp_path)
        for split in base.SPLITS:
            rows = {f"car_ims/{split}{i}.jpg": i for i in range(3)}
            (tmp_path / "stanford_cars" / f"{split}.json").write_text(json.dumps(rows))
        root = f"{cfg.root}/stanford_cars"
        said = error(DataConfig(name="fgvc", root=root))
        assert "number the pictures otherwise" in said and "data.name=stanford_cars" in said


def trial(cfg: DataConfig) -> TrialConfig:
    given = {f"data.{key}": value for key, value in cfg.model_dump(exclude_defaults=True).items()}
    return TrialConfig.from_flat(given)


CHANGES: list[dict[str, Any]] = [
    {"val_fraction": 0.34}, {"split_seed": 3}, {"group": r"(.)\.\w+$|(.)$"}, {"split": "official"},
    {"split": "hta"}, {"split": "own"},
]  # fmt: skip


class TestIdle:
    @pytest.mark.parametrize("split", ["official", "hta", "own"])
    @pytest.mark.parametrize("layout", [*WRITERS, "cub with lists"])
    def test_equal_trials_have_equal_splits(self, layout: str, split: str, tmp_path: Path) -> None:
        """What is said to be idle changes nothing; `data.split` that changes nothing is idle."""
        cfg = made(layout.partition(" ")[0], tmp_path, split=split, val_fraction=0.5)
        if layout.endswith("lists"):
            TestListsOfVPT().lists(cfg, tmp_path)
        for change in CHANGES:
            other = cfg.model_copy(update=change)
            if trial(other).effective() == trial(cfg).effective():
                assert self.splits(other) == self.splits(cfg), change
            elif "split" in change:
                assert self.splits(other) != self.splits(cfg), change

    def splits(self, cfg: DataConfig) -> Any:
        return {name: (s.keys, s.labels) for name, s in listing(cfg).splits.items()}

    def test_where_the_lists_lie_is_no_other_trial(self, tmp_path: Path) -> None:
        cfg = made("cub", tmp_path / "set", split="hta")
        TestListsOfVPT().lists(cfg, tmp_path / "lists")
        shutil.copytree(tmp_path / "lists", tmp_path / "set", dirs_exist_ok=True)
        apart = cfg.model_copy(update={"splits_dir": str(tmp_path / "lists")})
        assert dataset_fingerprint(apart) == dataset_fingerprint(cfg)
        assert trial(apart).digest("d", "w") == trial(cfg).digest("d", "w")


class TestFewShot:
    def test_so_many_of_each_class(self, tmp_path: Path) -> None:
        cfg = made("cifar10", tmp_path)
        found = {k: keys(cfg.model_copy(update={"size_per_class": k}), "train") for k in (1, 2, 4)}
        assert [len(of) for of in found.values()] == [3, 6, 12]
        assert set(found[1]) < set(found[2]) < set(found[4]) < set(keys(cfg, "train"))
        few = cfg.model_copy(update={"size_per_class": 2})
        assert listing(few).counts["train"][:3] == (2, 2, 2)
        assert [keys(few, s) for s in ("val", "test")] == [keys(cfg, s) for s in ("val", "test")]
        assert keys(few.model_copy(update={"split": "hta", "split_seed": 4}), "train") != (
            keys(few.model_copy(update={"split": "hta"}), "train")
        )

    def test_classes_that_have_fewer_are_told(self, tmp_path: Path) -> None:
        few = made("pets", tmp_path, size_per_class=9)
        assert listing(few).counts["train"] == (3, 3, 3)
        assert "3 classes have fewer images than data.size_per_class." in listing(few).notes

    def test_its_seed_is_not_idle(self, tmp_path: Path) -> None:
        cfg = made("dtd", tmp_path, size_per_class=1)
        other = cfg.model_copy(update={"split_seed": 1})
        assert trial(cfg).effective() != trial(other).effective()


class TestTable:
    def test_kinds_and_keys(self) -> None:
        kinds = set(plugins.names(DATASETS))
        assert set(WRITERS) | {"pcam"} == set(PUBLISHED)
        for key, one in PUBLISHED.items():
            assert one.torchvision or one.hub or one.steps, key
            assert set(one.kinds) <= kinds, key
            assert one.kinds[0] == (key if key in kinds else "parquet")
            assert published_key(key) == key and "official" in one.splits
        folders = [name for one in PUBLISHED.values() for name in one.folders]
        assert len(set(folders)) == len(folders)
        assert published_key("uoft-cs/cifar100") == "cifar100"
        assert published_key("CUB_200_2011") == "cub" and published_key("mine") is None

    def test_sizes_are_those_of_the_specification(self, shared: Path) -> None:
        text = (shared / "specs" / "datasets.md").read_text()
        rows = re.findall(r"^\| ([A-Z].*?) \| ([\d /]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|",
                          text, re.MULTILINE)  # fmt: skip
        names = {"DTD": "dtd", "CUB-200-2011": "cub", "Stanford Dogs": "stanford_dogs",
                 "Oxford Flowers": "flowers102", "Food-101": "food101", "NABirds": "nabirds",
                 "CIFAR-100 / CIFAR-10": "cifar100", "GTSRB": "gtsrb", "SVHN": "svhn"}  # fmt: skip
        found = {names[row[0]]: row[1:] for row in rows if row[0] in names}
        assert set(found) == set(names.values())
        for key, (classes, *sizes) in found.items():
            assert PUBLISHED[key].classes == int(classes.partition("/")[0])
            assert PUBLISHED[key].splits["hta"] == tuple(int(n.replace(",", "")) for n in sizes)

    @pytest.mark.parametrize("key", PUBLISHED)
    def test_torchvision_has_the_class(self, key: str) -> None:
        import inspect

        from torchvision import datasets

        how = PUBLISHED[key].torchvision
        if how is not None:
            taken = inspect.signature(getattr(datasets, how.name)).parameters
            assert {"root", "download"} | {n for call in how.calls for n in call} <= set(taken)

    def test_a_copy_compressed_anew_is_told(self, tmp_path: Path) -> None:
        for i in range(18):
            split, kind = ("train", "val", "test")[i % 3], "ab"[i // 3 % 2]
            picture(tmp_path / "gtsrb" / split / kind / f"{i}.jpg", i)
        cfg = made("gtsrb, Kaggle", tmp_path / "own")
        assert not any("anew" in note for note in listing(cfg).notes)  # PNG keeps every value
        for file in sorted((tmp_path / "own" / "Train").rglob("*.png")):
            picture(file.with_suffix(".jpg"), hash(file.name) % 1000)
            file.unlink()
        said = [note for note in listing(cfg).notes if "anew" in note]
        assert said == ["pictures of this copy are JPEG, those of German Traffic Signs (GTSRB) are "
                        "PPM: they were compressed anew."]  # fmt: skip

    @pytest.mark.parametrize("place", ["cifar100", "cifar-100/images", "datasets--uoft-cs--cifar100"
                                       "/snapshots/" + "0a" * 20])  # fmt: skip
    def test_a_general_layout_is_known_by_its_folder(self, place: str, tmp_path: Path) -> None:
        for i in range(12):
            split, kind = ("train", "test")[i % 2], "ab"[i // 2 % 2]
            picture(tmp_path / place / split / kind / f"{i}.jpg", i)
        cfg = DataConfig(name="folder", root=str(tmp_path / place))
        first, second = listing(cfg).notes
        assert first == ("this copy has pictures of 2 classes, 6 in train, 6 in test; CIFAR-100 "
                         "has 100, 50,000 in train, 10,000 in test.")  # fmt: skip
        assert second == ("pictures of this copy are JPEG, those of CIFAR-100 are in arrays of "
                          "bytes: they were compressed anew.")  # fmt: skip
        (tmp_path / place).rename(tmp_path / "cars")  # may be any cars
        assert listing(DataConfig(name="folder", root=str(tmp_path / "cars"))).notes == ()

    @pytest.mark.parametrize(("task", "told"), [("cifar", True), ("svhn", True), ("dtd", False)])
    def test_a_task_of_vtab_compressed_anew(self, task: str, told: bool, tmp_path: Path) -> None:
        for split in ("train800", "val200", "test"):
            lines = []
            for i in range(4):
                picture(tmp_path / task / "images" / split / f"{i}.jpg", i)
                lines.append(f"images/{split}/{i}.jpg {i % 2}")
            (tmp_path / task / f"{split}.txt").write_text("\n".join(lines))
        notes = listing(DataConfig(name="vtab1k", root=str(tmp_path / task))).notes
        assert any(f"those of VTAB's {task} are in arrays" in note for note in notes) == told
