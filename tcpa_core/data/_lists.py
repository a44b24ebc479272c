"""Rows of a list of images: from a table, from lines of text, or from JSON."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tcpa_core.data._classes import listed
from tcpa_core.data._formats import SUFFIXES
from tcpa_core.data._listing import read_text
from tcpa_core.data._rows import MAX_IMAGES, WORDS, Label, split_of, usual_column
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

IMAGES = (
    "image", "img", "image_path", "img_path", "filepath", "file_path", "path", "file_name",
    "filename", "file", "image_name", "img_name", "image_id", "imageid", "id_code", "name", "id",
)  # fmt: skip
LABELS = (
    "label", "labels", "class", "class_id", "classid", "class_name", "category", "category_id",
    "target", "label_name", "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase", "dataset", "data set")
SPLIT_WORDS = {word: split for split, words in WORDS.items() for word in words}
SHOWN = 80
"""Characters of a line that a message shows."""


@dataclass(frozen=True, slots=True)
class Row:
    """An image as its list has it."""

    place: str
    """List and line, for messages."""
    path: str
    label: Label | None
    """None: the list has no classes."""
    split: str | None = None
    """What a column of splits says."""


def read_rows(path: Path, cfg: DataConfig) -> list[Row]:
    """All rows of a list.

    Raises:
        DataError: It is no such list, a row lacks its path or class, columns cannot be told, or it
            is too long.
    """
    suffix = path.suffix.lower()
    text = read_text(path)
    too_long = DataError(
        f"{path} names more than {MAX_IMAGES:,} images, which is the most that is read; take a "
        "part of the list."
    )
    if text.count("\n") > MAX_IMAGES + 1:  # soon, before the rows take their memory
        raise too_long
    rows: Iterator[Row]
    if suffix == ".json":
        rows = _of_json(path, _parsed(text, str(path)), cfg)
    elif suffix == ".jsonl":
        lines = enumerate(text.split("\n"), start=1)
        values = [_parsed(line, f"{path}:{n}") for n, line in lines if line.strip()]
        rows = _of_json(path, values, cfg)
    else:
        rows = _of_table(path, _cells(path, text), cfg)
    found = []
    for row in rows:
        if row.label is not None and not str(row.label).isprintable():
            raise DataError(f"{row.place}: class {row.label!r:.80} has control characters.")
        found.append(row)
        if len(found) > MAX_IMAGES:
            raise too_long
    if not found:
        raise DataError(f"{path} names no image; restore the list.")
    return found


Cells = tuple[int, list[str]]
"""A line's number and its parts."""


def _cells(path: Path, text: str) -> Iterator[Cells]:
    """Lines that are not empty, split into columns."""
    first = text.lstrip().partition("\n")[0]
    marks = "\t" if path.suffix.lower() == ".tsv" else ",;\t|"
    mark = max(marks, key=first.count)
    if mark not in first:  # a path and a class with spaces between, or a path alone
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                parts = line.strip().rsplit(None, 1)
                is_path = len(parts) > 1 and parts[1].lower().endswith(SUFFIXES)
                yield number, [line.strip()] if is_path else parts
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as err:
        raise DataError(
            f"{path}:{reader.line_num}: {err}; write the table with quotes round cells that hold "
            f"{mark!r} or quotes."
        ) from err


def _of_table(path: Path, cells: Iterator[Cells], cfg: DataConfig) -> Iterator[Row]:
    start = next(cells, None)
    if start is None:
        return
    number, first = start
    known = {*IMAGES, *LABELS, *SPLIT_COLUMNS, cfg.image_column, cfg.label_column}
    if any(cell.lower() in known or cell in known for cell in first):
        image, label, split = _columns(path, first, cfg)
    else:
        image, label, split = _columns_without_names(path, first)
        yield _row(f"{path}:{number}", first, image, label, split)
    for number, line in cells:
        yield _row(f"{path}:{number}", line, image, label, split)


def _columns(
    path: Path, names: Sequence[str], cfg: DataConfig
) -> tuple[int, int | None, int | None]:
    """Positions of the path, the class and the split."""
    image = usual_column(names, IMAGES, cfg.image_column)
    label = usual_column(names, LABELS, cfg.label_column)
    split = usual_column(names, SPLIT_COLUMNS, None)
    others = [name for name in names if name not in (image, split)]
    if label is None and cfg.label_column is None and image is not None and len(others) == 1:
        label = others[0]
    is_hidden = label is None and split_of(path.name) == "test"
    if image is None or (label is None and not is_hidden):
        what, usual = ("image", IMAGES) if image is None else ("label", LABELS)
        wanted = getattr(cfg, f"{what}_column") or ", ".join(usual)
        raise DataError(
            f"{path} has no column {wanted}, but {listed(names)}; set "
            f"data.{what}_column to one of them."
        )
    places = {name: index for index, name in reversed(list(enumerate(names)))}
    return (
        places[image],
        None if label is None else places[label],
        None if split is None else places[split],
    )


def _columns_without_names(path: Path, first: Sequence[str]) -> tuple[int, int | None, None]:
    if len(first) > 2:
        raise DataError(
            f"{path} has {len(first)} columns and no header that says which is which: "
            f"{', '.join(first)!r:.{SHOWN}}; write one, such as image,label."
        )
    image = 1 if len(first) == 2 and first[1].lower().endswith(SUFFIXES) else 0
    return image, 1 - image if len(first) == 2 else None, None


def _row(place: str, cells: Sequence[str], image: int, label: int | None, split: int | None) -> Row:
    last = max(image, label or 0, split or 0)
    if len(cells) <= last or not cells[image]:
        raise DataError(
            f"{place}: {', '.join(cells)!r:.{SHOWN}} has {len(cells)} columns, an image and its "
            f"class need {last + 1}; correct the line, none is skipped."
        )
    path = cells[image]
    if label is None and image == 0 and len(cells) == 1:  # a line that is a path alone
        folder = path.rpartition("/")[0].rpartition("/")[2]
        return Row(place, path, folder or None)
    return Row(
        place,
        path,
        None if label is None else cells[label],
        None if split is None else cells[split],
    )


class _Pairs(dict[str, Any]):
    """An object of JSON, each of whose keys stands once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        if len(self) != len(pairs):
            (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
            raise ValueError(f"{twice!r:.{SHOWN}} stands twice in one object")


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as err:
        raise DataError(f"{place} is not JSON ({err}); restore the file.") from err


def _of_json(path: Path, value: Any, cfg: DataConfig, split: str | None = None) -> Iterator[Row]:
    """Rows of a list of entries, of {path: class}, of {class: [paths]}, or of these by split."""
    place = f"{path}, {split}" if split else str(path)
    if isinstance(value, dict) and "images" in value and "annotations" in value:
        yield from _of_coco(place, value, split)
    elif isinstance(value, dict) and value and all(key.lower() in SPLIT_WORDS for key in value):
        for key, part in value.items():
            yield from _of_json(path, part, cfg, key)
    elif isinstance(value, dict):
        for key, one in value.items():
            if isinstance(one, list):
                yield from (Row(place, _text(place, path_), key, split) for path_ in one)
            else:
                yield Row(place, key, _class(place, one), split)
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            yield _of_entry(f"{place}, entry {number}", path, entry, cfg, split)
    else:
        raise DataError(f"{place} must be a list or an object, got {value!r:.{SHOWN}}.")


def _of_entry(place: str, path: Path, entry: Any, cfg: DataConfig, split: str | None) -> Row:
    if isinstance(entry, dict):
        names = list(entry)
        image, label, of_split = _columns(path, names, cfg)
        column = entry[names[of_split]] if of_split is not None else None
        return Row(
            place,
            _text(place, entry[names[image]]),
            None if label is None else _class(place, entry[names[label]]),
            split or (column if isinstance(column, str) else None),
        )
    if isinstance(entry, list) and len(entry) in (2, 3):  # path, number and, third, the name
        return Row(place, _text(place, entry[0]), _class(place, entry[-1]), split)
    if isinstance(entry, str):
        return _row(place, [entry], 0, None, None)
    raise DataError(
        f"{place} must be an object, or [path, class], or a path, got {entry!r:.{SHOWN}}."
    )


def _of_coco(place: str, value: Mapping[str, Any], split: str | None) -> Iterator[Row]:
    """COCO's tables, as iNaturalist has them: images, their annotations and the categories."""
    try:
        names = {one["id"]: one["name"] for one in value.get("categories", [])}
        # Two kinds of animals may share a name, and stay two classes.
        shared = {name for name, count in Counter(names.values()).items() if count > 1}
        names = {i: f"{name} ({i})" if name in shared else name for i, name in names.items()}
        classes: dict[Any, Any] = {}
        for one in value["annotations"]:
            if classes.setdefault(one["image_id"], one["category_id"]) != one["category_id"]:
                raise DataError(
                    f"{place}: image {one['image_id']!r} has several classes; a list for "
                    "classification gives one."
                )
        for one in value["images"]:
            of_class = classes.get(one["id"])
            label = None if of_class is None else _class(place, names.get(of_class, of_class))
            yield Row(place, _text(place, one["file_name"]), label, split)
    except (KeyError, TypeError) as err:
        raise DataError(f"{place}: images, annotations or categories lack {err}.") from err


def _text(place: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise DataError(f"{place}: an image's path must be a text, got {value!r:.{SHOWN}}.")
    return value


def _class(place: str, value: Any) -> Label:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(
            f"{place}: a class must be a whole number or a text, got {value!r:.{SHOWN}}."
        )
    return value
