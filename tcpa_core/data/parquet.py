"""Parquet files with images in them, as the Hugging Face Hub keeps image data sets.

`data.root` is the downloaded repository (`data/train-00000-of-00002.parquet`), the folder of one
configuration (`plain_text/`), a folder of the Hub's converted branch (`default/train/0000.parquet`)
or one file. Splits are told by file names, else by folders, else by a column split (set, subset,
...); without any of them all is train.

The image column holds an image file's bytes, alone or as a struct {bytes, path}. It and the label
column go by `data.image_column` and `data.label_column`, else by their usual names. Whole numbers
are classes, named by the ClassLabel of the files' own metadata, else by classes.txt, else by
themselves; texts are class names. A test split whose labels are all -1 is left out.

Images are read in blocks within a row group, so that memory does not grow with the files.

Source: file names and metadata key "huggingface" as written by the datasets library.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from tcpa_core.data._blocks import IN_BLOCK, Blocks
from tcpa_core.data._classes import listed
from tcpa_core.data._lists import SPLIT_COLUMNS, SPLIT_WORDS
from tcpa_core.data._rows import (
    MAX_IMAGES,
    WORDS,
    Label,
    Rows,
    assemble,
    by_split,
    holds,
    lack_val,
    names_beside,
    need_files,
    split_of,
    usual_column,
)
from tcpa_core.data.base import Content, Listing
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

SUFFIXES = (".parquet",)
IMAGES = (
    "image",
    "img",
    "images",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "picture",
    "image_bytes",
    "pixel_values",
)
LABELS = (  # the fine classes of CIFAR-100, not the coarse ones
    "label", "labels", "fine_label", "class", "cls", "target", "category", "class_id", "label_name",
    "class_name", "coarse_label",
)  # fmt: skip
USES = ("image_column", "label_column")

BUFFER = 1 << 20
"""Bytes of a column that are read ahead."""

Group = tuple[str, int]
"""A file below the root and the number of a row group in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """What one file says of itself."""

    name: str
    """Path below the data set's folder."""
    columns: tuple[str, ...]
    """Names of all columns."""
    groups: tuple[int, ...]
    """Rows of each row group."""
    column: str
    """Path of the column with the images' bytes."""
    paths: str | None
    """Path of the column with their names."""
    label: str | None
    split: str | None
    """Name of the column that gives the split."""
    features: Mapping[str, Any]
    """The Hub's own description of the columns."""


def draws_val(cfg: DataConfig) -> bool:
    """Whether val is split off here: where no file is named after it."""
    return lack_val(cfg, SUFFIXES)


def recognises(root: Path) -> bool:
    """Whether a folder has the layout."""
    return holds(root, SUFFIXES)


def read(cfg: DataConfig) -> Listing:
    """List the rows of all files.

    Raises:
        ConfigError: data.root is not set.
        DataError: A file is damaged, has no such columns, or a row lacks its image or label; or
            the folder has several configurations.
    """
    root, names = need_files(cfg, SUFFIXES)
    notes = _check_one_configuration(root, names)
    named, left_out = by_split(names)
    files = {split: [_describe(root, n, cfg) for n in of] for split, of in named.items()}
    everything = [file for of_split in files.values() for file in of_split]
    total = sum(sum(file.groups) for file in everything)
    if total > MAX_IMAGES:  # by the footers, before any column is read
        raise DataError(
            f"the Parquet files below {root.absolute()} have {total:,} rows, at most "
            f"{MAX_IMAGES:,} can be read; take a part of the files."
        )
    train = files.get("train", [])
    if train and all(file.label is None for file in train):
        raise DataError(
            f"train has no labels ({train[0].name} below {root.absolute()}): no column "
            f"{' or '.join(LABELS)}, but {listed(train[0].columns)}; set data.label_column to one "
            "of them."
        )
    found = {split: _rows(root, of_split) for split, of_split in files.items()}
    if not any(split_of(name) for name in names):
        found = _by_column(root, files["train"], found["train"])
    return assemble(
        root,
        found,
        cfg,
        names=_class_names(root, everything) or names_beside(root),
        notes=[*notes, *left_out],
    )


def _check_one_configuration(root: Path, names: Sequence[str]) -> list[str]:
    """Refuse folders of several data sets; what to say of partial ones."""
    words = {word for of_split in WORDS.values() for word in of_split}
    configurations: dict[str, str] = {}
    notes = []
    for name in names:
        folders = name.split("/")[:-1]
        if any(folder.startswith("partial-") for folder in folders):
            notes = ["the files are the Hub's partial conversion, a beginning of each split only."]
        kept = [f for f in folders if f.removeprefix("partial-") not in words and f != "data"]
        configurations.setdefault("/".join(kept), name)
    if len(configurations) > 1:
        raise DataError(
            f"{root.absolute()} holds {len(configurations)} configurations of a data set: "
            f"{listed(one or '.' for one in configurations)}; add one of them to data.root."
        )
    return notes


def _describe(root: Path, name: str, cfg: DataConfig) -> _File:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / name
    try:
        with pq.ParquetFile(path) as file:
            about, schema = file.metadata, file.schema_arrow
            groups = tuple(about.row_group(i).num_rows for i in range(about.num_row_groups))
            text = (schema.metadata or {}).get(b"huggingface", b"{}")
    except (pa.ArrowException, OSError) as err:
        raise DataError(
            f"{path} is not a whole Parquet file ({_short(err)}); download it again."
        ) from err
    image = usual_column(schema.names, IMAGES, cfg.image_column)
    label = usual_column(schema.names, LABELS, cfg.label_column)
    is_hidden = split_of(name) == "test"
    if image is None or (label is None and cfg.label_column is not None and not is_hidden):
        setting = "image_column" if image is None else "label_column"
        raise DataError(
            f"{path} has no column {getattr(cfg, setting) or ' or '.join(IMAGES)!s}, but "
            f"{listed(schema.names)}; set data.{setting} to one of them."
        )
    column, paths = _image_columns(schema.field(image).type, image, path)
    return _File(
        name=name,
        columns=tuple(schema.names),
        groups=groups,
        column=column,
        paths=paths,
        label=label,
        split=usual_column(schema.names, SPLIT_COLUMNS, None),
        features=_features(text),
    )


def _image_columns(kind: Any, image: str, path: Path) -> tuple[str, str | None]:
    """Paths of the columns that hold the images' bytes and names."""
    import pyarrow as pa

    def is_binary(one: Any) -> bool:
        return pa.types.is_binary(one) or pa.types.is_large_binary(one)

    def is_text(one: Any) -> bool:
        return pa.types.is_string(one) or pa.types.is_large_string(one)

    if is_binary(kind):
        return image, None
    if pa.types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        if "bytes" in fields and is_binary(fields["bytes"]):
            named = "path" in fields and is_text(fields["path"])
            return f"{image}.bytes", f"{image}.path" if named else None
    if is_text(kind):
        raise DataError(
            f"{path}: column {image!r} holds texts, which are addresses or paths of images and not "
            "the images; fetch them, and use data.name=imagelist with a list of the files."
        )
    raise DataError(
        f"{path}: column {image!r} must hold the bytes of image files, alone or as {{bytes, path}}"
        f", got {kind!s:.80}; write the set anew with an Image feature, or set data.image_column."
    )


def _features(text: bytes) -> Mapping[str, Any]:
    """The Hub's description of the columns; {} where it is none."""
    try:
        features = json.loads(text)["info"]["features"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(root: Path, files: Sequence[_File]) -> tuple[tuple[str, ...], str] | None:
    """Names of the ClassLabel of the label column, which all files must share."""
    known: dict[tuple[str, ...], str] = {}
    for file in files:
        feature = file.features.get(file.label or "")
        found = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
            known.setdefault(tuple(found), file.name)
    if len(known) > 1:
        first, second = list(known.values())[:2]
        raise DataError(
            f"{first} and {second} below {root.absolute()} name their classes differently; all "
            "files must be of one data set."
        )
    return (next(iter(known)), "the files' ClassLabel") if known else None


def _rows(root: Path, files: Sequence[_File]) -> Rows:
    """All rows of one split."""
    keys: list[str] = []
    labels: list[Label] = []
    for file in files:
        keys += _keys(root, file)
        if file.label is not None:
            labels += _labels(root, file)
    if labels and len(labels) != len(keys):
        lacking = next(file.name for file in files if file.label is None)
        raise DataError(
            f"{root / lacking} has no label column, other files of its split have one; set "
            "data.label_column, or move the file away."
        )
    return Rows(
        keys=tuple(keys),
        labels=labels or None,
        source=f"{files[0].name} and {len(files) - 1} more" if files[1:] else files[0].name,
        read=_Reader(root, files).read,
        files=tuple(file.name for file in files for _ in range(sum(file.groups))),
    )


def _by_column(root: Path, files: Sequence[_File], rows: Rows) -> dict[str, Rows]:
    """The rows by the words of a column of splits, where there is one; else all as train."""
    places: dict[str | None, list[int]] = {}
    row = 0
    for file in files:
        words = _values(root, file, file.split) if file.split else [None] * sum(file.groups)
        for word in words:
            places.setdefault(SPLIT_WORDS.get(str(word).strip().lower()), []).append(row)
            row += 1
    unknown = places.pop(None, [])
    if unknown and places:
        raise DataError(
            f"{root / rows.keys[unknown[0]]}: the column of splits must say "
            f"{', '.join(SPLIT_WORDS)} in all {row:,} rows, {len(unknown):,} say something else; "
            "correct them, none is skipped."
        )
    return {split: rows.chosen(of) for split, of in places.items() if split} or {"train": rows}


def _keys(root: Path, file: _File) -> list[str]:
    """File, row and, where the file has it, the image's own name."""
    rows = range(sum(file.groups))
    if file.paths is None:
        return [f"{file.name}/{row}" for row in rows]
    names = _values(root, file, file.paths)
    # Names are for the eye and for data.group; the row makes them differ.
    return [
        f"{file.name}/{row}/{name}"
        if isinstance(name, str) and _is_plain(name)
        else f"{file.name}/{row}"
        for row, name in zip(rows, names, strict=True)
    ]


def _is_plain(name: str) -> bool:
    return name.isprintable() and len(name) <= 255 and not name.startswith("/") and ".." not in name


def _labels(root: Path, file: _File) -> list[Label]:
    assert file.label is not None
    # Numbers become fractions where a program has a gap in them; two classes may be no and yes.
    values = [
        int(v) if isinstance(v, float) and v.is_integer() else str(v) if isinstance(v, bool) else v
        for v in _values(root, file, file.label)
    ]
    for row, value in enumerate(values):
        if not isinstance(value, int | str):
            raise DataError(
                f"{root / file.name}, row {row}: column {file.label!r} must give one class, a "
                f"whole number or a text, got {_short(repr(value))}; set data.label_column "
                "to a column of classes, or correct the row."
            )
    return values


def _short(value: object) -> str:
    """A value or an error of Arrow, whose text may have many lines, for a sentence."""
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:120]}..."


def _values(root: Path, file: _File, column: str) -> list[Any]:
    """All values of one column but that of the images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(root / file.name) as opened:
            table = opened.read(columns=[column])
    except (pa.ArrowException, OSError) as err:
        raise DataError(
            f"{root / file.name}: column {column!r} cannot be read ({_short(err)}); download the "
            "file again."
        ) from err
    found = table.column(0)
    for part in column.split(".")[1:]:
        kind = found.type.field(part).type  # string or, as some writers have it, large_string
        found = pa.chunked_array([chunk.field(part) for chunk in found.chunks], kind)
    values: list[Any] = found.to_pylist()
    return values


class _Reader:
    """Images of a split by number."""

    def __init__(self, root: Path, files: Sequence[_File]) -> None:
        self._root = root
        self._columns = {file.name: file.column for file in files}
        self._groups = [(file.name, i) for file in files for i in range(len(file.groups))]
        sizes = [rows for file in files for rows in file.groups]
        self._starts = [0, *accumulate(sizes)]
        self._blocks: Blocks[Group, list[bytes | None]] = Blocks(self._open)

    def read(self, index: int) -> Content:
        # The last group that starts there: empty ones start where the next one does.
        at = bisect_right(self._starts, index) - 1
        number, place = divmod(index - self._starts[at], IN_BLOCK)
        found = self._blocks.get(self._groups[at], number)[place]
        if not found:
            name = self._groups[at][0]
            before = next(i for i, group in enumerate(self._groups) if group[0] == name)
            raise DataError(
                f"{self._root / name}, row {index - self._starts[before]}: column "
                f"{self._columns[name]!r} has no bytes; the file does not hold this image, so "
                "write the set anew with its images embedded, or remove the row."
            )
        return found

    def _open(self, group: Group) -> Iterator[list[bytes | None]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        name, number = group
        column = self._columns[name]
        try:
            # Not ahead: that would take the memory of a whole row group, which may be a file.
            with pq.ParquetFile(self._root / name, buffer_size=BUFFER, pre_buffer=False) as file:
                for batch in file.iter_batches(
                    IN_BLOCK, row_groups=[number], columns=[column], use_threads=False
                ):
                    values = batch.column(0)
                    yield (values.field("bytes") if "." in column else values).to_pylist()
        except (pa.ArrowException, OSError) as err:
            raise DataError(
                f"{self._root / name}: images of row group {number} cannot be read "
                f"({_short(err)}); download the file again."
            ) from err
        raise DataError(f"{self._root / name} was changed while it was read; start again.")
