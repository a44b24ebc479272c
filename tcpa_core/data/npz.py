"""Arrays of pixels and classes in .npz files, as MedMNIST and Keras keep data sets.

`data.root` is the file, or a folder with one such file, or with one for each split (train.npz). An
array is known by the words in its name: a split, and either x, image(s), img(s) or data, or y,
label(s), target(s) or class(es): `x_train`, `y_train`, `train_images`, `val_labels`. Arrays without
the word of a split belong to that of their file, else to train. An array alone in its file, without
a name (`arr_0`), goes by the file's: kmnist-train-imgs.npz.

Images are uint8, [N, H, W, 3] or grey [N, H, W] and [N, H, W, 1]; [N, 3, H, W] and [N, 1, H, W] are
turned round. Classes are whole numbers or texts, [N] or [N, 1]; classes.txt names the numbers. No
array of Python objects is read, which would run code. Pixels are read in blocks, so that a file may
be larger than memory.

Source: array names of MedMNIST (arXiv:2110.14795) and of keras.datasets; numpy's format version 1.
"""

import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from tcpa_core.data._blocks import IN_BLOCK, Blocks
from tcpa_core.data._classes import listed
from tcpa_core.data._rows import (
    MAX_IMAGES,
    WORDS,
    Label,
    Rows,
    assemble,
    holds,
    names_beside,
    need_files,
    split_of,
)
from tcpa_core.data.base import Content, Listing
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

SUFFIXES = (".npz",)
IMAGE_WORDS = ("x", "image", "images", "img", "imgs", "data")
LABEL_WORDS = ("y", "label", "labels", "target", "targets", "class", "classes")
MAX_LABEL_BYTES = 1 << 30
MAX_IMAGE_BYTES = 1 << 28
BLOCK_BYTES = 1 << 25
"""Pixels that are read at once, at most."""
CHANNELS = (1, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Array:
    """An array in a file, of which only the header was read."""

    file: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)} {self.dtype}"


def draws_val(cfg: DataConfig) -> bool:
    """Whether val is split off here: where no array of it is there."""
    try:
        root, files = need_files(cfg, SUFFIXES)
        return all(split != "val" for split, _ in _sorted(_arrays(root, files)))
    except (DataError, ValueError):
        return True


def recognises(root: Path) -> bool:
    """Whether a folder has the layout."""
    return holds(root, SUFFIXES)


def read(cfg: DataConfig) -> Listing:
    """List the images of all arrays.

    Raises:
        ConfigError: data.root is not set.
        DataError: A file is damaged, an array has no such name, kind or shape, or there are arrays
            of several data sets.
    """
    root, files = need_files(cfg, SUFFIXES)
    arrays = _arrays(root, files)
    found: dict[str, Rows] = {}
    notes: list[str] = []
    for split, pair in _paired(root, arrays).items():
        images = pair.get("images")
        if images is None:
            raise DataError(
                f"{root / pair['labels'].file}: {split} has classes in {pair['labels'].name!r} but "
                f"no images; arrays are {listed(map(str, arrays))}."
            )
        labels = pair.get("labels")
        turned = _check_images(root, images)
        if turned:
            notes.append(
                f"{images.name} is {list(images.shape)}, channels first; it is turned round."
            )
        found[split] = Rows(
            keys=tuple(f"{images.file}/{images.name}/{i}" for i in range(images.shape[0])),
            labels=None if labels is None else _labels(root, labels, images),
            source=f"{images.file}, {images.name}",
            read=_Reader(root, images, turned).read,
            files=(images.file,) * images.shape[0],
        )
    return assemble(root, found, cfg, names=names_beside(root), notes=notes)


def _arrays(root: Path, files: list[str]) -> list[_Array]:
    """Names, shapes and kinds of all arrays."""
    found = []
    for file in files:
        path = root / file
        with _opened(path) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as stream:
                    shape, dtype = _header(stream, f"{path}, array {name!r}")
                    size = stream.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
                if size != member.file_size:
                    raise DataError(
                        f"{path}, array {name!r} has {member.file_size:,} bytes, its header says "
                        f"{size:,}; download the file again."
                    )
                found.append(_Array(file=file, name=name, shape=shape, dtype=dtype))
    return found


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; what is wrong with it is said as a `DataError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    # RuntimeError: a password; NotImplementedError: a compression that Python lacks.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as err:
        if isinstance(err, DataError):
            raise
        raise DataError(
            f"{path} is not a whole .npz file ({err}); download it again, or write it with "
            "numpy.savez."
        ) from err


def _header(stream: IO[bytes], place: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and kind of an array."""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    except ValueError as err:
        raise DataError(
            f"{place} is not a NumPy array ({err}); write it with numpy.savez."
        ) from err
    if dtype.hasobject or dtype.names:
        raise DataError(
            f"{place} holds Python objects or records ({dtype}), which are not read as they can "
            "run code; save plain arrays of numbers or texts."
        )
    if is_fortran and len(shape) > 1:
        raise DataError(f"{place} is stored column by column; save numpy.ascontiguousarray of it.")
    return shape, dtype


def _words(name: str) -> list[str]:
    """Words of a name in lower case: "trainX" and "train_x" are train and x."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def _sorted(arrays: list[_Array]) -> Iterator[tuple[str, tuple[str, _Array]]]:
    """Split and role of each array that has one."""
    known = {word for of_split in WORDS.values() for word in of_split}
    alone = Counter(array.file for array in arrays)
    for array in arrays:
        # A file of one array that nobody named: kmnist-train-imgs.npz.
        is_named = array.name != "arr_0" or alone[array.file] > 1
        words = _words(array.name if is_named else os.path.basename(array.file))
        # The second of two roles decides: "class_images", "image_labels".
        roles = [
            role
            for word in words
            for role, of_role in (("images", IMAGE_WORDS), ("labels", LABEL_WORDS))
            if word in of_role
        ]
        if roles:
            split = split_of("_".join(words)) if known & set(words) else split_of(array.file)
            yield split or "train", (roles[-1], array)


def _paired(root: Path, arrays: list[_Array]) -> dict[str, dict[str, _Array]]:
    """Arrays by split and role."""
    found: dict[str, dict[str, _Array]] = {}
    for split, (role, array) in _sorted(arrays):
        other = found.setdefault(split, {}).setdefault(role, array)
        if other is not array:
            raise DataError(
                f"two arrays give the {role} of {split} below {root.absolute()}: {other.name!r} of "
                f"{other.file} and {array.name!r} of {array.file}; set data.root to the file of "
                "one data set, or take one array out."
            )
    if not any("images" in pair for pair in found.values()):
        raise DataError(
            f"no array below {root.absolute()} is named as images of a split: arrays are "
            f"{listed(map(str, arrays)) or 'none'}; name them x_train, y_train, x_test, y_test, or "
            "train_images, train_labels, ..."
        )
    return found


def _check_images(root: Path, array: _Array) -> bool:
    """Refuse what is no pixels; whether channels come first."""
    place = f"{root / array.file}, array {array.name!r}"
    if array.dtype != np.uint8:
        raise DataError(
            f"{place} is of {array.dtype}, but pixels are read as uint8, 0 to 255; save "
            "(255 * x).round().astype('uint8') for values of 0 to 1."
        )
    shape = array.shape
    last = len(shape) == 3 or (len(shape) == 4 and shape[3] in CHANNELS)
    first = len(shape) == 4 and shape[1] in CHANNELS
    if not (last or first) or 0 in shape:
        raise DataError(
            f"{place} has shape {list(shape)}, but images are [N, H, W, 3], [N, H, W, 1], "
            "[N, H, W] or channels first; reshape it, volumes are not read."
        )
    if shape[0] > MAX_IMAGES or _image_bytes(array) > MAX_IMAGE_BYTES:
        raise DataError(
            f"{place} has {shape[0]:,} images of {_image_bytes(array):,} bytes, at most "
            f"{MAX_IMAGES:,} of {MAX_IMAGE_BYTES:,} can be read."
        )
    return not last


def _image_bytes(array: _Array) -> int:
    return int(np.prod(array.shape[1:], dtype=object))


def _labels(root: Path, array: _Array, images: _Array) -> list[Label]:
    place = f"{root / array.file}, array {array.name!r}"
    shape, dtype = array.shape, array.dtype
    if (
        len(shape) not in (1, 2)
        or shape[0] != images.shape[0]
        or (len(shape) == 2 and shape[1] != 1)
    ):
        raise DataError(
            f"{place} has shape {list(shape)}, but {images.name!r} has {images.shape[0]:,} images, "
            "each with one class; several labels of an image and one-hot rows are not read, save "
            "their argmax."
        )
    unfit = DataError(
        f"{place} is of {dtype}, but classes are whole numbers or short texts; save it as int64."
    )
    if dtype.kind not in "iufUS" or dtype.itemsize * shape[0] > MAX_LABEL_BYTES:
        raise unfit
    with _opened(root / array.file) as archive, archive.open(f"{array.name}.npy") as stream:
        _header(stream, place)
        values = np.frombuffer(_exactly(stream, shape[0] * dtype.itemsize), dtype)
    if dtype.kind == "f":
        if not (np.mod(values, 1) == 0).all():
            raise unfit
        values = values.astype(np.int64)
    if dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    labels: list[Label] = values.tolist()
    return labels


def _exactly(stream: IO[bytes], count: int) -> bytes:
    found = stream.read(count)
    if len(found) != count:
        raise EOFError("it ends too early")
    return found


class _Reader:
    """Images of one array by number."""

    def __init__(self, root: Path, array: _Array, turned: bool) -> None:
        self._root = root
        self._array = array
        self._turned = turned
        self._in_block = max(1, min(IN_BLOCK, BLOCK_BYTES // _image_bytes(array)))
        self._blocks: Blocks[str, npt.NDArray[np.uint8]] = Blocks(self._open)

    def read(self, index: int) -> Content:
        number, place = divmod(index, self._in_block)
        pixels = self._blocks.get(self._array.name, number)[place]
        if self._turned:
            pixels = pixels.transpose(1, 2, 0)
        grey = pixels.ndim == 3 and pixels.shape[2] == 1
        return np.ascontiguousarray(pixels[..., 0] if grey else pixels)

    def _open(self, name: str) -> Iterator[npt.NDArray[np.uint8]]:
        path, shape = self._root / self._array.file, self._array.shape
        size, step = _image_bytes(self._array), self._in_block
        with _opened(path) as archive, archive.open(f"{name}.npy") as stream:
            _header(stream, f"{path}, array {name!r}")
            for start in range(0, shape[0], step):
                count = min(step, shape[0] - start)
                pixels = np.frombuffer(_exactly(stream, count * size), np.uint8)
                yield pixels.reshape(count, *shape[1:])
        raise DataError(f"{path} was changed while it was read; start again.")
