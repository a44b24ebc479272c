"""Class folders as torchvision's ImageFolder reads them: {train,val,test}/<class>/<file>.

`data.root` holds the folders, in upper or lower case; val may be called valid, validation, dev or
eval. The class index is the rank of the sorted folder name; all splits must have the same class
folders, none of them empty. Images may lie deeper inside a class folder. Where there is no val,
`data.val_fraction` of each class of train is taken for it, drawn with `data.split_seed`, in whole
groups where `data.group` finds them.

Where there is no test, or one without class folders, a fifth of train is held out as test, which a
note says; so does a root that holds the class folders themselves, without splits.

Hidden files and folders (".DS_Store") and the marks of desktops (Thumbs.db, desktop.ini) are passed
over. ImageFolder also passes over every other file that does not end like an image; here that is an
error, so that nothing is left out unseen.

Links are followed, to files and to folders and wherever they point: class folders are often made of
links. A folder that is reached twice within one split is an error, as its images would count twice;
that also ends a walk along links in a circle. What a link shows is only ever decoded as an image.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tcpa_core.data._kinds import GENERAL, kinds_of
from tcpa_core.data._rows import WORDS, Rows, assemble, split_of
from tcpa_core.data.base import SUFFIXES, Listing, check_suffix, need_root, other_spelling
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

MAX_DEPTH = 32
"""Folders below a split: more is a mistake or a trap."""
IGNORED = ("Thumbs.db", "desktop.ini", "__MACOSX")

Classes = dict[str, list[str]]
"""Class folder -> keys of its images, both sorted."""


def draws_val(cfg: DataConfig) -> bool:
    """Whether val is split off here: where there is no folder of it."""
    return "val" not in _folders_of(Path(os.path.expanduser(cfg.root or "")))


def recognises(root: Path) -> bool:
    """Whether a folder has the layout."""
    train = _folders_of(root).get("train")
    return train is not None and any(e.is_dir() for e in os.scandir(root / train[0]))


def read(cfg: DataConfig) -> Listing:
    """List the class folders.

    Raises:
        ConfigError: data.root is not set.
        DataError: There is no train, class folders differ or are empty, or a file is out of place.
    """
    root = need_root(cfg)
    folders = _folders_of(root)
    notes = [
        f"{other}/ is left out, as {names[0]}/ is {split}."
        for split, names in folders.items()
        for other in names[1:]
    ]
    places = {split: names[0] for split, names in folders.items()}
    if "train" not in places:
        _check_is_flat(root)
        places = {"train": ""}
    found: dict[str, Rows] = {}
    train: Classes = {}
    for split, place in places.items():
        if split == "test" and (names := _loose(root, place)):
            if _is_of_another_kind(root):  # whose lists may have the classes
                raise DataError(f"folder {root.absolute() / place} has no class folders.")
            found[split] = Rows(keys=names, labels=None, source=f"{place}/")
            continue
        classes = _walk(root, place)
        train = classes if split == "train" else train
        _check_same_classes(root, place, train, classes)
        found[split] = Rows(
            keys=tuple(key for keys in classes.values() for key in keys),
            labels=[i for i, keys in enumerate(classes.values()) for _ in keys],
            source=f"{place}/" if place else "the class folders",
        )
    known = [split for split, rows in found.items() if rows.labels is not None]
    _check_enough(root / places["train"], train, [s for s in ("val", "test") if s not in known])
    class_source = f"the class folders of {places['train'] or '.'}/"
    return assemble(root, found, cfg, names=(tuple(train), class_source), notes=notes)


def _folders_of(root: Path) -> dict[str, list[str]]:
    """Folders named after each split, the most usual name first."""
    try:
        names = {e.name.lower(): e.name for e in os.scandir(root) if e.is_dir()}
    except OSError:
        return {}
    found = {split: [names[w] for w in words if w in names] for split, words in WORDS.items()}
    return {split: named for split, named in found.items() if named}


def _loose(root: Path, place: str) -> tuple[str, ...]:
    """Images of a split that has no class folders at all."""
    entries = _visible(root / place)
    if any(entry.is_dir() for entry in entries):
        return ()
    return tuple(f"{place}/{entry.name}" for entry in entries)


def _check_is_flat(root: Path) -> None:
    """Refuse a root without train/, but where class folders lie in it themselves."""
    entries = _visible(root)
    classes = [entry for entry in entries if entry.is_dir()]
    is_flat = len(classes) > 1 and all(
        split_of(entry.name) is None and _has_image(Path(entry.path)) for entry in classes
    )
    # Folders of other layouts hold images too: cars_train/ and cars_test/ are no classes.
    if not is_flat or _is_of_another_kind(root):
        raise DataError(
            f"folder train/ is missing below {root.absolute()}; data.root must hold train/ and, if "
            "there are such, val/ and test/, each with one folder per class, or the class folders "
            "themselves."
        )
    stray = next((e for e in entries if e.name.lower().endswith(SUFFIXES)), None)
    if stray is not None and not stray.is_dir():
        raise DataError(f"{stray.path} lies beside the class folders; move it into one or away.")


def _is_of_another_kind(root: Path) -> bool:
    return any(kind not in GENERAL for kind in kinds_of(root))


def _has_image(folder: Path) -> bool:
    return any(entry.name.lower().endswith(SUFFIXES) for entry in _visible(folder))


def _check_enough(place: Path, train: Mapping[str, list[str]], drawn: list[str]) -> None:
    """Each class keeps an image in train, and gives one to each split that is drawn."""
    lone = next((name for name, keys in train.items() if len(keys) < 1 + len(drawn)), None)
    if lone is not None:
        count = len(train[lone])
        raise DataError(
            f"class folder {place / lone} has {'one image' if count == 1 else f'{count} images'}, "
            f"too few to split {' and '.join(drawn)} off; add images or "
            f"{' and '.join(f'a {name}/ folder' for name in drawn)}."
        )


def _walk(root: Path, split: str) -> Classes:
    """Images by class folder."""
    classes: Classes = {}
    seen: dict[tuple[int, int], str] = {}
    for folder in _visible(root / split):
        if not folder.is_dir():
            if not split:
                continue  # a README beside the classes of a root without splits
            raise DataError(
                f"{folder.path} lies beside the class folders of {split}/; move it into one or "
                f"away."
            )
        key = f"{split}/{folder.name}" if split else folder.name
        classes[folder.name] = list(_files(folder, key, seen, root))
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
