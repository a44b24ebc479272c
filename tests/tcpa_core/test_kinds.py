"""An error says which kind reads the folder that it was given."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tcpa_core.data.base import dataset_summary
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig
from tests.tcpa_core.data_layouts import LAYOUTS, PACKED, make
from tests.tcpa_core.published_layouts import VARIANTS, WRITERS

KINDS = [*LAYOUTS, *PACKED]
READS_BOTH = {("vtab1k", "imagelist"), ("fgvc", "imagelist")}
"""Lists are lists."""
PAIRS = {(kind, other) for kind in KINDS for other in KINDS if other != kind} - READS_BOTH


def _error(name: str, root: Path, tmp_path: Path) -> str:
    with pytest.raises(DataError) as caught:
        dataset_summary(DataConfig(name=name, root=str(root)), cache_dir=tmp_path / "cache")
    return str(caught.value)


@pytest.mark.parametrize(("kind", "other"), sorted(PAIRS))
def test_another_kind_names_the_one_that_reads_it(kind: str, other: str, tmp_path: Path) -> None:
    make(kind, tmp_path / "set")
    message = _error(other, tmp_path / "set", tmp_path)
    assert message.endswith(f"This folder has the layout of {kind!r}: set data.name={kind}.")


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize(("up", "words"), [(1, "one level down"), (2, "two levels down")])
def test_a_root_above_is_told(kind: str, up: int, words: str, tmp_path: Path) -> None:
    right = tmp_path / "data" / "sets" / "mine" / "one"
    make(kind, right)
    message = _error(kind, right.parents[up - 1], tmp_path)
    assert f"{right}, {words}, has the layout of {kind!r}: set data.root={str(right)!r}." in message


@pytest.mark.parametrize("kind", ["fgvc", "folder"])
def test_a_root_below_is_told(kind: str, tmp_path: Path) -> None:
    cfg = make(kind, tmp_path / "one")
    below = next(p for p in sorted((tmp_path / "one").iterdir()) if p.is_dir())
    message = _error(kind, below, tmp_path)
    assert f"one level up, has the layout of {kind!r}: set data.root={cfg.root!r}." in message


@pytest.mark.parametrize("kind", ["svhn", "cifar10", "stanford_cars"])
@pytest.mark.parametrize("other", ["folder", "svhn", "stanford_cars"])
def test_a_data_set_beside_the_root_is_not_meant(kind: str, other: str, tmp_path: Path) -> None:
    """A folder of many data sets has the layout of each; the one asked for is empty."""
    sets = tmp_path / "sets"
    (sets / kind).mkdir(parents=True)
    WRITERS[kind](sets / kind if kind == "svhn" else sets)
    (sets / "mine").mkdir()
    assert "layout" not in _error(other, sets / "mine", tmp_path)


def test_an_error_of_the_right_kind_stands_alone(tmp_path: Path) -> None:
    make("folder", tmp_path / "set")
    (tmp_path / "set/val/class 0/0.PNG").unlink()
    assert "layout" not in _error("folder", tmp_path / "set", tmp_path)


def test_a_folder_that_no_kind_reads_is_left_at_that(tmp_path: Path) -> None:
    (tmp_path / "set/deeper").mkdir(parents=True)
    assert "layout" not in _error("folder", tmp_path / "set/deeper", tmp_path / "elsewhere")


PUBLISHED = {name: (name, write) for name, write in WRITERS.items()} | dict(VARIANTS)


@pytest.mark.parametrize("other", ["folder", "imagelist", "parquet", "vtab1k"])
@pytest.mark.parametrize("layout", PUBLISHED)
def test_what_a_distributor_unpacks_is_told(layout: str, other: str, tmp_path: Path) -> None:
    kind, write_layout = PUBLISHED[layout]
    root = tmp_path / "set"
    root.mkdir()
    write_layout(root)
    assert f"has the layout of {kind!r}: set data.name={kind}." in _error(other, root, tmp_path)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("pcam/camelyonpatch_level_2_split_train_x.h5", "HDF5 file.*1aurent/PatchCamelyon"),
        ("train/data-00000-of-00001.arrow", "datasets.save_to_disk.*data.name=parquet"),
        ("data.mdb", "LMDB database"),
        ("NWPU-RESISC45.rar", "an archive.*unpack it there"),
        ("cifar-10-batches-bin/data_batch_1.bin", "binary version.*cifar-10-python.tar.gz"),
        ("train/digitStruct.mat", "format 1.*train_32x32.mat"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "parquet", "vtab1k"])
def test_a_store_that_no_kind_reads_is_named(
    kind: str, file: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "set" / file).parent.mkdir(parents=True)
    (tmp_path / "set" / file).write_bytes(b"x")
    assert re.search(f"{Path(file).name}.* is .*{words}", _error(kind, tmp_path / "set", tmp_path))


def test_a_folder_is_listed_a_few_times_however_many_names_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network's disk each listing is a trip: some thousand names of folders are known."""
    make("folder", tmp_path / "set")
    listings: Counter[str] = Counter()
    scandir = os.scandir

    def counted(path: Any) -> Any:
        listings[os.path.normpath(path)] += 1
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    _error("segfolder", tmp_path / "set", tmp_path)
    assert max(listings.values()) < 3 * len(KINDS)
