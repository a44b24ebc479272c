"""Lists, and files that hold many images: every layout gives the same pictures and classes."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tcpa_core.data import _hashes
from tcpa_core.data.base import (
    SPLITS,
    Dataset,
    dataset_fingerprint,
    dataset_summary,
    load_dataset,
)
from tcpa_core.settings import DataConfig
from tests.tcpa_core.packed_layouts import LAYOUTS, SIZES, Layout, pixels, rows_of

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
    others = [note for note in notes if HELD_OUT not in note]
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
