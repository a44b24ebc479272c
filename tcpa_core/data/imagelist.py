"""Lists of images and classes: .csv, .tsv, .txt, .json, .jsonl or .list files beside the images.

`data.root` holds the lists, or a folder in it does (annotations/). A list is that of the split in
its name (train.csv, val_meta.list); one list for all has a column split (set, subset, ...), or is
train. Of several lists of train `data.train_list` chooses one, such as that of a few-shot study.

Tables may have a header, quotes, and commas, semicolons or tabs; `data.image_column` and
`data.label_column` name columns beside the usual ones. Lines without a header are a path and a
class, or a path alone whose folder is the class. JSON is a list of objects or of [path, class], an
object {path: class} or {class: [paths]}, COCO's tables, or an object with one of these by split.

Paths are relative to the root, to the list, or to a folder such as images/ or train_images/, with
or without their suffix; what stands in front on another machine is dropped. Classes are numbers or
names; classes.txt names the numbers. A list of test without classes is left out. An image that a
list names again with the same class is read once.

Source: lists of NOAH's few-shot sets (annotations/train_meta.list.num_shot_1.seed_0), JSON of VPT
and of CoOp's splits, tables of Kaggle, metadata files of the Hugging Face Hub.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tcpa_core.data._classes import listed
from tcpa_core.data._lists import SPLIT_WORDS, Row, read_rows
from tcpa_core.data._paths import find_base
from tcpa_core.data._rows import WORDS, Rows, assemble, names_beside, split_of
from tcpa_core.data.base import SPLITS, Listing, need_root, relative_key
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

USES = ("image_column", "label_column", "train_list")
LISTS = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".list", ".lst")
TABLES = ("metadata", "labels", "annotations", "list", "dataset", "data", "index")
"""What a list for all splits is called, where it is no .csv, .tsv or .jsonl."""
FOLDERS = ("annotations", "lists", "splits", "meta", "metadata", "labels")
"""Where lists lie that are not in the root."""
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpg", "train_images", "data")
MAX_FOLDERS = 50
MAX_TRIES = 100
"""Rows whose image is looked for in all folders: lists have few, and a wrong list many rows."""


def draws_val(cfg: DataConfig) -> bool:
    """Whether val is split off here: where no list is named after it. (A column may have it.)"""
    root = Path(os.path.expanduser(cfg.root or ""))
    return all("val" not in _lists_by_split(root, folder) for folder in _places())


def recognises(root: Path) -> bool:
    """Whether a folder has the layout."""
    by_split = any("train" in _lists_by_split(root, folder) for folder in _places())
    return by_split or any(_is_table(name) for name in _names(root))


def read(cfg: DataConfig) -> Listing:
    """List the images of all lists.

    Raises:
        ConfigError: data.root is not set.
        DataError: No list or several for one split, a row without path or class, columns that
            cannot be told, a path that leaves the folder, or images that are in no known folder.
    """
    root = need_root(cfg)
    found: dict[str, Rows] = {}
    notes: list[str] = []
    for of_list, name in _choose_lists(root, cfg).items():
        for split, rows in _by_split(root / name, read_rows(root / name, cfg), of_list).items():
            found[split] = _located(root, name, split, rows, notes)
    return assemble(root, found, cfg, names=names_beside(root), notes=notes)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(e.name for e in os.scandir(folder) if e.is_file() and e.name[0] != ".")
    except OSError:
        return []


def _places() -> list[str]:
    """Folders that may hold the lists, relative to the root."""
    return ["", *FOLDERS, *SPLIT_WORDS]


def _is_list(name: str) -> bool:
    return name.lower().endswith(LISTS) or ".list." in name.lower()


def _is_table(name: str) -> bool:
    """A list that need not be called after a split."""
    stem = name.lower().partition(".")[0]
    is_named = stem in TABLES or stem.startswith("split_")  # CoOp's split_zhou_Food101.json
    return (is_named and _is_list(name)) or name.lower().endswith((".csv", ".tsv", ".jsonl"))


def _lists_by_split(root: Path, folder: str) -> dict[str, list[str]]:
    """Lists of a folder by the split in their names, or, of tables, in the folder's."""
    found: dict[str, list[str]] = {}
    for name in _names(root / folder):
        split = split_of(name) or (split_of(folder) if _is_table(name) else None)
        if _is_list(name) and split:
            found.setdefault(split, []).append(f"{folder}/{name}" if folder else name)
    return found


def _choose_lists(root: Path, cfg: DataConfig) -> dict[str | None, str]:
    """One list for each split; {None: list} where one is for all."""
    chosen: dict[str | None, str] = {}
    if cfg.train_list is not None:
        chosen["train"] = relative_key(cfg.train_list, "data.train_list")
    for folder in _places():
        for split, paths in _lists_by_split(root, folder).items():
            if split not in chosen:
                chosen[split] = _the_one(root, split, paths)
    if "train" in chosen:
        return {split: chosen[split] for split in SPLITS if split in chosen}
    single = [
        f"{folder}/{name}" if folder else name
        for folder in ("", *FOLDERS)
        for name in _names(root / folder)
        if _is_table(name) and split_of(name) is None and "submission" not in name.lower()
    ]
    if len(single) != 1:
        raise DataError(
            f"no list of train below {root.absolute()}: "
            f"{'lists are ' + listed(single) if single else 'there is no list'}; name it train.csv "
            "(or .tsv, .txt, .json, .jsonl), or set data.train_list to it."
        )
    return {None: single[0]}


def _the_one(root: Path, split: str, paths: Sequence[str]) -> str:
    """The list that is called after the split alone, else the only one."""
    stems = [os.path.basename(path).lower().partition(".")[0] for path in paths]
    for wanted in (WORDS[split][:1], WORDS[split], stems):
        some = [path for path, stem in zip(paths, stems, strict=True) if stem in wanted]
        if len(some) == 1:
            return some[0]
    advice = "set data.train_list to one" if split == "train" else "move all but one away"
    raise DataError(
        f"{len(paths)} lists below {root.absolute()} are of {split}: {listed(paths)}; {advice}."
    )


def _by_split(path: Path, rows: Sequence[Row], of_list: str | None) -> dict[str, list[Row]]:
    """Rows by the column of splits where its words are known, else all of the list's own split."""
    words = {row.split.strip().lower() for row in rows if row.split is not None}
    if not words or (of_list is not None and not words <= SPLIT_WORDS.keys()):
        return {of_list or "train": list(rows)}
    found: dict[str, list[Row]] = {}
    for row in rows:
        split = SPLIT_WORDS.get((row.split or "").strip().lower())
        if split is None:
            raise DataError(
                f"{row.place}: the column of splits must say {', '.join(SPLIT_WORDS)}, got "
                f"{row.split!r:.80}; correct the row, none is skipped."
            )
        found.setdefault(split, []).append(row)
    return {split: found[split] for split in SPLITS if split in found}


def _located(root: Path, name: str, split: str, rows: list[Row], notes: list[str]) -> Rows:
    """The rows of one split with their paths below the root."""
    bases = _Bases(root, list(_image_folders(root, name, split)), rows[0])
    known: dict[str, Row] = {}
    repeated = 0
    for row in rows:
        key = bases.key(row)
        before = known.setdefault(key, row)
        if before is not row:
            if before.label != row.label:
                raise DataError(
                    f"image {key!r} is named twice with two classes, {before.label!r} in "
                    f"{before.place} and {row.label!r} in {row.place}; remove one."
                )
            repeated += 1
    notes.extend(note for base in bases.known for note in base.note(name))
    if repeated:
        notes.append(f"{name} names {repeated:,} images of {split} again; each is read once.")
    labels = [row.label for row in known.values()]
    lacking = next((row for row in known.values() if row.label in (None, "")), None)
    is_hidden = all(label in (None, "") for label in labels)
    if lacking is not None and not is_hidden:
        raise DataError(f"{lacking.place}: {lacking.path!r:.80} has no class; give it one.")
    return Rows(
        keys=tuple(known),
        labels=None if is_hidden else [label for label in labels if label is not None],
        source=name,
    )


class _Bases:
    """Where the images of a list lie, which may be in several folders."""

    def __init__(self, root: Path, folders: Sequence[str], first: Row) -> None:
        self._root = root
        self._folders = folders
        self._tries = MAX_TRIES
        base = find_base(root, first.path, folders, first.place)
        if base is None:
            raise DataError(
                f"{first.place}: image {first.path!r:.80} is not below {root.absolute()}, with or "
                "without suffix, nor in a folder of it; unpack the images there, or correct the "
                "path."
            )
        self.known = [base]

    def key(self, row: Row) -> str:
        """The path of a row below the root; of one that is nowhere, where the first one would be.

        Raises:
            DataError: It leaves the root.
        """
        for base in self.known:
            if row.path.startswith(base.dropped):
                key = base.key(row.path, row.place)
                if os.path.isfile(os.path.join(self._root, key)):
                    return key
        if self._tries:
            found = find_base(self._root, row.path, self._folders, row.place)
            self._tries -= 1
            if found is not None:
                self.known.append(found)
                return found.key(row.path, row.place)
        return self.known[0].key(row.path, row.place)


def _image_folders(root: Path, name: str, split: str) -> Iterator[str]:
    """Folders that may hold the images of a list, the likeliest first."""
    beside = os.path.dirname(name)
    yield from dict.fromkeys((beside, ""))
    for word in WORDS[split]:
        yield from (word, f"{word}_images", f"images/{word}", f"{word}/images")
    yield from (*IMAGE_FOLDERS, *(f"images/{word}" for word in SPLIT_WORDS), "train")
    try:
        others = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except OSError:
        others = []
    yield from others[:MAX_FOLDERS]
    yield from (f"{name}/{name}" for name in others[:MAX_FOLDERS])  # as archives are unpacked twice
