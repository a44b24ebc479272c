"""Content hashes and traits of image files, remembered between runs.

A repeat asks for times only.
"""

import hashlib
import json
import os
import stat
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tcpa_core.data._cache import Progress, write_atomic
from tcpa_core.data._classes import NAMED
from tcpa_core.data._decode import FULL_DEPTH, Traits, traits
from tcpa_core.data._listing import SPLITS, Content, Listing, SplitListing
from tcpa_core.data._marks import RACY_NS
from tcpa_core.data._parallel import ordered_map
from tcpa_core.errors import DataError

Known = dict[str, list[int | str]]
"""key -> size, mtime_ns, ctime_ns, sha256, then `Traits`."""
_COLUMNS = 4 + len(Traits._fields)


class Contents(NamedTuple):
    """What is in the images of a data set."""

    hashes: dict[str, tuple[str, ...]]
    """SHA-256 of every file's content, by split and masks of a split, in listing order."""
    depth: int
    """Bits that all its 16-bit grey pictures use together, so that their brightness can be
    compared; `FULL_DEPTH` where there are none."""
    turned: int
    """Pictures that EXIF would have turned."""
    transparent: int
    """Pictures with pixels that are not opaque."""


def contents(
    listing: Listing, cache: Path, progress: Progress | None, *, keep: bool = True
) -> Contents:
    """Read all images of a data set, or what is remembered of them.

    Args:
        listing: What to hash; images that are no files by the bytes or pixels that are stored.
        cache: Cache folder, for the memory of earlier hashes.
        progress: Called with ("hash images", done, total) when files have to be read.
        keep: Remember the hashes for the next run.

    Raises:
        DataError: Files are missing or cannot be read; the first is named.
    """
    if listing.root:
        by_key = _of_files(listing, cache, progress, keep)
        found = {name: [by_key[key] for key in split.keys] for name, split in listing.files.items()}
    else:
        found = {
            name: [_judge(content(listing, split, index)) for index in range(len(split.keys))]
            for name, split in listing.splits.items()
        }
    hashes = {name: tuple(digest for digest, _ in of_split) for name, of_split in found.items()}
    every = [about for name in SPLITS for _, about in found[name]]
    return Contents(
        hashes,
        depth=max((about.depth for about in every), default=0) or FULL_DEPTH,
        turned=sum(about.is_turned for about in every),
        transparent=sum(about.is_transparent for about in every),
    )


def _judge(stored: Content) -> tuple[str, Traits]:
    """Hash and traits of an image."""
    return content_hash(stored), traits(stored) if isinstance(stored, bytes) else Traits()


def content(listing: Listing, split: SplitListing, index: int) -> Content:
    """An image as it is stored.

    Raises:
        DataError: It cannot be read.
    """
    if split.read is not None:
        return split.read(index)
    assert listing.root is not None
    return read_image(listing.root / split.keys[index])


def unchanged(
    listing: Listing, split: SplitListing, index: int, expected: str, place: str
) -> Content:
    """An image as it is stored, which was hashed before: the entry that it enters is named so.

    Raises:
        DataError: It cannot be read, or has another hash now.
    """
    stored = content(listing, split, index)
    if content_hash(stored) != expected:
        raise DataError(f"{place}: file changed while the data set was read; start again.")
    return stored


def content_hash(stored: Content) -> str:
    """SHA-256 of a file's bytes or of pixels, hex digits."""
    return sha256(stored if isinstance(stored, bytes) else stored.tobytes())


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def _of_files(
    listing: Listing, cache: Path, progress: Progress | None, keep: bool
) -> dict[str, tuple[str, Traits]]:
    root = listing.root
    assert root is not None
    stats = _stat_all(listing, root)
    memory = cache / "hashes" / f"{sha256(os.fsencode(root.resolve()))[:32]}.json"
    known = _recall(memory)
    # Changed since: ctime catches a file that was replaced and had its old mtime put back.
    todo = [key for key, times in stats.items() if known.get(key, [])[:3] != times]
    # Before anything is read: what changes while it is read must look too young to be remembered.
    now = time.time_ns()
    changed = set(todo)
    places = {
        key: (split, index)
        for split in listing.files.values()
        for index, key in enumerate(split.keys)
        if key in changed
    }
    judged = ordered_map(lambda key: _judge(content(listing, *places[key])), todo)
    for done, (key, (digest, about)) in enumerate(zip(todo, judged, strict=True)):
        known[key] = [*stats[key], digest, *map(int, about)]
        if progress:
            progress("hash images", done + 1, len(todo))
    if todo and keep:
        _remember(memory, known, now)
    return {key: (str(known[key][3]), _traits(known[key][4:])) for key in stats}


def _traits(columns: Sequence[int | str]) -> Traits:
    depth, turned, transparent = map(int, columns)
    return Traits(depth, bool(turned), bool(transparent))


def _stat_all(listing: Listing, root: Path) -> dict[str, list[int]]:
    """Size and times of every image's file."""
    stats: dict[str, list[int]] = {}
    missing: list[str] = []
    shared: dict[str, os.stat_result | None] = {}
    # Strings: a Path per file costs seconds with a million of them.
    folder = os.path.join(root, "")
    for split in listing.files.values():
        for index, key in enumerate(split.keys):
            if split.files:  # one file holds many images
                file = split.files[index]
                if file not in shared:
                    shared[file] = _stat(folder + file)
                info = shared[file]
            else:
                info = _stat(folder + key)
            if info is not None and stat.S_ISREG(info.st_mode):
                stats[key] = [info.st_size, info.st_mtime_ns, info.st_ctime_ns]
            else:
                missing.append(f"{key} ({split.place(index)})")
    if missing:
        total = len(stats) + len(missing)
        more = f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
        raise DataError(
            f"{len(missing)} of {total} listed images are missing below {root.absolute()}: "
            f"{', '.join(missing[:NAMED])}{more}. Unpack the data set again or correct data.root; "
            "no image is skipped."
        )
    return stats


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None


def read_image(path: Path) -> bytes:
    """Content of an image file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as err:
        raise DataError(
            f"image {path} cannot be read: {err.strerror}; check its rights and the disk."
        ) from err


def _recall(memory: Path) -> Known:
    """Hashes of an earlier run. A torn or altered file is as good as none: hashing is repeated."""
    try:
        crc, body = memory.read_bytes().split(b"\n", 1)
    except (OSError, ValueError):
        return {}
    # A wrong hash would give one data set the pixels of another, so that torn files must be found.
    if crc != f"{zlib.crc32(body):08x}".encode():
        return {}
    try:
        known: Known = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    is_ours = isinstance(known, dict) and all(
        isinstance(entry, list) and len(entry) == _COLUMNS for entry in known.values()
    )
    return known if is_ours else {}


def _remember(memory: Path, known: Mapping[str, list[int | str]], now: int) -> None:
    """Note hashes for the next run; a folder that cannot be written costs it the same work."""
    # Of a file changed too shortly before it was hashed the hash is used but not remembered.
    settled = {key: entry for key, entry in known.items() if now - int(entry[2]) > RACY_NS}
    body = json.dumps(settled, separators=(",", ":")).encode()
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(memory, f"{zlib.crc32(body):08x}\n".encode() + body)
    except OSError:
        return
