"""Class folders as torchvision's ImageFolder reads them: {train,val,test}/<class>/<file>.

`data.root` holds the three folders. The class index is the rank of the sorted folder name; all
splits must have the same class folders, none of them empty. Images may lie deeper inside a class
folder. Where val/ is absent, `data.val_fraction` of each class of train is taken for it, drawn with
`data.split_seed`, in whole groups where `data.group` finds them.

Hidden files and folders (".DS_Store") and the marks of desktops (Thumbs.db, desktop.ini) are passed
over. ImageFolder also passes over every other file that does not end like an image; here that is an
error, so that nothing is left out unseen.

Links are followed, to files and to folders and wherever they point: class folders are often made of
links. A folder that is reached twice within one split is an error, as its images would count twice;
that also ends a walk along links in a circle. What a link shows is only ever decoded as an image.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from tcpa_core.data.base import (
    SPLITS,
    Listing,
    SplitListing,
    check_suffix,
    draw_val,
    need_root,
    other_spelling,
)
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

MAX_DEPTH = 32
"""Folders below a split: more is a mistake or a trap."""
IGNORED = ("Thumbs.db", "desktop.ini")
OTHER_NAMES_OF_VAL = ("valid", "validation", "dev", "eval")

Classes = dict[str, list[str]]
"""Class folder -> keys of its images, both sorted."""


def draws_val(cfg: DataConfig) -> bool:
    """Whether val is split off here: where there is no folder of it."""
    return not os.path.isdir(os.path.join(os.path.expanduser(cfg.root or ""), "val"))


def recognises(root: Path) -> bool:
    """Whether a folder has the layout."""
    return all(os.path.isdir(root / name) for name in ("train", "test"))


def read(cfg: DataConfig) -> Listing:
    """List the class folders.

    Raises:
        ConfigError: data.root is not set.
        DataError: A split is missing, class folders differ or are empty, or a file is out of place.
    """
    root = need_root(cfg)
    _check_splits(root)
    found = {name: _walk(root, name) for name in SPLITS if (root / name).is_dir()}
    train = found["train"]
    for name, classes in found.items():
        _check_same_classes(root, name, train, classes)
    drawn = "val" not in found
    if drawn:
        found |= _split_train(root, train, cfg)
    names = tuple(train)
    return Listing(
        root=root,
        class_names=names,
        class_source="the class folders of train/",
        splits={
            split: SplitListing(
                keys=tuple(key for keys in classes.values() for key in keys),
                labels=tuple(i for i, keys in enumerate(classes.values()) for _ in keys),
                source=f"{split}/" if (root / split).is_dir() else "train/",
            )
            for split, classes in found.items()
        },
        drawn=drawn,
    )


def _check_splits(root: Path) -> None:
    for name in ("train", "test"):
        if not (root / name).is_dir():
            raise DataError(
                f"folder {name}/ is missing below {root.absolute()}; data.root must hold train/, "
                f"test/ and, if there is one, val/, each with one folder per class."
            )
    other = next((name for name in OTHER_NAMES_OF_VAL if (root / name).is_dir()), None)
    if other and not (root / "val").is_dir():
        raise DataError(
            f"{root.absolute()} has {other}/ but no val/; rename it to val/, or move it away to "
            f"split val off from train/."
        )


def _walk(root: Path, split: str) -> Classes:
    """Images by class folder."""
    classes: Classes = {}
    seen: dict[tuple[int, int], str] = {}
    for folder in _visible(root / split):
        if not folder.is_dir():
            raise DataError(
                f"{folder.path} lies beside the class folders of {split}/; move it into one or "
                f"away."
            )
        classes[folder.name] = list(_files(folder, f"{split}/{folder.name}", seen, root))
    return classes


def _files(
    folder: os.DirEntry[str], key: str, seen: dict[tuple[int, int], str], root: Path
) -> Iterator[str]:
    """Keys of all files below a folder, sorted; `seen` has the folders of the split so far."""
    about = folder.stat()
    first = seen.setdefault((about.st_dev, about.st_ino), key)
    if first != key or key.count("/") > MAX_DEPTH:
        why = f"the same folder as {first}" if first != key else f"deeper than {MAX_DEPTH} folders"
        raise DataError(
            f"{key!r} is {why}, below {root.absolute()}; each image may be in one split, once. "
            "Remove the link or move the images up."
        )
    for entry in _visible(Path(folder.path)):
        name = f"{key}/{entry.name}"
        if entry.is_dir():
            yield from _files(entry, name, seen, root)
        else:
            check_suffix(name, f"{key.partition('/')[0]}/", str(root))
            yield name


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as err:
        raise DataError(
            f"folder {folder} cannot be read: {err.strerror}; check its rights."
        ) from err
    return [e for e in entries if not e.name.startswith(".") and e.name not in IGNORED]


def _check_same_classes(root: Path, split: str, train: Classes, classes: Classes) -> None:
    lacking, extra = sorted(train.keys() - classes), sorted(classes.keys() - train)
    if lacking or extra:
        raise DataError(
            f"class folders of {split}/ differ from those of train/ below {root.absolute()}: "
            f"{len(lacking)} lacking {lacking[:3]}, {len(extra)} more {extra[:3]}"
            f"{other_spelling(lacking, extra)}; all splits must have the same classes."
        )
    empty = next((name for name, keys in classes.items() if not keys), None)
    if empty is not None:
        raise DataError(
            f"class folder {root / split / empty} has no images; fill it, or remove the class "
            f"from all splits."
        )


def _split_train(root: Path, train: Classes, cfg: DataConfig) -> dict[str, Classes]:
    lone = next((name for name, keys in train.items() if len(keys) < 2), None)
    if lone is not None:
        raise DataError(
            f"class folder {root / 'train' / lone} has one image, too few to split val off; "
            f"add images or a val/ folder."
        )
    keys = [key for of_class in train.values() for key in of_class]
    labels = [label for label, of_class in enumerate(train.values()) for _ in of_class]
    val = {keys[i] for i in draw_val(keys, labels, cfg)}
    return {
        "train": {name: [k for k in found if k not in val] for name, found in train.items()},
        "val": {name: [k for k in found if k in val] for name, found in train.items()},
    }
