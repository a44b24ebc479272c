"""Data sets in the layouts of their distributors: where they begin, and how they are split.

A public file of this folder that reads such a data set says what it is in one `OfficialKind`, and
takes its hooks from there.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcpa_core.data._json_splits import read_json_split
from tcpa_core.data._listing import (
    Listing,
    SplitListing,
    check_suffix,
    draw_test,
    draw_val,
    need_root,
    read_text,
    relative_key,
)
from tcpa_core.data._published import published_key
from tcpa_core.data._splits import HtaRule, hta_val, split_train, vpt_val
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

LISTS = (".csv", ".txt", ".mat")
"""Files that some distributors put beside the images of a class."""
IGNORED = ("Thumbs.db", "desktop.ini", "__MACOSX", "tmp")
"""Marks of desktops, and a file of Caltech-101's background class."""
HOW_VAL_IS_DRAWN = ("val_fraction", "split_seed", "group")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a distributor's files say."""

    root: Path
    """Folder that the images' names are relative to."""
    class_names: tuple[str, ...]
    class_source: str
    """What they were read from, for messages."""
    splits: Mapping[str, SplitListing]
    """Train, and of val and test those that there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialKind:
    """A data set in its distributor's layout."""

    key: str
    """Of `PUBLISHED`; the value of data.name."""
    places: tuple[str, ...]
    """Folders below data.root where the layout may begin; "" is data.root itself."""
    marks: tuple[str, ...]
    """Files and folders that are there; "images|Images": one of the two."""
    parts: Callable[[Path], Parts]
    """Reads the lists, given the folder where the layout begins."""
    offers_val: bool = False
    hta: HtaRule | None = None
    """None: not one of the sets of HTA and FGVC."""
    tracks: str | None = None
    """As `Listing.tracks`."""
    tells: Callable[[Path], bool] | None = None
    """Whether the folder is this data set's, where the marks alone do not say it."""

    def read(self, cfg: DataConfig) -> Listing:
        """List the splits that data.split asks for.

        Raises:
            ConfigError: data.root is not set.
            DataError: The layout is not below data.root, or a file of it is missing or damaged.
        """
        root = need_root(cfg)
        base = self._base(root)
        parts = self.parts(base)
        splits = dict(parts.splits)
        drawn = False
        notes = tuple(f"{deviation}." for deviation in self.deviations(cfg))
        if "test" not in splits:
            train = splits["train"]
            both = split_train(train, draw_test(train.keys, train.labels, cfg))
            splits |= {"train": both["train"], "test": both["val"]}
            notes += (
                f"{self.key} comes without a test split: a fifth of each class is taken for it, by "
                "a hash of the names.",
            )
        is_hta = cfg.split == "hta" and self.hta is not None
        if is_hta and self.hta != "official":
            splits |= split_train(splits["train"], self._hta_val(splits["train"], cfg))
        elif "val" not in splits:
            drawn = True
            train = splits["train"]
            splits |= split_train(train, draw_val(train.keys, train.labels, cfg))
        return Listing(
            root=parts.root,
            class_names=parts.class_names,
            class_source=parts.class_source,
            splits=splits,
            drawn=drawn,
            published=self.key,
            split="hta" if is_hta else "official",
            tracks=self.tracks,
            notes=notes,
        )

    def recognises(self, root: Path) -> bool:
        """Whether a folder has the layout."""
        return any(
            not self._missing(root / place) and (self.tells is None or self.tells(root / place))
            for place in self.places
        )

    def idle(self, cfg: DataConfig) -> tuple[str, ...]:
        """How splits are made, as far as data.split or the data set says it."""
        if cfg.split == "hta" and self.hta == "first_80":
            return HOW_VAL_IS_DRAWN
        if cfg.split == "hta" and self.hta == "shuffled":
            return ("val_fraction", "group")
        if cfg.split == "hta" and self.hta == "vpt":
            return HOW_VAL_IS_DRAWN if self._val_json(cfg) else ("val_fraction", "group")
        if cfg.split == "own":
            as_official = not self.offers_val and (self.tracks is None or cfg.group is not None)
            return ("split",) if as_official else ()
        found = HOW_VAL_IS_DRAWN if self.offers_val else ()
        return (*found, "split") if cfg.split == "hta" else found  # without a rule: as official

    def deviations(self, cfg: DataConfig) -> tuple[str, ...]:
        """Where the split differs from that of HTA, which data.split claims."""
        if cfg.split == "hta" and self.hta == "vpt" and not self._val_json(cfg):
            return (
                "data.split=hta without VPT's val.json: val is a tenth of each class, by a hash",
            )
        return ()

    def _hta_val(self, train: SplitListing, cfg: DataConfig) -> list[int]:
        if self.hta == "vpt":
            file = self._val_json(cfg)
            if file is None and cfg.splits_dir is not None:
                raise DataError(
                    f"data.splits_dir={cfg.splits_dir!r} has no val.json, nor has a folder in it "
                    f"that is named after {self.key}; VPT's authors give one folder a data set, "
                    "with train.json, val.json and test.json."
                )
            return vpt_val(train, read_json_split(file) if file else None, cfg.split_seed)
        assert self.hta == "first_80" or self.hta == "shuffled"
        return hta_val(train, self.hta, cfg.split_seed)

    def _val_json(self, cfg: DataConfig) -> Path | None:
        """VPT's list of val: in data.splits_dir, or else beside the data set."""
        root = Path(os.path.expanduser(cfg.root or ""))
        given = cfg.splits_dir
        folders = (
            splits_folders(Path(os.path.expanduser(given)), self.key)
            if given is not None
            else [root / place for place in ("", *self.places)]
        )
        return next((f / "val.json" for f in folders if os.path.isfile(f / "val.json")), None)

    def _base(self, root: Path) -> Path:
        """The folder where the layout begins."""
        places = [root / place for place in self.places]
        lacks = [self._missing(place) for place in places]
        if [] in lacks:
            return places[lacks.index([])]
        nearest = min(range(len(places)), key=lambda i: len(lacks[i]))
        found = f"{_listed(lacks[nearest])} missing below {places[nearest].absolute()}"
        if len(lacks[nearest]) == len(self.marks):
            names = [repr(place) for place in self.places if place]
            looked = f" and in {', '.join(names)} below it" if names else ""
            found = f"looked for {_listed(self.marks)} there{looked}"
        raise DataError(
            f"data.root={str(root.absolute())!r} is no copy of {self.key}: {found}; data.root is "
            f"the folder that its distributor unpacks, or the one that holds it."
        )

    def _missing(self, place: Path) -> list[str]:
        """Marks that are not below a folder."""
        return [
            mark
            for mark in self.marks
            if not any(os.path.exists(place / name) for name in mark.split("|"))
        ]


def splits_folders(given: Path, key: str | None) -> list[Path]:
    """data.splits_dir itself, and the folders in it that are named after a data set."""
    try:
        names = sorted(entry.name for entry in os.scandir(given) if entry.is_dir())
    except OSError:
        return []
    return [given, *(given / name for name in names if key and published_key(name) == key)]


def read_rows(path: Path, columns: int) -> list[tuple[str, list[str]]]:
    """Lines of a list, split at spaces; the last column takes the rest of its line.

    Returns:
        Place of each line for messages, and its columns. Empty lines are passed over.

    Raises:
        DataError: The file cannot be read, or a line has fewer columns.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        found = line.strip().split(maxsplit=columns - 1)
        place = f"{path}:{number}"
        if len(found) < columns:
            raise DataError(
                f"{place}: a line must have {columns} columns, got {line!r}; restore the list."
            )
        rows.append((place, found))
    return rows


def part(keys: Sequence[tuple[str, str]], labels: Sequence[int], source: str) -> SplitListing:
    """A split of image files.

    Args:
        keys: Place for messages and path of each image.
    """
    return SplitListing(
        keys=tuple(relative_key(key, place) for place, key in keys),
        labels=tuple(labels),
        source=source,
    )


def ranks(ids: Iterable[str]) -> dict[str, int]:
    """Class of each id: its rank among the distinct ones, numbers by their value."""
    distinct = set(ids)
    numeric = all(one.isascii() and one.isdigit() for one in distinct)
    ordered = sorted(distinct, key=(lambda one: (int(one), one)) if numeric else None)
    return {one: rank for rank, one in enumerate(ordered)}


def _listed(marks: Sequence[str]) -> str:
    """Marks in words; of many alternatives the first two."""
    each = [mark.split("|") for mark in marks]
    return ", ".join(" or ".join(map(repr, names[:2])) for names in each)


def image_folders(base: Path, folder: str, *, of_class: str = "") -> dict[str, list[str]]:
    """Images of each class folder of a folder, both sorted.

    Args:
        of_class: Folder in each class folder that holds the images.

    Raises:
        DataError: A folder cannot be read, or a file in it does not end like an image.
    """
    names = [e.name for e in scan(base / folder) if e.is_dir()]
    prefix = f"{folder}/" if folder else ""
    inside = f"/{of_class}" if of_class else ""
    return {name: image_files(base, f"{prefix}{name}{inside}") for name in names}


def image_files(base: Path, folder: str) -> list[str]:
    """Images right in a folder, sorted, as paths below `base`; lists beside them are passed over.

    Raises:
        DataError: The folder cannot be read, or a file in it does not end like an image.
    """
    keys = []
    for entry in scan(base / folder):
        if not entry.name.lower().endswith(LISTS) and entry.is_file():
            check_suffix(f"{folder}/{entry.name}", f"{folder}/", str(base))
            keys.append(f"{folder}/{entry.name}" if folder else entry.name)
    return keys


def folder_part(found: Mapping[str, Sequence[str]], source: str) -> SplitListing:
    """A split of class folders; a class is the rank of its folder."""
    return SplitListing(
        keys=tuple(key for keys in found.values() for key in keys),
        labels=tuple(rank for rank, keys in enumerate(found.values()) for _ in keys),
        source=source,
    )


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """Visible entries of a folder, sorted.

    Raises:
        DataError: It cannot be read.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as err:
        raise DataError(
            f"folder {folder} cannot be read: {err.strerror}; check its rights."
        ) from err
    return [e for e in entries if not e.name.startswith(".") and e.name not in IGNORED]
