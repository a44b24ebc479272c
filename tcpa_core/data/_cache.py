"""Decoded pixels on disk: written once per image list and resize rule, mapped by every process.

Pictures that the resize would enlarge are stored at their own size (`ResizeRule.stored_size`).

One file per split, named by what it contains; nothing in it depends on labels, paths or the data
set's name. Layout, little-endian:

    pixels   uint8, image after image; each as three planes (red, green, blue), row by row, or one
             (a mask: the class of each pixel)
    table    int64 [n, 6]: height, width, CRC-32 of the image's bytes, lowest and highest value,
             1 where every pixel has the same colour
    footer   JSON: schema, key, count, table_crc
    end      uint64 length of the footer, then 8 bytes MAGIC

A file appears under its name only when complete (rename). It is checked byte for byte when it is
opened for the first time since the machine was started or the file touched (`_marks`).
"""

import errno
import fcntl
import getpass
import hashlib
import json
import os
import platform
import struct
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from glob import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import IO
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from tcpa_core.data._decode import Pixels, ResizeRule
from tcpa_core.data._marks import is_marked, is_settled, mark, settle
from tcpa_core.data._parallel import ordered_map
from tcpa_core.data._room import Filling
from tcpa_core.errors import DataError

SCHEMA = 4
_COLUMNS = 6
_PART = 2**22
"""Bytes that a thread checks at a time."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""What a file system without locks says."""
_STALE_S = 86_400.0
"""A file of another machine that was not written to for so long is of a killed process."""
MAGIC = b"TCPAPIX\n"
_END = struct.Struct("<Q8s")

Progress = Callable[[str, int, int], None]
Numbers = npt.NDArray[np.int64]


class Images:
    """RGB images of one split, as they are stored and as trials see them, or its masks."""

    __slots__ = ()

    offsets: Numbers
    """Position of each image's first byte in the pixels of all `entries`, one after another [n]."""
    heights: Numbers
    """As it is stored [n]."""
    widths: Numbers
    """As it is stored [n]."""
    lows: Numbers
    """Lowest value of each image as it is stored [n]."""
    highs: Numbers
    flat: npt.NDArray[np.bool_]
    """Every pixel has the same colour [n]."""
    rule: ResizeRule | None
    """Gives the size at which trials see them; None: as they are stored."""

    @property
    def entries(self) -> "tuple[ImageStore, ...]":
        """Where the images lie, in order."""
        raise NotImplementedError

    def planes(self, index: int) -> Pixels:
        """Pixels of one image as they are stored [3 or 1, height, width], a view."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.heights)

    def image(self, index: int) -> Pixels:
        """Pixels of one image as trials see it [height, width, 3], before any crop."""
        return self.seen(index).transpose(1, 2, 0)

    def seen(self, index: int) -> Pixels:
        """Same as `image`, as planes [3, height, width]."""
        planes = self.planes(index)
        return self.rule.enlarge(planes) if self.rule else planes

    def sizes(self) -> tuple[Numbers, Numbers]:
        """Height and width of each image as trials see it [n]."""
        if self.rule is None:
            return self.heights, self.widths
        # By distinct size: a set of a million images has few of them.
        pairs, which = np.unique((self.heights << 32) | self.widths, return_inverse=True)
        seen = [self.rule.size(int(pair & 0xFFFFFFFF), int(pair >> 32)) for pair in pairs]
        widths, heights = np.array(seen, np.int64).reshape(-1, 2).T
        return heights[which], widths[which]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ImageStore(Images):
    """Images mapped from one entry of the cache."""

    pixels: Pixels
    """All images one after another [sum of height * width * planes]. A private mapping: processes
    share the page cache, and a write would stay in the process."""
    offsets: Numbers
    heights: Numbers
    widths: Numbers
    lows: Numbers
    highs: Numbers
    flat: npt.NDArray[np.bool_]
    is_kept: bool = True
    """The cache has them; False: they were decoded for this process alone."""
    rule: ResizeRule | None = None
    key: str = ""
    """Name of the entry; "": the images lie nowhere but in memory."""
    num_planes: int = 3
    """1: masks."""

    @property
    def entries(self) -> "tuple[ImageStore, ...]":
        """Itself."""
        return (self,)

    def planes(self, index: int) -> Pixels:
        """Pixels of one image as they are stored [3, height, width], a view."""
        height, width = int(self.heights[index]), int(self.widths[index])
        start = int(self.offsets[index])
        planes = self.num_planes
        return self.pixels[start : start + planes * height * width].reshape(planes, height, width)


@dataclass(frozen=True, slots=True, eq=False)
class JoinedImages(Images):
    """Images of several entries, one after the other."""

    stores: tuple[ImageStore, ...]
    offsets: Numbers
    heights: Numbers
    widths: Numbers
    lows: Numbers
    highs: Numbers
    flat: npt.NDArray[np.bool_]
    rule: ResizeRule | None

    @property
    def entries(self) -> tuple[ImageStore, ...]:
        """Where the images lie, in order."""
        return self.stores

    def planes(self, index: int) -> Pixels:
        """Pixels of one image as they are stored [3, height, width], a view."""
        for entry in self.stores:
            if index < len(entry):
                return entry.planes(index)
            index -= len(entry)
        raise IndexError(f"image {index} of {len(self)}")


def join(*entries: ImageStore) -> Images:
    """The images of entries with one rule, one after the other, without copying their pixels."""
    if len(entries) == 1:
        return entries[0]
    before = np.cumsum([0, *(len(entry.pixels) for entry in entries[:-1])])
    names = ("heights", "widths", "lows", "highs", "flat")
    columns = {name: np.concatenate([getattr(e, name) for e in entries]) for name in names}
    offsets = [entry.offsets + start for entry, start in zip(entries, before, strict=True)]
    return JoinedImages(
        stores=entries, offsets=np.concatenate(offsets), rule=entries[0].rule, **columns
    )


# Two packs of one process that keep nothing share what was decoded, as long as one holds it.
_passing: WeakValueDictionary[str, ImageStore] = WeakValueDictionary()


class BrokenImages(DataError):
    """Images of a split that cannot be decoded: why, by their number."""

    def __init__(self, found: Mapping[int, str]) -> None:
        super().__init__(next(iter(found.values())))
        self.found = found


def cache_root(cache_dir: Path | None = None) -> Path:
    """The cache folder: the argument, else $TCPA_CACHE, else ~/.cache/tcpa.

    "~" and variables as in "$SLURM_TMPDIR/tcpa" are those of this machine. Files in it can be
    deleted at any time; they are made again when needed.

    Raises:
        DataError: A variable is not set here.
    """
    text = os.path.expanduser(cache_dir or os.environ.get("TCPA_CACHE") or "~/.cache/tcpa")
    if "$" not in text:
        return Path(text)
    known = {**os.environ, "USER": os.environ.get("USER") or getpass.getuser()}
    try:
        return Path(Template(text).substitute(known))
    except KeyError as err:
        raise DataError(
            f"the cache folder is to be {text!r}, but ${err.args[0]} is not set on "
            f"{platform.node()}; set it there, or name another folder with --cache-dir."
        ) from err
    except ValueError:  # a "$" that begins no name
        return Path(text)


def usable_cache(cache_dir: Path | None = None) -> Path:
    """The cache folder, made if absent, in which files can be written.

    Raises:
        DataError: They cannot.
    """
    folder = cache_root(cache_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as err:
        raise DataError(
            f"cache folder {folder} cannot be written on {platform.node()} "
            f"({err.strerror or err}); name another one with --cache-dir, for example "
            "'/tmp/$USER/tcpa'."
        ) from err
    return folder


def open_or_build(
    folder: Path,
    key: str,
    count: int,
    decode: Callable[[int], Pixels],
    progress: Progress | None,
    stage: str,
    *,
    rule: ResizeRule | None = None,
    keep: bool = True,
) -> ImageStore:
    """Open a cache entry; make it first when it is absent or damaged.

    Of several processes that need the same entry one makes it and the others wait.

    Args:
        folder: Where entries lie; made when absent.
        key: Hash of everything that the pixels depend on.
        count: Number of images.
        decode: Gives the pixels [height, width, 3 or 1] of one image as they are stored; called
            from several threads.
        progress: Called with (stage, images done, count) from this thread.
        stage: What is being done, for `progress`.
        rule: Gives the size at which trials see them; part of the key.
        keep: False: an entry that is absent is made in a file without a name, which is gone with
            the store; the cache folder stays as it is.

    Raises:
        BrokenImages: Images cannot be decoded; all of them are named.
        DataError: The folder cannot be written, or its disk is nearly full.
    """
    build = partial(_build, key=key, count=count, decode=decode, progress=progress, stage=stage)
    with using(folder):
        if keep:
            return _open_or_write(folder, key, count, rule, build, progress, stage)
        store = _open(folder / f"{key}.pixels", key, count, rule, keep=False)
        return _in_passing(key, count, rule, build) if store is None else store


def open_or_fetch(
    folder: Path,
    key: str,
    count: int,
    rule: ResizeRule | None,
    chunks: Callable[[], Iterator[bytes]],
    progress: Progress | None,
    stage: str,
) -> ImageStore:
    """Open a cache entry; where it is absent or damaged, write what another cache has of it.

    Args:
        folder: Where entries lie; made when absent.
        key: As of `open_or_build`.
        count: Number of images.
        rule: Gives the size at which trials see them.
        chunks: Gives the bytes of the other cache's file, once from the start for every call.
        progress: Called where another process writes the entry at the moment.
        stage: What is being done, for `progress`.

    Raises:
        DataError: The folder cannot be written, its disk is nearly full, or what came is damaged.
    """

    with using(folder):
        write = partial(_copy, chunks)
        return _open_or_write(folder, key, count, rule, write, progress, stage)


def fetch_file(
    path: Path, is_whole: Callable[[], bool], chunks: Callable[[], Iterator[bytes]]
) -> None:
    """Write a file that another cache has, unless it is there and whole; never a part of it.

    Args:
        path: Its folder is made when absent.
        is_whole: Whether the file at `path` is what is wanted.
        chunks: As of `open_or_fetch`.

    Raises:
        DataError: The folder cannot be written, or its disk is nearly full.
    """
    with using(path.parent):
        if is_whole():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path, None, "", 0):
            if is_whole():
                return
            with _temporary(path) as (temp, file):
                _copy(chunks, file, Filling(file.fileno(), path.parent, "TCPA_CACHE"))
                file.close()
                temp.replace(path)


def _copy(chunks: Callable[[], Iterator[bytes]], file: IO[bytes], filling: Filling) -> None:
    for chunk in chunks():
        filling.grow(len(chunk))
        file.write(chunk)


def _open_or_write(
    folder: Path,
    key: str,
    count: int,
    rule: ResizeRule | None,
    write: Callable[[IO[bytes], Filling], None],
    progress: Progress | None,
    stage: str,
) -> ImageStore:
    path = folder / f"{key}.pixels"
    opened = partial(_open, path, key, count, rule)
    store = opened()
    if store is not None:
        return store
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(path, progress, stage, count) as lock:
        # Asked again: whoever held the lock may have made it in the meantime.
        store = opened()
        if store is None:
            with _temporary(path) as (temp, file):
                write(file, Filling(file.fileno(), folder, "TCPA_CACHE"))
                file.close()
                temp.replace(path)
            # Read back and checked, so that a disk that loses data is found out now.
            store = opened(settled=settle(path, lock))
    if store is None:
        raise DataError(
            f"cache entry {path} is damaged right after writing; the disk or the file system loses "
            f"data. Set TCPA_CACHE to a folder on another disk."
        )
    return store


def lacks(folder: Path, key: str) -> bool:
    """Whether an entry would have to be made; one that is damaged counts as there."""
    return key not in _passing and not os.path.exists(folder / f"{key}.pixels")


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
        dir=path.parent, prefix=f"{path.name}.{_host()}-", suffix=".tmp", delete=False
    ) as file:
        temp = Path(file.name)
        try:
            yield temp, file
        finally:
            temp.unlink(missing_ok=True)


def _host() -> str:
    """Tells the files of this machine from those of others that share the folder."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


@contextmanager
def _lock(path: Path, progress: Progress | None, stage: str, count: int) -> Iterator[Path]:
    """Hold the lock of a file that is to be written; it is free again when its holder dies.

    Of machines that share the folder, each may hold it where the file system passes no locks on,
    and all processes do where it has none. Then each makes the entry for itself, in a file of its
    own, and the last one's stays.
    """
    is_alone = True
    lock = path.with_suffix(".lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if progress:
                progress(f"{stage} (waiting for another process)", 0, count)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as err:
            if err.errno not in _NO_LOCKS:
                raise
            is_alone = False
        # Safe only here: nobody else on this machine writes this file while the lock is held.
        for leftover in path.parent.glob(f"{escape(path.name)}.*.tmp"):  # of a killed holder
            owner, is_told, _ = leftover.name.removeprefix(f"{path.name}.").partition("-")
            is_ours = is_alone and (not is_told or owner == _host())
            if is_ours or time.time() - _changed(leftover) > _STALE_S:
                leftover.unlink(missing_ok=True)
        yield lock


def _changed(path: Path) -> float:
    """When a file was last written; now, where it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _in_passing(
    key: str, count: int, rule: ResizeRule | None, build: Callable[[IO[bytes], Filling], None]
) -> ImageStore:
    """The images in a file that has no name and is not kept; the same while somebody holds them."""
    store = _passing.get(key)
    if store is not None and store.rule == rule:
        return store
    folder = Path(tempfile.gettempdir())
    with using(folder, "TMPDIR"), tempfile.TemporaryFile() as file:
        build(file, Filling(file.fileno(), folder, "TMPDIR"))
        file.flush()
        # The mapping outlives the file's handle; the space is free once the last store is gone.
        found, crcs = _read(np.memmap(file, np.uint8, mode="c"), key, count)
        _check(found, crcs)
    _passing[key] = store = replace(found, is_kept=False, rule=rule)
    return store


def _build(
    file: IO[bytes],
    filling: Filling,
    *,
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
            filling.grow(planes.nbytes)
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


def _open(
    path: Path,
    key: str,
    count: int,
    rule: ResizeRule | None,
    *,
    keep: bool = True,
    settled: bool = False,
) -> ImageStore | None:
    """Map an entry and check it, all of it unless that is done; None: it is absent or damaged.

    Args:
        keep: Remove a damaged one, and note that one is whole.
        settled: It was just written, and any change from now on will show in its times.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        # Before the check: what changes while it is checked must not count as checked.
        about = os.fstat(file.fileno())
        settled = settled or is_settled(about)
        try:
            store, crcs = _read(np.memmap(file, np.uint8, mode="c"), key, count)
            if not is_marked(path, about):
                _check(store, crcs)
                if keep and settled:
                    mark(path, about)
            return replace(store, rule=rule)
        except ValueError as err:
            warnings.warn(
                f"cache entry {path} ({about.st_size} bytes) is damaged: {err}; it is made again. "
                f"If this recurs, check the disk.",
                RuntimeWarning,
                stacklevel=5,
            )
    if keep:
        path.unlink(missing_ok=True)
    return None


def _crc(pixels: Pixels) -> int:
    return zlib.crc32(pixels.data)


def _read(
    file: "np.memmap[tuple[int], np.dtype[np.uint8]]", key: str, count: int
) -> tuple[ImageStore, Numbers]:
    """Read the parts of an entry; its images, and what the CRC of each should be.

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
    areas = heights * widths
    num_planes = 1 if areas.sum() == table_start else 3
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(areas * num_planes)])
    if bounds[-1] != table_start:
        raise ValueError("its pixels are not complete")
    columns = (bounds[:-1], heights, widths, lows, highs, flat.astype(bool))
    return ImageStore(pixels, *columns, key=key, num_planes=num_planes), crcs


def _check(store: ImageStore, crcs: Numbers) -> None:
    """Read every pixel.

    Raises:
        ValueError: An image is not what was written.
    """
    bounds = np.append(store.offsets, len(store.pixels))

    def damaged(part: tuple[int, int]) -> int | None:
        ends = bounds[part[0] : part[1] + 1].tolist()
        for index, (start, end) in enumerate(pairwise(ends), part[0]):
            if _crc(store.pixels[start:end]) != crcs[index]:
                return index
        return None

    # Many at a time: a call to another thread takes longer than a picture of 32 x 32 pixels.
    firsts = np.unique(np.searchsorted(bounds, np.arange(0, bounds[-1], _PART))).tolist()
    for found in ordered_map(damaged, pairwise([*firsts, len(store)])):
        if found is not None:
            raise ValueError(f"the checksum of image {found} differs")
