"""MATLAB files of version 5 to 7.2: lists and labels of older data sets, and the pixels of SVHN.

Read here and not by SciPy, whose parser ends the whole process on some damaged files. Only what
such files hold is read: numbers, texts, cells and structures. Sizes are compared with what is
there, and with `MAX_BYTES`, before memory is taken.

Source: The MathWorks, "MAT-File Format", level 5.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tcpa_core.errors import DataError

MAX_BYTES = 1 << 31
"""Of a file, and of a variable once it is unpacked: more than SVHN's extra split."""
MAX_DEPTH = 8
"""Cells in cells."""
_HEADER = 128
_HEAD = 1024
"""Bytes in which a variable's name and shape stand."""
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8",
           13: "u8"}  # fmt: skip
"""How numbers are stored, which may be shorter than their class."""
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8",
            15: "u8"}  # fmt: skip
_CELL, _STRUCT, _CHAR = 1, 2, 4
_TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}

Order = Literal["little", "big"]
Shape = tuple[int, ...]


class _Variable(NamedTuple):
    """Where a variable lies in its file."""

    shape: Shape
    start: int
    size: int
    is_packed: bool


def shapes_of(path: Path, names: Sequence[str]) -> dict[str, Shape]:
    """Shapes of some variables; nothing of them is loaded.

    Raises:
        DataError: As `read_mat`.
    """
    with _opened(path) as (file, order):
        found = _variables(path, file, order)
        return {name: _named(path, found, name).shape for name in names}


def read_mat(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Some variables of a file: arrays of numbers, lists of texts and of cells, structures as
    {field: list}.

    Raises:
        DataError: The file is missing, no MATLAB file of version 5 to 7.2, too large, damaged, or
            lacks a variable.
    """
    with _opened(path) as (file, order):
        found = _variables(path, file, order)
        read = {}
        for name in names:
            variable = _named(path, found, name)
            file.seek(variable.start)
            content = file.read(variable.size)
            if variable.is_packed:
                content = _element(memoryview(_unpack(content, MAX_BYTES)), 0, order)[1].tobytes()
            read[name] = _matrix(memoryview(content), order, 0)
        return read


def numbers(path: Path, values: Any) -> list[int]:
    """Whole numbers of a variable, one after the other.

    Raises:
        DataError: Some value is none.
    """
    try:
        found = [float(one) for one in _flat(values)]
        if any(one != int(one) for one in found):
            raise ValueError("a fraction")
        return [int(one) for one in found]
    except (TypeError, ValueError, OverflowError) as err:
        raise DataError(f"{path}: labels must be whole numbers ({err}); restore it.") from err


def texts(values: Any) -> list[str]:
    """Texts of a variable, one after the other."""
    return [str(one).strip() for one in _flat(values)]


def _flat(values: Any) -> Iterable[Any]:
    if isinstance(values, np.ndarray):
        yield from values.ravel(order="F").tolist()
    elif isinstance(values, list):
        for one in values:
            yield from _flat(one)
    else:
        yield values


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Order]]:
    """The file behind its header, and its byte order. Whatever breaks while it is read is said."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER)
            if head[:8] == b"\x89HDF\r\n\x1a\n" or head.startswith(b"MATLAB 7.3"):
                raise DataError(
                    f"{path} is a MATLAB 7.3 file (HDF5), which is not read; save it with "
                    "version 7."
                )
            if len(head) < _HEADER or head[-2:] not in (b"IM", b"MI"):
                raise _BrokenError("its header is not that of version 5")
            if path.stat().st_size > MAX_BYTES:
                raise _BrokenError(f"more than {MAX_BYTES:,} bytes")
            yield file, "little" if head[-2:] == b"IM" else "big"
    except FileNotFoundError as err:
        raise DataError(
            f"file {path.name} is missing below {path.parent.absolute()}; unpack its archive again."
        ) from err
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err.strerror}; check its rights.") from err
    except (_BrokenError, zlib.error, ValueError, OverflowError) as err:
        raise DataError(f"{path} is no MATLAB file, or damaged ({err}); restore it.") from err


class _BrokenError(Exception):
    """What is wrong with a file."""


def _variables(path: Path, file: BinaryIO, order: Order) -> dict[str, _Variable]:
    found = {}
    end = path.stat().st_size
    start = _HEADER
    while start + 8 <= end:
        file.seek(start)
        tag = file.read(8)
        kind, size = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
        if kind not in (_MATRIX, _COMPRESSED) or start + 8 + size > end:
            raise _BrokenError(f"no variable at byte {start:,}, or a part of it")
        head = file.read(min(size, _HEAD))
        if kind == _COMPRESSED:
            head = _unpack(head, _HEAD)[8:]
        _, shape, name, _ = _described(memoryview(head), order)
        found[name] = _Variable(shape, start + 8, size, kind == _COMPRESSED)
        start += 8 + size
    return found


def _named(path: Path, found: dict[str, _Variable], name: str) -> _Variable:
    if name not in found:
        raise DataError(
            f"{path} has no variable {name!r}, it has {sorted(found)[:10]}; it is another file."
        )
    return found[name]


def _unpack(content: bytes, limit: int) -> bytes:
    """The first bytes of what is packed.

    Raises:
        _BrokenError: All of a variable is wanted, and is larger than the limit.
    """
    unpacker = zlib.decompressobj()
    head = unpacker.decompress(content, min(limit, _HEAD))
    if limit <= _HEAD:
        return head
    rest = unpacker.decompress(unpacker.unconsumed_tail, limit)
    if unpacker.unconsumed_tail:
        raise _BrokenError(f"a variable of more than {limit:,} bytes once it is unpacked")
    return head + rest


def _element(data: memoryview, at: int, order: Order) -> tuple[int, memoryview, int]:
    """Type and content of an element, and where the next one begins."""
    word = int.from_bytes(data[at : at + 4], order)
    small = word >> 16
    size = small or int.from_bytes(data[at + 4 : at + 8], order)
    start = at + (4 if small else 8)
    if at + 8 > len(data) or start + size > len(data) or small > 4:
        raise _BrokenError("an element is cut off")
    return word & 0xFFFF, data[start : start + size], at + 8 + (0 if small else (size + 7) // 8 * 8)


def _described(data: memoryview, order: Order) -> tuple[int, Shape, str, int]:
    """Class, shape and name of a variable, and where its content begins."""
    _, flags, at = _element(data, 0, order)
    _, axes, at = _element(data, at, order)
    _, name, at = _element(data, at, order)
    shape = tuple(np.frombuffer(axes, _typed("i4", order)).tolist())
    if len(flags) < 4 or any(n < 0 for n in shape) or prod(shape) > MAX_BYTES:
        raise _BrokenError(f"a variable of shape {shape}")
    return int.from_bytes(flags[:4], order) & 0xFF, shape, name.tobytes().decode("latin1"), at


def _matrix(data: memoryview, order: Order, depth: int) -> Any:
    """A variable, or what is in a cell or field."""
    if not data:
        return [""]  # so that what is beside it keeps its place
    if depth > MAX_DEPTH:
        raise _BrokenError(f"cells in more than {MAX_DEPTH} cells")
    kind, shape, _, at = _described(data, order)
    if kind in _CLASSES:
        stored, content, _ = _element(data, at, order)
        if stored not in _STORED:
            raise _BrokenError(f"numbers of type {stored}")
        found = np.frombuffer(content, _typed(_STORED[stored], order))
        return found.astype(_CLASSES[kind], copy=False).reshape(shape, order="F")
    if kind == _CHAR:
        return _rows_of_text(data, at, shape, order)
    if kind == _CELL:
        return _items(data, at, prod(shape), order, depth)[0]
    if kind == _STRUCT:
        return _fields(data, at, prod(shape), order, depth)
    raise _BrokenError(f"a variable of class {kind}, which is not read")


def _rows_of_text(data: memoryview, at: int, shape: Shape, order: Order) -> list[str]:
    stored, content, _ = _element(data, at, order)
    codec = _TEXTS.get(stored, "latin1")
    if codec in ("utf-16", "utf-32"):
        codec += "-le" if order == "little" else "-be"
    text = content.tobytes().decode(codec, errors="replace")
    rows = shape[0] if shape else 0
    # Column by column: the first letters of all rows stand together.
    return [text[row::rows] for row in range(min(rows, len(text)))] or [""]


def _items(
    data: memoryview, at: int, count: int, order: Order, depth: int
) -> tuple[list[Any], int]:
    """So many variables, one after the other, and where they end."""
    if count > len(data) // 8:
        raise _BrokenError(f"{count:,} cells in {len(data):,} bytes")
    found = []
    for _ in range(count):
        _, content, at = _element(data, at, order)
        found.append(_matrix(content, order, depth + 1))
    return found, at


def _fields(
    data: memoryview, at: int, count: int, order: Order, depth: int
) -> dict[str, list[Any]]:
    _, length, at = _element(data, at, order)
    _, content, at = _element(data, at, order)
    width = int.from_bytes(length[:4], order)
    if width < 1:
        raise _BrokenError("fields without names")
    text = content.tobytes()
    names = [
        text[i : i + width].split(b"\0")[0].decode("latin1") for i in range(0, len(text), width)
    ]
    items, _ = _items(data, at, count * len(names), order, depth)
    return {name: items[i :: len(names)] for i, name in enumerate(names)}


def _typed(kind: str, order: Order) -> npt.DTypeLike:
    return f"{'<' if order == 'little' else '>'}{kind}"
