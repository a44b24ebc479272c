"""A task in the VTAB-1k list layout: train800.txt, val200.txt and test.txt beside images/.

`data.root` is the folder of one task. A list has one line per image: its path below that folder, a
space, and the 0-based class. The lists alone say what is in a split; folder names are not read.
train800val200.txt, the union of the first two for a final run, is only looked at for its labels.

The number of classes is the number of lines of classes.txt; without that file it is that of the
VTAB task which the folder is named after; without such a name it is the highest class in all lists.
Lists that differ in length or classes from that task are read as they are, with a note.

Source: X. Zhai et al., arXiv:1910.04867; file layout and folder names as in the NOAH and CVPT code.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tcpa_core.data._published import VTAB_TASKS
from tcpa_core.data.base import Listing, SplitListing, need_root, read_text, relative_key
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
UNION = "train800val200.txt"
CLASSES = "classes.txt"

TASKS = {name: (task.classes, task.test) for name, task in VTAB_TASKS.items()}
"""Classes and test images of the 19 tasks, by folder name; each has 800 for train, 200 for val."""

_LINE = re.compile(r"(?P<path>.*\S)\s+(?P<label>\d{1,9})", re.ASCII)


def draws_val(cfg: DataConfig) -> bool:
    """Whether val is split off here: no, val200.txt is there."""
    return False


def recognises(root: Path) -> bool:
    """Whether a folder has the layout."""
    return any(os.path.isfile(root / name) for name in (LISTS["train"], UNION))


def read(cfg: DataConfig) -> Listing:
    """List a task.

    Raises:
        ConfigError: data.root is not set.
        DataError: A list is missing, or a line is not a path inside the folder and a class.
    """
    root = need_root(cfg)
    _check_is_task(root)
    splits = {name: _read_list(root / file) for name, file in LISTS.items()}
    lists = [*splits.values()]
    if (root / UNION).exists():
        lists.append(_read_list(root / UNION))
    class_names, class_source = _classes(root, lists)
    return Listing(
        root=root,
        class_names=class_names,
        class_source=class_source,
        splits=splits,
        notes=_notes(root.resolve().name, lists, len(class_names)),
    )


def _notes(task: str, lists: Sequence[SplitListing], num_classes: int) -> tuple[str, ...]:
    """Where lists differ from the VTAB task that their folder is named after."""
    if task not in TASKS:
        return ()
    classes, test = TASKS[task]
    whole = dict(zip((*LISTS.values(), UNION), (800, 200, test, 1000), strict=True))
    notes = [
        f"{one.source} names {len(one.keys):,} images, VTAB's {task} has {whole[one.source]:,}."
        for one in lists
        if len(one.keys) != whole[one.source]
    ]
    used = len({label for one in lists for label in one.labels})
    if num_classes != classes:
        notes.append(f"{CLASSES} names {num_classes} classes, VTAB's {task} has {classes}.")
    elif used != classes:
        notes.append(f"the lists use {used} classes, VTAB's {task} has {classes}.")
    return tuple(notes)


def _check_is_task(root: Path) -> None:
    """Help the user who gave the folder above the tasks."""
    first = LISTS["train"]
    if (root / first).exists():
        return
    tasks = sorted(path.parent.name for path in root.glob(f"*/{first}"))
    if tasks:
        raise DataError(
            f"data.root must be the folder of one task, but {root.absolute()} has no {first}; its "
            f"subfolders have: {', '.join(tasks)}. Add one of them to data.root."
        )


def _read_list(path: Path) -> SplitListing:
    lines = [line.rstrip("\r") for line in read_text(path).rstrip("\r\n").split("\n")]
    keys, labels = [], []
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"{path}:{number}: a line must be an image path, a space and a class (an integer "
                f">= 0), got {line!r}; correct it, no line is skipped."
            )
        keys.append(relative_key(match["path"], f"{path}:{number}"))
        labels.append(int(match["label"]))
    return SplitListing(keys=tuple(keys), labels=tuple(labels), source=path.name, numbered=True)


def _classes(root: Path, lists: list[SplitListing]) -> tuple[tuple[str, ...], str]:
    """Class names and where their number comes from."""
    if (root / CLASSES).exists():
        names = tuple(line.strip() for line in read_text(root / CLASSES).rstrip().split("\n"))
        if "" in names:
            raise DataError(
                f"{root / CLASSES}:{names.index('') + 1}: line is empty, but must name class "
                f"{names.index('')}; write one class name per line."
            )
        return names, CLASSES
    task = root.resolve().name
    if task in TASKS:
        return tuple(map(str, range(TASKS[task][0]))), f"VTAB task {task!r}"
    highest = max((label for split in lists for label in split.labels), default=-1)
    total = sum(len(split.labels) for split in lists)
    if highest >= total:
        raise DataError(
            f"the highest class in all lists is {highest}, but they name {total} images only "
            f"(below {root.absolute()}); number the classes from 0, or name them in {CLASSES}."
        )
    return tuple(map(str, range(highest + 1))), "the highest class in all lists"
