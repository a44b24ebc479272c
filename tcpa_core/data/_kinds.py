"""Which kind of data set reads a folder: what an error adds when data.root has another layout."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tcpa_core import plugins
from tcpa_core.errors import TcpaError
from tcpa_core.settings import DATASETS, DataConfig

GENERAL = ("folder", "imagelist")
"""Class folders and lists stand inside other layouts too: named where no other kind fits."""
_TO_PARQUET = "write Parquet files for data.name=parquet (datasets.Dataset.to_parquet)"
STORES: Mapping[tuple[str, ...], tuple[str, str]] = {
    (".h5", ".hdf5"): (
        "an HDF5 file",
        "save its pictures as PNG in class folders, or its arrays for data.name=npz; PatchCamelyon "
        "is at huggingface.co/datasets/1aurent/PatchCamelyon as Parquet files",
    ),
    (".arrow",): ("an Arrow file of datasets.save_to_disk", _TO_PARQUET),
    (".mdb", ".lmdb"): ("an LMDB database", "save its pictures as files in class folders"),
    (".rec",): ("a RecordIO file of MXNet", "save its pictures as files in class folders"),
    (".beton",): ("a file of FFCV", "take the data set that it was written from"),
    ("data_batch_1.bin", "train.bin"): (
        "a file of CIFAR's binary version",
        "take the version for Python, cifar-10-python.tar.gz or cifar-100-python.tar.gz",
    ),
    ("digitstruct.mat",): (
        "the list of SVHN's whole numbers (format 1)",
        "take the cropped digits, train_32x32.mat and test_32x32.mat",
    ),
    (".zip", ".tar.gz", ".tgz", ".rar", ".7z"): ("an archive", "unpack it there"),
}  # fmt: skip
"""Files that hold whole data sets in ways that no kind reads, and what to do with them."""
MAX_FOLDERS = 50
"""Subfolders that are looked into, of the root and of each of them: a tree of classes has many."""
MAX_BESIDE = 1_000
"""Folders beside data.root that are looked into, for the few kinds that seem to fit above it."""


def kinds_of(root: Path) -> tuple[str, ...]:
    """The kinds whose layout a folder has, those made for one data set before the general ones."""
    found = [name for name in plugins.names(DATASETS) if _recognises(name, root)]
    special = tuple(name for name in found if name not in GENERAL)
    return special or tuple(found)


def kind_hint(cfg: DataConfig) -> str:
    """What to set so that data.root is read, as a sentence to append to an error.

    "" where the root has the layout of data.name and of no more special kind, so that the error
    means what it says, and where no kind has anything to do with it.
    """
    root = Path(os.path.expanduser(cfg.root or ""))
    if cfg.root is None or not os.path.isdir(root):
        return ""
    root = root.absolute()
    own = next((near for near in _nearby(root) if _covers(cfg.name, near[0], root)), None)
    for place, where in _nearby(root):
        kinds = tuple(kind for kind in kinds_of(place) if _covers(kind, place, root))
        if own and set(kinds) <= set(GENERAL):  # what was asked for is near, this may be part of it
            (place, where), kinds = own, (cfg.name,)
        if cfg.name in kinds and not where:
            return ""
        if kinds:
            names = " or ".join(f"data.name={name}" for name in kinds if name != cfg.name)
            settings = [names] if cfg.name not in kinds else []
            settings += [f"data.root={str(place)!r}"] if where else []
            return (
                f" {place if where else 'This folder'}{where} has the layout of "
                f"{' or '.join(map(repr, kinds))}: set {' and '.join(settings)}."
            )
    return _store_hint(root)


def _store_hint(root: Path) -> str:
    """What to do with a store that no kind reads, in a folder or one level below it."""
    for place in (root, *_subfolders(root)):
        try:
            names = sorted(entry.name for entry in os.scandir(place) if entry.is_file())
        except OSError:
            continue
        for name in names:
            for suffixes, (what, advice) in STORES.items():
                if name.lower().endswith(suffixes):
                    return f" {place / name} is {what}, which no kind reads: {advice}."
    return ""


def _recognises(name: str, root: Path) -> bool:
    try:
        recognises = getattr(plugins.load(DATASETS, name), "recognises", None)
        return recognises is not None and bool(recognises(root))
    except (TcpaError, OSError):  # a hint must not hide the error that it explains
        return False


def _covers(name: str, place: Path, root: Path) -> bool:
    """Whether a folder has a kind's layout, and not in another folder than the one asked for.

    Above data.root other data sets lie beside it, which their kinds find from there as well.
    """
    if not _recognises(name, place):
        return False
    above = place in root.parents
    beside = [one for one in _subfolders(place, MAX_BESIDE) if one not in (root, *root.parents)]
    return not (above and any(_recognises(name, one) for one in beside))


def _nearby(root: Path) -> Iterator[tuple[Path, str]]:
    """The folder, those one and two levels below it, and the two above it."""
    yield root, ""
    below = _subfolders(root)
    for place in below:
        yield place, ", one level down,"
    yield root.parent, ", one level up,"
    for middle in below:
        for place in _subfolders(middle):
            yield place, ", two levels down,"
    yield root.parent.parent, ", two levels up,"


def _subfolders(folder: Path, most: int = MAX_FOLDERS) -> list[Path]:
    try:
        names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
    except OSError:
        return []
    return [folder / name for name in names[:most]]
