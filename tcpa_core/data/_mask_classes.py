"""Which classes masks have, and by which values or colours: from lists, layouts and settings."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tcpa_core.data._listing import read_text
from tcpa_core.data._mask_layouts import CITY_MASKS, Layout, Pairs
from tcpa_core.data._masks import (
    IGNORED,
    MOST_CLASSES,
    VOID,
    Colour,
    MaskValues,
    counted_values,
    listed_values,
    painted_values,
)
from tcpa_core.data._rows import NAMES, names_of
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DataConfig

LISTS = (*NAMES, "class_names.txt", "codes.txt")
ADE20K_LIST = "objectInfo150.txt"
PALETTES = ("class_dict.csv", "label_colors.txt")
"""Lists of colours: "name,r,g,b" below a header, and CamVid's "r g b name"."""
ADE20K_CLASSES = 150
CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Of labelIds, in the order of the classes (the authors' cityscapesscripts/helpers/labels.py)."""
VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip

Classes = tuple[tuple[str, ...], str, MaskValues]
"""Names, what says them, and the values of masks."""


def classes_of(cfg: DataConfig, root: Path, layout: Layout, train: Pairs) -> Classes:
    """The classes of a data set with masks.

    Raises:
        ConfigError: A setting contradicts the files, or none says how many classes there are.
        DataError: A list is damaged.
    """
    if layout.kind == "cityscapes":
        _refuse(cfg, ("num_classes", "ignore", "reduce_zero_label"), "Cityscapes")
        return _cityscapes(train)
    palette = next((name for name in PALETTES if (root / name).is_file()), None)
    if palette and not _has_list(root):
        _refuse(cfg, ("num_classes", "ignore", "reduce_zero_label"), palette)
        return _painted(root / palette)
    names, source = _names(cfg, root, layout)
    first = int(layout.kind == "ade20k" if cfg.reduce_zero_label is None else cfg.reduce_zero_label)
    ignore = set(cfg.ignore or ())
    if layout.kind == "camvid" and cfg.ignore is None:
        ignore.add(first + len(names))  # SegNet's copy of CamVid calls its last value void
    if names and len(names) > MOST_CLASSES:
        raise DataError(
            f"{source} gives {len(names):,} classes, more than the {MOST_CLASSES} that masks of 8 "
            "bits can hold beside 0 and 255."
        )
    kept, values = counted_values(names, source, first=first, ignore=ignore)
    if len(kept) < 2 <= len(names):
        raise ConfigError(
            f"data.ignore={list(cfg.ignore or ())} leaves {len(kept)} of the {len(names)} classes "
            f"of {source}, and a class is told from another one; name fewer values."
        )
    if cfg.num_classes is not None and cfg.num_classes != len(kept):
        raise ConfigError(
            f"data.num_classes={cfg.num_classes}, but {source} in {root.absolute()} gives "
            f"{len(kept)} classes; leave data.num_classes out or correct the list."
        )
    return kept, source, values


def _refuse(cfg: DataConfig, settings: Sequence[str], by: str) -> None:
    for name in settings:
        value = getattr(cfg, name)
        if value is not None:
            raise ConfigError(
                f"data.{name}={value!r} is set, but {by} says what masks mean; leave it out."
            )


def _cityscapes(train: Pairs) -> Classes:
    by_train_ids = train.masks[0].lower().removesuffix(".png").endswith(CITY_MASKS[0])
    ids = range(len(CITYSCAPES)) if by_train_ids else CITYSCAPES_IDS
    source = f"Cityscapes' {'train ids' if by_train_ids else 'ids'}"
    class_of = {value: number for number, value in enumerate(ids)}
    return CITYSCAPES, source, listed_values(class_of, max(ids), source)


def _has_list(root: Path) -> bool:
    return any((root / name).is_file() for name in LISTS)


def _names(cfg: DataConfig, root: Path, layout: Layout) -> tuple[tuple[str, ...], str]:
    """Names of the values, and what gives them."""
    for name in LISTS:
        found = names_of(root, name)
        if found:
            return found
    if layout.kind == "ade20k" and (root / ADE20K_LIST).is_file():
        return tuple(_of_ade20k(root / ADE20K_LIST)), ADE20K_LIST
    if cfg.num_classes is not None:
        return tuple(_numbered(cfg, layout)), "data.num_classes"
    if layout.kind == "voc":
        return VOC, "Pascal VOC"
    if layout.kind == "ade20k":
        return tuple(map(str, range(1, ADE20K_CLASSES + 1))), "ADE20K"
    raise ConfigError(
        f"it is not known which classes the masks of {root.absolute()} have: write their names "
        "into classes.txt there, one a line, in the order of their values, or set data.num_classes."
    )


def _numbered(cfg: DataConfig, layout: Layout) -> Iterator[str]:
    """As many values as it takes for `data.num_classes` that are not left out, by their numbers."""
    assert cfg.num_classes is not None
    zero = layout.kind == "ade20k" if cfg.reduce_zero_label is None else cfg.reduce_zero_label
    missing, value = cfg.num_classes, int(zero)
    while missing and value < IGNORED:
        missing -= value not in (cfg.ignore or ())
        yield str(value)
        value += 1


def _of_ade20k(path: Path) -> Iterator[str]:
    """Names by ADE20K's own table, whose last column has them: the first of a class's words, or
    all where another class has the same."""
    rows = [line.split("\t") for line in read_text(path).splitlines()[1:] if line.strip()]
    whole = [row[-1].strip() for row in rows]
    short = [name.split(",")[0].split(";")[0].strip() for name in whole]
    if len(rows) != ADE20K_CLASSES or "" in short:
        raise DataError(
            f"{path} must have a header and {ADE20K_CLASSES} lines of columns between tabs, the "
            f"last one a name, got {len(rows)}; take the file of the data set, or remove it."
        )
    met = Counter(short)
    for name, full in zip(short, whole, strict=True):
        yield name if met[name] == 1 else full


def _painted(path: Path) -> Classes:
    """Classes of a list of colours, without those that are called void."""
    names: list[str] = []
    colours: dict[Colour, int] = {}
    for number, (name, colour) in enumerate(_colours(path), start=1):
        if colour in colours:
            raise DataError(f"{path}:{number} has colour {colour} a second time; remove one.")
        if name.lower() in VOID:
            colours[colour] = IGNORED
        else:
            colours[colour] = len(names)
            names.append(name)
    return tuple(names), path.name, painted_values(colours, path.name)


def _colours(path: Path) -> Iterator[tuple[str, Colour]]:
    text = read_text(path)
    if path.suffix == ".csv":
        rows = [[part.strip() for part in row] for row in csv.reader(text.splitlines()) if row]
        rows = [row for row in rows if not (row[0].lower() == "name" and row[1:2] == ["r"])]
    else:
        parts = [re.split(r"\s+", line.strip(), maxsplit=3) for line in text.splitlines()]
        rows = [[*row[3:], *row[:3]] for row in parts if row != [""]]
    for row in rows:
        numbers = [int(part) for part in row[1:4] if part.isascii() and part.isdigit()]
        if len(row) < 4 or len(numbers) < 3 or max(numbers) > 255 or not row[0]:
            form = "name,r,g,b" if path.suffix == ".csv" else "r g b name"
            raise DataError(
                f"{path}: each line must be {form!r} with numbers 0 to 255, got {row}; correct it."
            )
        yield row[0], (numbers[0], numbers[1], numbers[2])
