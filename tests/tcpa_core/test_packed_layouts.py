"""Lists, and files that hold many images: every layout gives the same pictures and classes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tcpa_core.data import _hashes, vtab1k
from tcpa_core.data.base import (
    SPLITS,
    Dataset,
    dataset_fingerprint,
    dataset_summary,
    load_dataset,
)
from tcpa_core.settings import DataConfig
from tests.tcpa_core.packed_layouts import (
    LAYOUTS,
    SIZES,
    TWO,
    Layout,
    pixels,
    plain_bools,
    rows_of,
    vtab,
    write,
)

HELD_OUT = "no test split with labels"


def config(layout: Layout, tmp_path: Path) -> DataConfig:
    """The data set of a layout, written below tmp_path."""
    root = tmp_path / "set"
    root.mkdir()
    layout.make(root)
    return DataConfig(name=layout.kind, root=str(root / layout.root), **layout.settings)


def _pictures(dataset: Dataset) -> dict[str, dict[bytes, str]]:
    """Class name of each picture by its pixels, by split."""
    return {
        name: {
            split.images.image(i).tobytes(): dataset.class_names[label]
            for i, label in enumerate(split.labels)
        }
        for name, split in dataset.splits.items()
    }


def _expected(split: str, names: tuple[str, ...]) -> dict[bytes, str]:
    return {pixels(seed).tobytes(): names[label] for seed, label in rows_of(split)}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layout_is_read_as_it_is(layout: Layout, tmp_path: Path) -> None:
    cfg = config(layout, tmp_path)
    # At the pictures' own size: 12 x 9 pixels stay what they are.
    cfg = cfg.model_copy(update={"resize": "short_side", "resize_to": 9})
    dataset = load_dataset(cfg, 9, cache_dir=tmp_path / "cache")
    assert dataset.class_names == layout.names
    found = _pictures(dataset)
    for split in layout.splits:
        if split != "train":
            assert found[split] == _expected(split, layout.names)
    drawn = {s: found[s] for s in SPLITS if s == "train" or s not in layout.splits}
    assert sum(map(len, drawn.values())) == SIZES["train"]
    union: dict[bytes, str] = {}
    for part in drawn.values():
        assert part, "a drawn split has pictures"
        union |= part
    assert union == _expected("train", layout.names)
    notes = [note for note in dataset.summary.notes if "has no image of" not in note]
    assert any(HELD_OUT in note for note in notes) == ("test" not in layout.splits)
    # Folders of some are named after a published set, of which these are miniatures.
    said = (HELD_OUT, "this copy has pictures of")
    others = [note for note in notes if not any(text in note for text in said)]
    if layout.notes:
        assert any(re.search(layout.notes, note) for note in others), others
    else:
        assert not others


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_second_look_reads_no_image(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(layout, tmp_path)
    for path in tmp_path.rglob("*"):  # older than the clock's tick, so that it is remembered
        if path.is_file() and not path.is_symlink():
            os.utime(path, ns=(10**18, 10**18))
    monkeypatch.setattr(_hashes, "RACY_NS", -(10**12))
    cache = tmp_path / "cache"
    first = dataset_fingerprint(cfg, cache_dir=cache)
    monkeypatch.setattr(_hashes, "content", None)  # would fail if it were asked
    assert dataset_fingerprint(cfg, cache_dir=cache) == first


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_another_folder_and_thread_order_change_nothing(layout: Layout, tmp_path: Path) -> None:
    prints = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        cfg = config(layout, tmp_path / name)
        prints.add(dataset_fingerprint(cfg, cache_dir=tmp_path / f"cache {name}"))
    assert len(prints) == 1


def test_seeds_draw_val_but_never_test(tmp_path: Path) -> None:
    layout = LAYOUTS["parquet, one file"]
    cfg = config(layout, tmp_path)
    drawn: dict[str, set[tuple[str, ...]]] = {"val": set(), "test": set()}
    for seed in range(6):
        changed = cfg.model_copy(update={"split_seed": seed, "val_fraction": 0.3})
        dataset = load_dataset(changed, 9, cache_dir=tmp_path / "cache")
        for split, seen in drawn.items():
            seen.add(dataset.splits[split].paths)
    assert len(drawn["val"]) > 1
    assert len(drawn["test"]) == 1


def test_a_changed_container_is_noticed(tmp_path: Path) -> None:
    cfg = config(LAYOUTS["parquet, one file"], tmp_path)
    first = dataset_summary(cfg, cache_dir=tmp_path / "cache")
    path = tmp_path / "set/everything.parquet"
    from tests.tcpa_core.packed_layouts import class_label, table, write

    write(
        path, table([(seed + 1, label) for seed, label in rows_of("train")], metadata=class_label())
    )
    second = dataset_summary(cfg, cache_dir=tmp_path / "cache")
    assert first.fingerprint != second.fingerprint
    assert np.array_equal(first.counts["train"], second.counts["train"])


@pytest.mark.parametrize("above", ["parquet, data/, shards", "parquet, plain_text/"])
def test_a_copy_is_known_from_any_folder(above: str, tmp_path: Path) -> None:
    cfg = config(LAYOUTS[above], tmp_path)
    inside = next(p for p in sorted((tmp_path / "set").iterdir()) if p.is_dir())
    below = cfg.model_copy(update={"root": str(inside)})
    one, other = (dataset_summary(c, cache_dir=tmp_path / "cache") for c in (cfg, below))
    assert one.fingerprint == other.fingerprint
    assert one.name == other.name == "parquet set"


def test_two_classes_may_be_no_and_yes(tmp_path: Path) -> None:
    plain_bools(tmp_path / "set")
    cfg = DataConfig(name="parquet", root=str(tmp_path / "set"))
    assert dataset_summary(cfg, cache_dir=tmp_path / "cache").class_names == ("False", "True")


PEAK = """
import sys
import pyarrow as pa
from tcpa_core.data import parquet
from tcpa_core.settings import DataConfig
train = parquet.read(DataConfig(name="parquet", root=sys.argv[1])).splits["train"]
assert sum(len(train.read(i)) for i in range(len(train.keys))) > 40e6
print(pa.default_memory_pool().max_memory())
"""


def test_memory_does_not_grow_with_a_row_group(tmp_path: Path) -> None:
    """64 MB of images in one row group: a file that pandas writes is one."""
    noise = np.random.default_rng(0)
    rows = [noise.bytes(10_000) for _ in range(6400)]
    one = pa.table({"image": pa.array(rows), "label": pa.array([i % 3 for i in range(6400)])})
    write(tmp_path / "train.parquet", one, group=6400)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 48e6


TASKS_BY_NAME = {
    "cifar": "cifar cifar100 cifar_100 vtab-cifar(num_classes=100) vtab-cifar100 wds_vtab-cifar100",
    "caltech101": "caltech101 caltech_102 vtab-caltech101",
    "clevr_count": 'clevr_count vtab-clevr(task="count_all") clevr_count_8 vtab-clevr_count_all',
    "clevr_dist": 'clevr(task="closest_object_distance") vtab-clevr_closest_object_distance',
    "diabetic_retinopathy": 'diabetic_retinopathy(config="btgraham-300") diabetic_retinopathy_5',
    "dmlab": "dmlab vtab-dmlab dmlab_6",
    "dsprites_loc": 'dsprites(predicted_attribute="label_x_position",num_classes=16) dsprites_loc',
    "dsprites_ori": 'dsprites(predicted_attribute="label_orientation",num_classes=16)',
    "dtd": "dtd dtd_47 vtab-dtd",
    "eurosat": "eurosat eurosat_10",
    "kitti": 'kitti(task="closest_vehicle_distance") kitti kitti_closest_vehicle_distance',
    "oxford_flowers102": "oxford_flowers102 oxford_flowers_102 flowers102 vtab-flowers",
    "oxford_iiit_pet": "oxford_iiit_pet pets oxford_iiit_pets_37",
    "patch_camelyon": "patch_camelyon pcam patch_camelyon_2",
    "resisc45": "resisc45 resisc_45",
    "smallnorb_azi": 'smallnorb(predicted_attribute="label_azimuth") smallnorb_azi_18',
    "smallnorb_ele": 'smallnorb(predicted_attribute="label_elevation") smallnorb_label_elevation',
    "sun397": "sun397 sun_397",
    "svhn": "svhn svhn_10",
}


@pytest.mark.parametrize("task", vtab1k.TASKS)
def test_tasks_are_known_by_all_their_names(task: str, tmp_path: Path) -> None:
    for name in TASKS_BY_NAME[task].split():
        assert vtab1k.task_of(tmp_path / name) == task


def test_a_link_gives_the_task_its_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "cifar").symlink_to("real")
    (tmp_path / "mine").symlink_to("cifar")
    (tmp_path / "svhn").mkdir()
    (tmp_path / "current").symlink_to("svhn")
    assert vtab1k.task_of(tmp_path / "cifar") == "cifar"
    assert vtab1k.task_of(tmp_path / "current") == "svhn"
    assert vtab1k.task_of(tmp_path / "mine") is None


@pytest.mark.parametrize("name", ["cifar10", "cifar(num_classes=10)", "clevr", "pet_store", "mine"])
def test_other_names_are_no_tasks(name: str, tmp_path: Path) -> None:
    assert vtab1k.task_of(tmp_path / name) is None


def test_vtab_of_two_lists_alone(tmp_path: Path) -> None:
    """train800val200.txt and test.txt: the last fifth of the union is val, as VTAB joins them."""
    vtab(tmp_path / "set", TWO)
    cfg = DataConfig(name="vtab1k", root=str(tmp_path / "set"))
    dataset = load_dataset(cfg, 9, cache_dir=tmp_path / "cache")
    paths = {name: split.paths for name, split in dataset.splits.items()}
    union = [f"images/train800val200/{i:06d}.jpg" for i in range(18)]
    assert [*paths["train"], *paths["val"]] == union
    assert len(paths["val"]) == 3
    assert [note.partition(";")[0] for note in dataset.summary.notes[:2]] == [
        "train800.txt is missing",
        "val200.txt is missing",
    ]
