"""MATLAB files: lists and labels of older data sets, and the pixels of SVHN."""

import zlib
from collections.abc import Collection, Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from tcpa_core.errors import DataError

MAX_ITEMS = 1 << 31
"""Numbers in a variable, and bytes of a file once it is unpacked: more than SVHN's extra split."""
_HEADER = 128
_COMPRESSED = 15
_CHUNK = 1 << 20


def read_mat(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Some variables of a file, without their axes of length one.

    Sizes are looked up before anything is loaded; what is packed is unpacked in small pieces first
    to see how much it is.

    Raises:
        DataError: The file is missing, no MATLAB file of version 4 to 7.2, too large, damaged, or
            lacks a variable.
    """
    from scipy.io import loadmat, whosmat  # take longer to import than most lists to read

    check_shapes(path, names)
    every = [name for name, _, _ in whosmat(path)]
    _check_unpacked(path, {every.index(name) for name in names})
    try:
        found = loadmat(path, variable_names=list(names), squeeze_me=True)
        return {name: np.atleast_1d(found[name]) for name in names}
    except Exception as err:  # scipy's parser raises of every kind on damaged bytes
        raise _damaged(path, err) from err


def check_shapes(path: Path, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of some variables; nothing of them is loaded.

    Raises:
        DataError: As `read_mat`.
    """
    from scipy.io import whosmat

    if not path.is_file():
        raise DataError(f"file {path.name} is missing below {path.parent.absolute()}.")
    try:
        shapes = {name: tuple(map(int, shape)) for name, shape, _ in whosmat(path)}
    except NotImplementedError as err:
        raise DataError(
            f"{path} is a MATLAB 7.3 file (HDF5), which is not read; save it with version 7."
        ) from err
    except Exception as err:
        raise _damaged(path, err) from err
    for name in names:
        if name not in shapes:
            raise DataError(
                f"{path} has no variable {name!r}, it has {sorted(shapes)}; it is another file."
            )
        if np.prod(shapes[name], dtype=float) > MAX_ITEMS:
            raise DataError(f"{path}: variable {name!r} of shape {shapes[name]} is too large.")
    return {name: shapes[name] for name in names}


def numbers(path: Path, values: npt.NDArray[Any]) -> list[int]:
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
        raise DataError(f"{path}: labels must be whole numbers ({err}).") from err


def texts(values: npt.NDArray[Any]) -> list[str]:
    """Texts of a variable, one after the other."""
    return [str(one).strip() for one in _flat(values)]


def _flat(values: Any) -> Iterable[Any]:
    """Scalars in arrays of arrays, which is what cells are loaded as."""
    for one in np.asarray(values).ravel():
        if isinstance(one, np.ndarray):
            yield from _flat(one)
        else:
            yield one


def _check_unpacked(path: Path, wanted: Collection[int]) -> None:
    """Refuse variables that are larger than any data set's once unpacked: few bytes can be many.

    Args:
        wanted: Numbers of the variables in the file; others are passed over.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEADER)
        order: Literal["little", "big"] = "little" if head[-2:] == b"IM" else "big"
        if total > MAX_ITEMS:
            raise DataError(f"{path} has {total:,} bytes, more than {MAX_ITEMS:,}.")
        for number in count():
            if len(tag := file.read(8)) < 8:
                return
            kind = int.from_bytes(tag[:4], order)
            size = int.from_bytes(tag[4:], order)
            if kind != _COMPRESSED or number not in wanted:
                file.seek(size, 1)
                continue
            total += _unpacked(path, file, size)
            if total > MAX_ITEMS:
                raise DataError(
                    f"{path} is more than {MAX_ITEMS:,} bytes once unpacked; no data set has such "
                    "a file."
                )


def _unpacked(path: Path, file: BinaryIO, size: int) -> int:
    """Bytes that the next ones of a file become, or the first number above `MAX_ITEMS`."""
    unpacker = zlib.decompressobj()
    total = 0
    while size > 0 and (piece := file.read(min(size, _CHUNK))):
        size -= len(piece)
        while piece and total <= MAX_ITEMS:
            try:
                total += len(unpacker.decompress(piece, 16 * _CHUNK))
            except zlib.error as err:
                raise _damaged(path, err) from err
            piece = unpacker.unconsumed_tail
    return total


def _damaged(path: Path, err: Exception) -> DataError:
    return DataError(f"{path} is no MATLAB file, or damaged ({err}); restore it.")
