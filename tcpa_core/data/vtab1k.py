"""A task in the VTAB-1k list layout: train800.txt, val200.txt and test.txt beside images/.

`data.root` is the folder of one task. A list has one line per image: its path below that folder, a
space, and the 0-based class. The lists alone say what is in a split; folder names are not read.
train800val200.txt, the union of the first two for a final run, is only looked at for its labels;
where one of them is missing, its part of the union is taken for it: train800 comes first. Paths may
be relative to images/, or begin with folders of the machine where the lists were written.

The number of classes is the number of lines of classes.txt; without that file it is that of the
VTAB task which the folder is named after, as NOAH, SSF and RepAdapter name them or as VTAB's own
code does, `vtab-clevr(task="count_all")`; without such a name it is the highest class in all lists.
Lists that differ in length or classes from that task are read as they are, with a note.

Source: X. Zhai et al., arXiv:1910.04867; layout and folder names as in the code of NOAH, CVPT, SSF
and RepAdapter, tfds-style names as in that of VPT.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tcpa_core.data._paths import Base, find_base
from tcpa_core.data._published import VTAB_TASKS
from tcpa_core.data.base import Listing, SplitListing, need_root, read_text
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
UNION = "train800val200.txt"
CLASSES = "classes.txt"

TASKS = {name: (task.classes, task.test) for name, task in VTAB_TASKS.items()}
"""Classes and test images of the 19 tasks, by folder name; each has 800 for train, 200 for val."""

_SPELLINGS = {
    "caltech101": "caltech_?10[12]",
    "cifar": "cifar(_?100)?(_num_classes_100)?",
    "clevr_count": "clevr_.*count.*",
    "clevr_dist": "clevr_.*dist.*",
    "diabetic_retinopathy": "(diabetic_)?retinopathy(_5|_config_btgraham_300)?",
    "dmlab": "dmlab(_6)?",
    "dsprites_loc": "dsprites?_.*(loc|x_position).*",
    "dsprites_ori": "dsprites?_.*(ori|orientation)(_.*)?",
    "dtd": "dtd(_47)?",
    "eurosat": "eurosat(_10)?",
    "kitti": "kitti(_.*)?",
    "oxford_flowers102": "(oxford_)?flowers?(_?102)?",
    "oxford_iiit_pet": "(oxford_)?(iiit_)?pets?(_37)?",
    "patch_camelyon": "(patch_camelyon|pcam)(_2)?",
    "resisc45": "resisc_?45",
    "smallnorb_azi": "smallnorb_.*azi.*",
    "smallnorb_ele": "smallnorb_.*ele.*",
    "sun397": "sun_?397",
    "svhn": "svhn(_10)?",
}
"""How else the tasks' folders are called, in lower case and with "_" for all other characters."""

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
    notes: list[str] = []
    union = _read_list(root / UNION, notes) if (root / UNION).exists() else None
    lacks = {name for name, file in LISTS.items() if not (root / file).exists()}
    to_make_up = lacks - {"test"} if union and "val" in lacks else set()
    splits = {
        name: _read_list(root / file, notes)
        for name, file in LISTS.items()
        if name not in to_make_up
    }
    lists = [*splits.values(), *([union] if union else [])]
    if union and to_make_up:
        splits |= _from_union(root, union, splits.get("train"), notes)
    class_names, class_source = _classes(root, lists)
    return Listing(
        root=root,
        class_names=class_names,
        class_source=class_source,
        splits={name: splits[name] for name in LISTS},
        notes=(*notes, *_notes(task_of(root), lists, len(class_names))),
        published=f"vtab1k/{task_of(root) or ''}",
    )


def task_of(root: Path) -> str | None:
    """The VTAB task that a folder, or else the one that it is a link to, is named after."""
    return _task_named(Path(os.path.abspath(root)).name) or _task_named(root.resolve().name)


def _task_named(name: str) -> str | None:
    name = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
    name = re.sub("^(wds_)?vtab(_?1k)?_", "", name)
    if name in TASKS:
        return name
    return next((task for task, form in _SPELLINGS.items() if re.fullmatch(form, name)), None)


def _from_union(
    root: Path, union: SplitListing, train: SplitListing | None, notes: list[str]
) -> dict[str, SplitListing]:
    """Val, and train where its list is missing too: 800 images, then 200, as VTAB joins them."""
    known = set(train.keys) if train else set()
    # The union names the images of train under the same names, or as other copies of them.
    rest = [index for index, key in enumerate(union.keys) if key not in known]
    size = len(union.keys) - len(known) if train else len(union.keys) // 5
    if not 0 < size <= len(rest):
        raise DataError(
            f"{root / UNION} names {len(union.keys)} images, too few to make up for "
            f"{LISTS['val']}, which is missing beside it; restore that list."
        )
    taken = {"val": rest[-size:]} if train else {"train": rest[:-size], "val": rest[-size:]}
    for name, indices in taken.items():
        end = "first" if name == "train" else "last"
        notes.append(
            f"{LISTS[name]} is missing; {name} is the {end} {len(indices)} lines of {UNION}, which "
            "VTAB makes of train and val in this order."
        )
    return {
        name: SplitListing(
            keys=tuple(union.keys[i] for i in indices),
            labels=tuple(union.labels[i] for i in indices),
            source=UNION,
        )
        for name, indices in taken.items()
    }


def _notes(task: str | None, lists: Sequence[SplitListing], num_classes: int) -> tuple[str, ...]:
    """Where lists differ from the VTAB task that their folder is named after."""
    if task is None:
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
    if (root / first).exists() or (root / UNION).exists():
        return
    found = (path for name in (first, UNION) for path in root.glob(f"*/{name}"))
    tasks = sorted({path.parent.name for path in found})
    if tasks:
        raise DataError(
            f"data.root must be the folder of one task, but {root.absolute()} has no {first}; its "
            f"subfolders have: {', '.join(tasks)}. Add one of them to data.root."
        )


def _read_list(path: Path, notes: list[str]) -> SplitListing:
    lines = [line.rstrip("\r") for line in read_text(path).rstrip("\r\n").split("\n")]
    keys, labels = [], []
    base: Base | None = None
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"{path}:{number}: a line must be an image path, a space and a class (an integer "
                f">= 0), got {line!r}; correct it, no line is skipped."
            )
        if base is None:
            place = f"{path}:{number}"
            base = find_base(path.parent, match["path"], ("", "images"), place) or Base()
            notes.extend(base.note(path.name))
        keys.append(base.key(match["path"], f"{path}:{number}"))
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
    task = task_of(root)
    if task is not None:
        return tuple(map(str, range(TASKS[task][0]))), f"VTAB task {task!r}"
    highest = max((label for split in lists for label in split.labels), default=-1)
    total = sum(len(split.labels) for split in lists)
    if highest >= total:
        raise DataError(
            f"the highest class in all lists is {highest}, but they name {total} images only "
            f"(below {root.absolute()}); number the classes from 0, or name them in {CLASSES}."
        )
    return tuple(map(str, range(highest + 1))), "the highest class in all lists"
