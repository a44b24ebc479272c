"""Decoded pixels on disk: written once per image list and resize rule, mapped by every process.

One file per split, named by what it contains; nothing in it depends on labels, paths or the data
set's name. Layout, little-endian:

    pixels   uint8, image after image; each as three planes (red, green, blue), row by row
    table    int64 [n, 6]: height, width, CRC-32 of the image's bytes, lowest and highest value,
             1 where every pixel has the same colour
    footer   JSON: schema, key, count, table_crc
    end      uint64 length of the footer, then 8 bytes MAGIC

A file appears under its name only when complete (rename), and is checked byte for byte when opened.
"""

import fcntl
import json
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from tcpa_core.data._parallel import ordered_map
from tcpa_core.errors import DataError

SCHEMA = 3
_COLUMNS = 6
MAGIC = b"TCPAPIX\n"
_END = struct.Struct("<Q8s")

Progress = Callable[[str, int, int], None]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ImageStore:
    """Resized RGB images of one split, mapped from the cache."""

    pixels: Pixels
    """All images one after another [sum of height * width * 3]. A private mapping: processes share
    the page cache, and a write would stay in the process."""
    offsets: npt.NDArray[np.int64]
    """Position of each image's first byte in `pixels` [n]."""
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    lows: npt.NDArray[np.int64]
    """Lowest value of each image [n]."""
    highs: npt.NDArray[np.int64]
    flat: npt.NDArray[np.bool_]
    """Every pixel has the same colour [n]."""
    is_kept: bool = True
    """The cache has them; False: they were decoded for this process alone."""

    def __len__(self) -> int:
        return len(self.heights)

    def image(self, index: int) -> Pixels:
        """Pixels [height, width, 3] of one image, a view."""
        height, width = int(self.heights[index]), int(self.widths[index])
        start = int(self.offsets[index])
        planes = self.pixels[start : start + height * width * 3].reshape(3, height, width)
        return planes.transpose(1, 2, 0)


# Two packs of one process that keep nothing share what was decoded, as long as one holds it.
_passing: WeakValueDictionary[str, ImageStore] = WeakValueDictionary()


class BrokenImages(DataError):
    """Images of a split that cannot be decoded: why, by their number."""

    def __init__(self, found: Mapping[int, str]) -> None:
        super().__init__(next(iter(found.values())))
        self.found = found


def cache_root(cache_dir: Path | None = None) -> Path:
    """The cache folder: the argument, else $TCPA_CACHE, else ~/.cache/tcpa.

    Files in it can be deleted at any time; they are made again when needed.
    """
    return Path(cache_dir or os.environ.get("TCPA_CACHE") or "~/.cache/tcpa").expanduser()


def open_or_build(
    folder: Path,
    key: str,
    count: int,
    decode: Callable[[int], Pixels],
    progress: Progress | None,
    stage: str,
    *,
    keep: bool = True,
) -> ImageStore:
    """Open a cache entry; make it first when it is absent or damaged.

    Of several processes that need the same entry one makes it and the others wait.

    Args:
        folder: Where entries lie; made when absent.
        key: Hash of everything that the pixels depend on.
        count: Number of images.
        decode: Gives the pixels [height, width, 3] of one image; called from several threads.
        progress: Called with (stage, images done, count) from this thread.
        stage: What is being done, for `progress`.
        keep: False: an entry that is absent is made in a file without a name, which is gone with
            the store; the cache folder stays as it is.

    Raises:
        BrokenImages: Images cannot be decoded; all of them are named.
        DataError: The folder cannot be written.
    """
    path = folder / f"{key}.pixels"
    with using(folder):
        store = _open(path, key, count, repair=keep)
        if store is not None:
            return store
        if not keep:
            return _in_passing(key, count, decode, progress, stage)
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f"{key}.lock", progress, stage, count):
            # Asked again: whoever held the lock may have made it in the meantime.
            store = _open(path, key, count)
            if store is None:
                with _temporary(path) as (temp, file):
                    _build(file, key, count, decode, progress, stage)
                    file.close()
                    temp.replace(path)
                # Read back and checked, so that a disk that loses data is found out now.
                store = _open(path, key, count)
    if store is None:
        raise DataError(
            f"cache entry {path} is damaged right after writing; the disk or the file system loses "
            f"data. Set TCPA_CACHE to a folder on another disk."
        )
    return store


@contextmanager
def using(folder: Path, variable: str = "TCPA_CACHE") -> Iterator[None]:
    """Turn a failure to read or write below `folder` into a `DataError` that says what to do."""
    try:
        yield
    except OSError as err:
        raise DataError(
            f"cache folder {folder} cannot be used ({err.strerror or err}); make room or set "
            f"{variable} to a folder with room and write permission."
        ) from err


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file so that readers see the old or the new one, never a part."""
    with _temporary(path) as (temp, file):
        file.write(data)
        file.close()
        temp.replace(path)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, "tempfile._TemporaryFileWrapper[bytes]"]]:
    """A new file beside `path`, removed at the end unless it was renamed."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.name}.", suffix=".tmp", delete=False
    ) as file:
        temp = Path(file.name)
        try:
            yield temp, file
        finally:
            temp.unlink(missing_ok=True)


@contextmanager
def _lock(path: Path, progress: Progress | None, stage: str, count: int) -> Iterator[None]:
    """Hold the lock of an entry; it is free again when its holder dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if progress:
                progress(f"{stage} (waiting for another process)", 0, count)
            fcntl.flock(file, fcntl.LOCK_EX)
        # Safe only here: nobody else writes this entry while the lock is held.
        for leftover in path.parent.glob(f"{path.stem}.pixels.*.tmp"):  # of a killed holder
            leftover.unlink(missing_ok=True)
        yield


def _in_passing(
    key: str,
    count: int,
    decode: Callable[[int], Pixels],
    progress: Progress | None,
    stage: str,
) -> ImageStore:
    """The images in a file that has no name and is not kept; the same while somebody holds them."""
    store = _passing.get(key)
    if store is not None:
        return store
    with using(Path(tempfile.gettempdir()), "TMPDIR"), tempfile.TemporaryFile() as file:
        _build(file, key, count, decode, progress, stage)
        file.flush()
        # The mapping outlives the file's handle; the space is free once the last store is gone.
        store = _checked(np.memmap(file, np.uint8, mode="c"), key, count)
    _passing[key] = store = replace(store, is_kept=False)
    return store


def _build(
    file: IO[bytes],
    key: str,
    count: int,
    decode: Callable[[int], Pixels],
    progress: Progress | None,
    stage: str,
) -> None:
    def checked(index: int) -> tuple[Pixels, list[int]] | str:
        try:
            # Channels first, as a batch wants them: turned once here instead of in every epoch.
            planes = np.ascontiguousarray(decode(index).transpose(2, 0, 1))
        except DataError as err:
            return str(err)
        lows, highs = planes.min(axis=(1, 2)), planes.max(axis=(1, 2))
        about = [_crc(planes), int(lows.min()), int(highs.max()), int((lows == highs).all())]
        return planes, [*planes.shape[1:], *about]

    table = np.zeros((count, _COLUMNS), "<i8")
    broken: dict[int, str] = {}
    for index, done in enumerate(ordered_map(checked, range(count))):
        if isinstance(done, str):
            broken[index] = done
        # After the first broken image the rest is decoded only to name all that are broken.
        elif not broken:
            planes, table[index] = done
            file.write(planes.data)
        if progress:
            progress(stage, index + 1, count)
    if broken:
        raise BrokenImages(broken)
    # At the end: the sizes of images are known only when all are written, and an entry whose
    # writing broke off has no end.
    footer = {"schema": SCHEMA, "key": key, "count": count, "table_crc": zlib.crc32(table.data)}
    text = json.dumps(footer).encode()
    file.write(table.tobytes() + text + _END.pack(len(text), MAGIC))


def _open(path: Path, key: str, count: int, *, repair: bool = True) -> ImageStore | None:
    """Map an entry and check all of it; None when it is absent or damaged.

    Args:
        repair: Remove a damaged one.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    try:
        return _checked(np.memmap(path, np.uint8, mode="c"), key, count)
    except ValueError as err:
        warnings.warn(
            f"cache entry {path} ({size} bytes) is damaged: {err}; it is made again. If this "
            f"recurs, check the disk.",
            RuntimeWarning,
            stacklevel=4,
        )
        if repair:
            path.unlink(missing_ok=True)
        return None


def _crc(pixels: Pixels) -> int:
    return zlib.crc32(pixels.data)


def _checked(file: "np.memmap[tuple[int], np.dtype[np.uint8]]", key: str, count: int) -> ImageStore:
    """Read the parts of an entry.

    Raises:
        ValueError: A part is missing or altered (also by numpy and json).
    """
    if len(file) < _END.size:
        raise ValueError("it is too short")
    length, magic = _END.unpack(file[-_END.size :].tobytes())
    table_end = len(file) - _END.size - length
    table_start = table_end - count * _COLUMNS * 8
    if magic != MAGIC or table_start < 0:
        raise ValueError("its end is missing")
    footer = json.loads(file[table_end : -_END.size].tobytes())
    table = np.frombuffer(file[table_start:table_end].tobytes(), "<i8").reshape(count, _COLUMNS)
    expected = {"schema": SCHEMA, "key": key, "count": count, "table_crc": zlib.crc32(table.data)}
    if footer != expected:
        raise ValueError("its footer does not describe it")
    pixels = np.asarray(file[:table_start])
    heights, widths, crcs, lows, highs, flat = (np.ascontiguousarray(column) for column in table.T)
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(heights * widths * 3)])
    if bounds[-1] != table_start:
        raise ValueError("its pixels are not complete")
    parts = (pixels[start:end] for start, end in pairwise(bounds.tolist()))
    for index, crc in enumerate(ordered_map(_crc, parts)):
        if crc != crcs[index]:
            raise ValueError(f"the checksum of image {index} differs")
    return ImageStore(pixels, bounds[:-1], heights, widths, lows, highs, flat.astype(bool))
