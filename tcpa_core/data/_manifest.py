"""What is known of a decoded data set, in a file: it stands for images that are not there.

Where the source of a data set is absent, its manifest and the entries of the cache that it names
are all that training needs; both can be copied from a machine that has the source. A manifest is
JSON and lies in the cache folder under the hash of its text, which so proves that it is whole. What
a trial sees is the same as with the source, bit for bit.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tcpa_core.data._cache import (
    ImageStore,
    Progress,
    cache_root,
    fetch_file,
    join,
    open_or_fetch,
    using,
    write_atomic,
)
from tcpa_core.data._dataset import Dataset, Split
from tcpa_core.data._decode import ResizeRule
from tcpa_core.data._hashes import sha256
from tcpa_core.data._room import CacheNeed
from tcpa_core.data._summary import DataSummary
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

SCHEMA = 1
FOLDER = "manifests"
_AT_TRAINING = frozenset(
    {
        *("random_crop", "flip", "crop_ratio", "auto_augment", "color_jitter", "norm_stats"),
        *("erase_prob", "erase_mode", "max_class_share"),
    }
)
"""Settings that change no decoded image."""

Fetch = Callable[[str], Iterator[bytes]]
"""Gives the bytes of a file of another cache, by its path below that cache's folder. Pieces may be
empty, as signs of life."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the cache."""

    key: str
    count: int
    """Images."""
    num_bytes: int
    """Of their pixels."""
    rule: ResizeRule | None
    """None: masks, which trials see as they are stored."""

    @property
    def path(self) -> str:
        """Below the cache folder."""
        return f"pixels/{self.key}.pixels"


def source_key(cfg: DataConfig) -> str:
    """Name of what settings choose and store, whatever becomes of the images in training."""
    told = cfg.model_dump(exclude=set(_AT_TRAINING)) | {"resized_crop": cfg.cuts_parts}
    if cfg.scale_range is not None:  # pictures are stored as large as the largest factor asks for
        told["scale_range"] = cfg.scale_range[1]
    return sha256(json.dumps(told, sort_keys=True).encode())[:32]


def write_manifest(data: Dataset, cache_dir: Path | None = None) -> str:
    """Put what is known of a data set into the cache.

    Args:
        data: All its images are in that cache.
        cache_dir: None: $TCPA_CACHE or ~/.cache/tcpa.

    Returns:
        Path of the manifest below the cache folder.

    Raises:
        DataError: The folder cannot be written.
    """
    splits = {
        name: {
            "paths": split.paths,
            "labels": split.labels.tolist(),
            "entries": [_entry(store) for store in split.images.entries],
            **({"masks": [_entry(one) for one in split.masks.entries]} if split.masks else {}),
        }
        for name, split in data.splits.items()
    }
    document = {
        "schema": SCHEMA,
        "name": data.name,
        "class_names": data.class_names,
        "splits": splits,
        "fingerprint": data.fingerprint,
        "img_size": data.img_size,
        "summary": asdict(data.summary),
    }
    text = json.dumps(document).encode()
    path = f"{FOLDER}/{sha256(text)}.json"
    folder = cache_root(cache_dir)
    with using(folder):
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        write_atomic(folder / path, text)
    return path


def open_manifest(
    path: str,
    cache_dir: Path | None = None,
    *,
    fetch: Fetch | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """A data set without its source.

    Args:
        path: What `write_manifest` returned, here or on another machine.
        cache_dir: Of this machine. None: $TCPA_CACHE or ~/.cache/tcpa.
        fetch: Gives what this cache lacks. None: it has all.
        progress: Called with (stage, bytes there, 0) as a file comes.

    Raises:
        DataError: Something is missing or damaged, the folder cannot be written, or its disk has no
            room.
    """
    cache = cache_root(cache_dir)
    document = _document(cache, path, fetch)
    entries = list(dict.fromkeys(_entries(document)))
    lacking = [entry for entry in entries if not (cache / entry.path).exists()]
    images = sum(entry.count for entry in lacking)
    CacheNeed.of(images, sum(entry.num_bytes for entry in lacking), cache).check()
    stores: dict[Entry, ImageStore] = {}
    for entry in entries:
        stores[entry] = open_or_fetch(
            cache / "pixels",
            entry.key,
            entry.count,
            entry.rule,
            partial(_asked, fetch, entry.path, cache, progress),
            progress,
            f"fetch {entry.path}",
        )
    splits = {
        name: Split(
            images=join(*(stores[_read_entry(one)] for one in split["entries"])),
            labels=np.array(split["labels"], np.int64),
            paths=tuple(split["paths"]),
            masks=join(*(stores[_read_entry(one)] for one in split["masks"]))
            if "masks" in split
            else None,
        )
        for name, split in document["splits"].items()
    }
    return Dataset(
        name=document["name"],
        num_classes=len(document["class_names"]),
        class_names=tuple(document["class_names"]),
        splits=splits,
        fingerprint=document["fingerprint"],
        img_size=document["img_size"],
        summary=_summary(document["summary"]),
    )


def files_of(path: str, cache_dir: Path | None = None) -> dict[str, int]:
    """Bytes of the files that a manifest stands for, its own too, by path below the cache folder.

    Raises:
        DataError: The cache lacks one.
    """
    cache = cache_root(cache_dir)
    document = _document(cache, path, None)
    names = dict.fromkeys([path, *(entry.path for entry in _entries(document))])
    with using(cache):
        return {name: (cache / name).stat().st_size for name in names}


def _document(cache: Path, path: str, fetch: Fetch | None) -> Any:
    """A manifest; where it is absent or damaged, it is fetched.

    Raises:
        DataError: It cannot be.
    """
    file, wanted = cache / path, Path(path).stem

    def text() -> bytes:
        return file.read_bytes() if file.is_file() else b""

    fetch_file(file, lambda: sha256(text()) == wanted, lambda: _asked(fetch, path, cache))
    found = text()
    if sha256(found) != wanted:
        raise DataError(f"{file} came damaged from another machine; it is asked for again.")
    document = json.loads(found)
    if document.get("schema") != SCHEMA:
        raise DataError(
            f"{file} is of another version of this program (schema {document.get('schema')!r}, "
            f"known: {SCHEMA}); use one version on all machines."
        )
    return document


def told(fetch: Fetch, path: str, progress: Progress | None) -> Iterator[bytes]:
    """What is fetched, with `progress` told of every piece: a large file is no silence."""
    num_bytes = 0
    for piece in fetch(path):
        num_bytes += len(piece)
        if progress:
            progress(f"fetch {path}", num_bytes, 0)
        yield piece


def _asked(
    fetch: Fetch | None, path: str, cache: Path, progress: Progress | None = None
) -> Iterator[bytes]:
    if fetch is None:
        raise DataError(
            f"{cache / path} is gone, which stands for a data set that this machine does not have; "
            "it is fetched again when the study goes on."
        )
    return told(fetch, path, progress)


def _summary(found: Any) -> DataSummary:
    return DataSummary(
        name=found["name"],
        fingerprint=found["fingerprint"],
        class_names=tuple(found["class_names"]),
        counts={name: tuple(counts) for name, counts in found["counts"].items()},
        shared=found["shared"],
        two_labels=found["two_labels"],
        notes=tuple(found["notes"]),
        remarks=tuple(found["remarks"]),
        pixels={name: tuple(counts) for name, counts in found.get("pixels", {}).items()},
    )


def _entry(store: ImageStore) -> list[Any]:
    assert store.key, "images that no cache has"
    rule = None if store.rule is None else asdict(store.rule)
    return [store.key, len(store), store.pixels.nbytes, rule]


def _read_entry(columns: list[Any]) -> Entry:
    key, count, num_bytes, rule = columns
    return Entry(key, count, num_bytes, None if rule is None else ResizeRule(**rule))


def _entries(document: Any) -> Iterator[Entry]:
    for split in document["splits"].values():
        yield from map(_read_entry, [*split["entries"], *split.get("masks", ())])
