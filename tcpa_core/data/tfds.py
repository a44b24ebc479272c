"""TFRecord files as TensorFlow Datasets leaves them, read without TensorFlow.

`data.root` is the folder of one data set, `cifar100/` or `cifar100/3.0.2/`, with
`cifar100-train.tfrecord-00000-of-00001` and so on. Each record is a tf.train.Example with an image
file's bytes (`image`, or `data.image_column`) and a class (`label`, or `data.label_column`);
`label.labels.txt` beside the records names the classes. Splits are told by file names.

Records are found once, by the lengths that they state; images are passed over until they are read.
The splits are those of the files: VTAB's 1,000 images of a set are not chosen here.

Source: the formats TFRecord and tf.train.Example (protocol buffers: tensorflow/core/example).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcpa_core.data._blocks import Spans
from tcpa_core.data._classes import listed
from tcpa_core.data._rows import (
    MAX_IMAGES,
    Label,
    Rows,
    assemble,
    by_split,
    holds,
    lack_val,
    names_of,
    need_files,
    usual_column,
)
from tcpa_core.data.base import Listing
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

USES = ("image_column", "label_column")
SUFFIXES = (".tfrecord", ".tfrecords")
IMAGES = ("image", "image/encoded", "img", "image_raw")
LABELS = ("label", "fine_label", "image/class/label", "class", "target")
FRAME = 12
"""Bytes before a record: its length and a checksum of that; four more with its own stand behind."""
AHEAD = 256
"""Bytes that are read at once for the fields of a record; only images are longer."""
MAX_NAME = 1024
VARINT, BYTES = 0, 2

Span = tuple[int, int]
"""Where something begins in the file, and where it ends."""


def draws_val(cfg: DataConfig) -> bool:
    """Whether val is split off here: where no file is named after it."""
    return lack_val(cfg, SUFFIXES)


def recognises(root: Path) -> bool:
    """Whether a folder has the layout."""
    try:
        versions = [entry.path for entry in os.scandir(root) if entry.name[:1].isdigit()]
    except OSError:
        return False
    return any(holds(place, SUFFIXES) for place in (root, *map(Path, versions)))


def read(cfg: DataConfig) -> Listing:
    """List the records of all files.

    Raises:
        ConfigError: data.root is not set.
        DataError: A file is damaged or compressed, or a record lacks its image or class.
    """
    root, files = need_files(cfg, SUFFIXES)
    folders = {os.path.dirname(file) for file in files}
    if len(folders) > 1:
        raise DataError(
            f"{root.absolute()} holds {len(folders)} data sets or versions: "
            f"{listed(sorted(folders))}; add one of them to data.root."
        )
    named, notes = by_split(files)
    found = {split: _rows(root, of_split, cfg) for split, of_split in named.items()}
    label = cfg.label_column or "label"
    return assemble(root, found, cfg, names=names_of(root, f"{label}.labels.txt"), notes=notes)


def _rows(root: Path, files: Sequence[str], cfg: DataConfig) -> Rows:
    """All records of one split."""
    keys: list[str] = []
    labels: list[Label] = []
    places: list[tuple[str, int, int]] = []
    for file in files:
        for number, ((start, end), label) in enumerate(_Records(root / file, cfg)):
            keys.append(f"{file}/{number}")
            places.append((file, start, end - start))
            if label is not None:
                labels.append(label)
            if len(keys) > MAX_IMAGES:
                raise DataError(f"{root / file}: more than {MAX_IMAGES:,} records; take a part.")
    if labels and len(labels) != len(keys):
        raise DataError(
            f"{len(keys) - len(labels):,} of {len(keys):,} records of {files[0]} and its other "
            f"shards below {root} have no class; restore the files, no record is skipped."
        )

    return Rows(
        keys=tuple(keys),
        labels=labels or None,
        source=f"{files[0]} and {len(files) - 1} more" if files[1:] else files[0],
        read=Spans(root, places).read,
        files=tuple(file for file, _, _ in places),
    )


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a message: its number, and its value or where its bytes stand."""

    number: int
    value: int
    span: Span


class _Records:
    """Image and class of each record of a file."""

    def __init__(self, path: Path, cfg: DataConfig) -> None:
        self._path = path
        self._cfg = cfg
        self._start = 0
        self._ahead = b""

    def __iter__(self) -> Iterator[tuple[Span, Label | None]]:
        try:
            size = self._path.stat().st_size
            with self._path.open("rb", buffering=0) as self._file:
                at = number = 0
                while at < size:
                    end = at + FRAME + int.from_bytes(self._bytes(at, at + 8), "little")
                    if end + 4 > size:
                        is_packed = at == 0 and self._bytes(0, 3) == b"\x1f\x8b\x08"
                        why = "ends behind the end of the file"
                        raise self._error(number, "is compressed (gzip)" if is_packed else why)
                    yield self._record((at + FRAME, end), number)
                    at, number = end + 4, number + 1
        except OSError as err:
            raise DataError(f"{self._path} cannot be read: {err.strerror}; check it.") from err

    def _record(self, span: Span, number: int) -> tuple[Span, Label | None]:
        # Example {1: Features {1: repeated entry {1: name, 2: Feature}}}
        entries: dict[str, Span] = {}
        for features in self._fields(span, number):
            for entry in self._fields(features.span, number):
                parts = {one.number: one.span for one in self._fields(entry.span, number)}
                if 1 not in parts or 2 not in parts or parts[1][1] - parts[1][0] > MAX_NAME:
                    raise self._error(number, "is no tf.train.Example")
                name = self._bytes(*parts[1]).decode("utf-8", "replace")
                entries[name] = parts[2]
        image = usual_column(list(entries), IMAGES, self._cfg.image_column)
        label = usual_column(list(entries), LABELS, self._cfg.label_column)
        if image is None:
            raise self._error(
                number,
                f"has no feature {self._cfg.image_column or ' or '.join(IMAGES)}, but "
                f"{listed(entries)}; set data.image_column to one of them",
            )
        return self._image(entries[image], number), (
            None if label is None else self._label(entries[label], number)
        )

    def _image(self, feature: Span, number: int) -> Span:
        # Feature {1: BytesList {1: repeated bytes}}
        spans = [
            value.span
            for kind in self._fields(feature, number)
            if kind.number == 1
            for value in self._fields(kind.span, number)
        ]
        if len(spans) != 1:
            raise self._error(number, f"has {len(spans)} texts of bytes for an image, not one")
        return spans[0]

    def _label(self, feature: Span, number: int) -> Label:
        # Feature {1: BytesList {1: bytes}} or {3: Int64List {1: numbers, packed or not}}
        labels: list[Label] = []
        for kind in self._fields(feature, number):
            for value in self._fields(kind.span, number):
                start, end = value.span
                if kind.number == 1 and end - start <= MAX_NAME:
                    labels.append(self._bytes(start, end).decode("utf-8", "replace"))
                elif kind.number == 3 and end > start:
                    while start < end and len(labels) < 2:
                        one, start = self._varint(start, end, number)
                        labels.append(one - (1 << 64) if one >> 63 else one)
                elif kind.number == 3:
                    labels.append(value.value)
        if len(labels) != 1:
            raise self._error(number, "must give one class, a whole number or a short text")
        return labels[0]

    def _fields(self, span: Span, number: int) -> Iterator[_Field]:
        """Fields of the message that stands there."""
        at, end = span
        while at < end:
            tag, at = self._varint(at, end, number)
            value, at = self._varint(at, end, number)
            if tag & 7 == BYTES:
                if at + value > end:
                    raise self._error(number, "has a field that is longer than the record")
                yield _Field(tag >> 3, 0, (at, at + value))
                at += value
            elif tag & 7 == VARINT:
                yield _Field(tag >> 3, value, (at, at))
            else:
                raise self._error(number, "is no tf.train.Example")

    def _varint(self, at: int, end: int, number: int) -> tuple[int, int]:
        value = 0
        for shift, byte in enumerate(self._bytes(at, min(end, at + 10))):
            value |= (byte & 0x7F) << 7 * shift
            if byte < 0x80:
                return value, at + shift + 1
        raise self._error(number, "is no tf.train.Example")

    def _bytes(self, start: int, end: int) -> bytes:
        """Bytes of the file, a few at a time, so that images are not read."""
        if not self._start <= start <= end <= self._start + len(self._ahead):
            self._start = start
            self._ahead = os.pread(self._file.fileno(), max(AHEAD, end - start), start)
        return self._ahead[start - self._start : end - self._start]

    def _error(self, number: int, why: str) -> DataError:
        return DataError(
            f"{self._path}, record {number} {why}; the file must hold plain TFRecords of "
            "tf.train.Example, download or write it again."
        )
