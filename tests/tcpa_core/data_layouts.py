"""Tiny data sets in each layout that needs files, for the data tests: 3 classes, 12 x 9 pixels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tcpa_core.settings import DataConfig
from tests.tcpa_core.packed_layouts import (
    encoded,
    example,
    number,
    pixels,
    samples,
    table,
    tar,
    tfrecord,
    write,
)

SIZES = {"train": 6, "val": 3, "test": 3}
SIDE = 12


def picture(path: Path, seed: int) -> None:
    """Write a random RGB image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def vtab1k(root: Path) -> DataConfig:
    lists = {"train": "train800", "val": "val200", "test": "test"}
    union = []
    for offset, (split, name) in enumerate(lists.items()):
        lines = []
        for i in range(SIZES[split]):
            key = f"images/{name}/{i:06d}.png"
            picture(root / key, 100 * offset + i)
            lines.append(f"{key} {i % 3}")
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
        union += lines if split != "test" else []
    (root / "train800val200.txt").write_text("\n".join(union))
    return DataConfig(name="vtab1k", root=str(root))


def folder(root: Path) -> DataConfig:
    for offset, (split, size) in enumerate(SIZES.items()):
        for i in range(size):
            picture(root / split / f"class {i % 3}" / f"{i}.PNG", 100 * offset + i)
    return DataConfig(name="folder", root=str(root))


def segfolder(root: Path) -> DataConfig:
    for offset, (split, size) in enumerate(SIZES.items()):
        for i in range(size):
            picture(root / split / f"{split}_{i}.png", 100 * offset + i)
            mask(root / f"{split}annot" / f"{split}_{i}.png", 100 * offset + i)
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    return DataConfig(name="segfolder", root=str(root))


def mask(path: Path, seed: int) -> None:
    """Write a random mask of three classes, 3 for none, for `picture`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 4, (SIDE, 9), dtype=np.uint8)
    Image.fromarray(values).save(path)


def fgvc(root: Path) -> DataConfig:
    for offset, (split, size) in enumerate(SIZES.items()):
        rows = {f"{i % 3}/{split}_{i}.png": 10 * (i % 3) + 5 for i in range(size)}
        for i, key in enumerate(rows):
            picture(root / "images" / key, 100 * offset + i)
        (root / f"{split}.json").write_text(json.dumps(rows))
    return DataConfig(name="fgvc", root=str(root))


def parquet(root: Path) -> DataConfig:
    for split in SIZES:
        write(root / "data" / f"{split}-00000-of-00001.parquet", table(_rows(split)))
    return DataConfig(name="parquet", root=str(root))


def imagelist(root: Path) -> DataConfig:
    for offset, (split, size) in enumerate(SIZES.items()):
        lines = [f"images/{split}_{i}.png,{i % 3}" for i in range(size)]
        for i in range(size):
            picture(root / f"images/{split}_{i}.png", 100 * offset + i)
        (root / f"{split}.csv").write_text("\n".join(["image,label", *lines]))
    return DataConfig(name="imagelist", root=str(root))


def _rows(split: str) -> list[tuple[int, int]]:
    return [(100 * list(SIZES).index(split) + i, i % 3) for i in range(SIZES[split])]


def webdataset(root: Path) -> DataConfig:
    for split in SIZES:
        tar(root / f"{split}-000000.tar", samples(_rows(split), "cls", number))
    return DataConfig(name="webdataset", root=str(root))


def npz(root: Path) -> DataConfig:
    found = {}
    for split in SIZES:
        found[f"x_{split}"] = np.stack([pixels(seed) for seed, _ in _rows(split)])
        found[f"y_{split}"] = np.array([label for _, label in _rows(split)])
    np.savez_compressed(root / "mine.npz", **found)
    return DataConfig(name="npz", root=str(root))


def tfds(root: Path) -> DataConfig:
    for split in SIZES:
        records = [example({"image": encoded(seed), "label": n}) for seed, n in _rows(split)]
        tfrecord(root / f"mine-{split}.tfrecord-00000-of-00001", records)
    return DataConfig(name="tfds", root=str(root))


LAYOUTS: dict[str, Callable[[Path], DataConfig]] = {
    "vtab1k": vtab1k,
    "folder": folder,
    "fgvc": fgvc,
    "imagelist": imagelist,
    "segfolder": segfolder,
}
"""Kinds whose images are files of their own."""

LABELLED = sorted(LAYOUTS.keys() - {"segfolder"})
"""Of these, those that have a class for each picture."""

PACKED: dict[str, Callable[[Path], DataConfig]] = {
    "parquet": parquet,
    "tfds": tfds,
    "webdataset": webdataset,
    "npz": npz,
}
"""Kinds whose images lie inside larger files."""


def make(name: str, root: Path) -> DataConfig:
    """A small data set of a kind; kinds without an entry above need no root."""
    from tests.tcpa_core.published_layouts import WRITERS  # which draws its pictures from here

    root.mkdir(parents=True, exist_ok=True)
    if name in WRITERS:
        WRITERS[name](root)
        return DataConfig(name=name, root=str(root))
    makers = LAYOUTS | PACKED
    return makers[name](root) if name in makers else DataConfig(name=name)
