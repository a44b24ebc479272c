"""The data layer's contract: from `data.*` settings to decoded images that every trial shares.

A new kind of data set is one public file in this folder, `<name>.py`, which exports

    def read(cfg: DataConfig) -> Listing

and, where it brings its own val split, `draws_val(cfg) -> bool`, which says so: settings of a split
that is never made tell no two trials apart. `USES` names the settings of `OF_SOME_KINDS` that it
reads.

And, where its layout can be told from a few names, `recognises(root: Path) -> bool`: whether a
folder has it, by some os.path checks and without reading a file. The error of another kind then
says which kind reads that folder, or one up to two levels away.

`read` reads lists and folder names, not images: which image is in which split and class. Where
images lie inside larger files, `SplitListing.read` gives them one by one. `Listing` checks itself
(labels, overlaps, suffixes, empty splits, classes across splits); hashing, decoding, caching,
augmentation and what `DataSummary` says are the same for all. `need_root`, `read_text`,
`relative_key`, `check_suffix` and `draw_val` do what several layouts need. Errors are `DataError`s
that name the file and line.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tcpa_core import plugins
from tcpa_core.data._cache import (
    SCHEMA,
    BrokenImages,
    ImageStore,
    Pixels,
    Progress,
    cache_root,
    open_or_build,
)
from tcpa_core.data._classes import NAMED, other_spelling
from tcpa_core.data._decode import DECODER, FULL_DEPTH, ResizeRule, decode
from tcpa_core.data._formats import SUFFIXES
from tcpa_core.data._hashes import Contents, content, content_hash, contents, sha256
from tcpa_core.data._kinds import kind_hint
from tcpa_core.data._listing import (
    SPLITS,
    Content,
    Listing,
    SplitListing,
    check_suffix,
    draw_test,
    draw_val,
    need_root,
    read_text,
    relative_key,
    split_off,
)
from tcpa_core.data._summary import DataSummary, summarise
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DATASETS, OF_SOME_KINDS, DataConfig

__all__ = [
    "SPLITS",
    "SUFFIXES",
    "Content",
    "DataSummary",
    "Dataset",
    "ImageStore",
    "Listing",
    "Progress",
    "Split",
    "SplitListing",
    "cache_root",
    "check_suffix",
    "dataset_fingerprint",
    "dataset_summary",
    "draw_test",
    "draw_val",
    "load_dataset",
    "need_root",
    "other_spelling",
    "read_text",
    "relative_key",
    "split_off",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Images and labels of one split."""

    images: ImageStore
    """Resized but not cropped, flipped or normalised."""
    labels: npt.NDArray[np.int64]
    """Class of each image [n], 0-based."""
    paths: tuple[str, ...]
    """Name of each image: path below the data set's folder, or a running number."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A data set, decoded and resized for one image size."""

    name: str
    """The kind: a file of tcpa_core/data."""
    num_classes: int
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    """"train", "val" and "test"."""
    fingerprint: str
    """Hash of names, labels and contents of all images and of the class names."""
    img_size: int
    summary: DataSummary


def load_dataset(
    cfg: DataConfig,
    img_size: int,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    keep: bool = True,
) -> Dataset:
    """Read, decode and resize a data set; from the cache where that was done before.

    Args:
        cfg: Which data set and which resize.
        img_size: Side of the images that trials see, in pixels.
        cache_dir: Where decoded images are kept; None: $TCPA_CACHE or ~/.cache/tcpa.
        progress: Called with (stage, done, total) from the calling thread.
        keep: False: the cache is read where it has something, and left as it is.

    Raises:
        ConfigError: Settings that contradict, or no data set kind of that name.
        DataError: A list, folder or image is missing or broken, or the cache cannot be written.
    """
    rule = ResizeRule.of(cfg, img_size)
    cache = cache_root(cache_dir)
    listing = _read(cfg)
    found = contents(listing, cache, progress, keep=keep)
    hashes, rule = found.hashes, replace(rule, depth=found.depth)
    splits: dict[str, Split] = {}
    broken: dict[str, str] = {}
    for name in SPLITS:
        both = name == "train" and cfg.train_on == "train_and_val"
        # val keeps its own entry too: with train_and_val it is still what epochs are scored on.
        parts = ("train", "val") if both else (name,)
        keys = tuple(key for part in parts for key in listing.splits[part].keys)
        try:
            images = open_or_build(
                cache / "pixels",
                _store_key(tuple(h for part in parts for h in hashes[part]), rule),
                len(keys),
                partial(_decode_one, listing, parts, hashes, rule),
                progress,
                f"decode {' and '.join(parts)}",
                keep=keep,
            )
        # All splits are tried, so that one run names every image that has to be restored.
        except BrokenImages as err:
            broken |= {keys[index]: why for index, why in err.found.items()}
            continue
        labels = [label for part in parts for label in listing.splits[part].labels]
        splits[name] = Split(images=images, labels=np.array(labels, np.int64), paths=keys)
    if broken:
        raise _broken_error(broken)
    fingerprint = _fingerprint(listing, found)
    decoded = {name: (split.paths, split.images) for name, split in splits.items()}
    return Dataset(
        name=cfg.name,
        num_classes=len(listing.class_names),
        class_names=listing.class_names,
        splits=splits,
        fingerprint=fingerprint,
        img_size=img_size,
        summary=summarise(cfg, listing, hashes, fingerprint, decoded),
    )


def dataset_summary(
    cfg: DataConfig, *, cache_dir: Path | None = None, progress: Progress | None = None
) -> DataSummary:
    """Counts, fingerprint and notes of a data set; no image is decoded, so pixels are not judged.

    Raises:
        ConfigError: No data set kind of that name, or data.root is needed or must be absent.
        DataError: A list, folder or image is missing or unreadable.
    """
    listing = _read(cfg)
    found = contents(listing, cache_root(cache_dir), progress)
    return summarise(cfg, listing, found.hashes, _fingerprint(listing, found))


def _broken_error(broken: Mapping[str, str]) -> DataError:
    """One error for all images that cannot be decoded."""
    first, *others = broken
    if not others:
        return DataError(broken[first])
    more = f" and {len(others) - NAMED + 1:,} more" if len(others) >= NAMED else ""
    return DataError(
        f"{len(broken):,} images cannot be decoded: {', '.join([first, *others[: NAMED - 1]])}"
        f"{more}. {broken[first]}"
    )


def dataset_fingerprint(
    cfg: DataConfig,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    keep: bool = True,
) -> str:
    """Hash of a data set's images, labels, splits and class names; no image is decoded.

    Equal to `Dataset.fingerprint`; independent of where the data lies and of the resize. A repeat
    reads the lists and asks for file times only, unless what was read was not to be kept.

    Raises:
        ConfigError: No data set kind of that name, or data.root is needed or must be absent.
        DataError: A list, folder or image is missing or unreadable.
    """
    listing = _read(cfg)
    found = contents(listing, cache_root(cache_dir), progress, keep=keep)
    return _fingerprint(listing, found)


def _read(cfg: DataConfig) -> Listing:
    kind = plugins.load(DATASETS, cfg.name)
    foreign = [
        name
        for name in OF_SOME_KINDS
        if getattr(cfg, name) is not None and name not in getattr(kind, "USES", ())
    ]
    if foreign:
        raise ConfigError(
            f"data.{foreign[0]}={getattr(cfg, foreign[0])!r} is not read by "
            f"data.name={cfg.name!r}; leave it out."
        )
    try:
        listing: Listing = kind.read(cfg)
    except DataError as err:
        raise DataError(f"{err}{kind_hint(cfg)}") from err
    return listing


def _fingerprint(listing: Listing, found: Contents) -> str:
    digest = hashlib.sha256(json.dumps(["tcpa data 1", listing.class_names]).encode())
    for name in SPLITS:
        split = listing.splits[name]
        rows = zip(split.keys, split.labels, found.hashes[name], strict=True)
        digest.update(json.dumps([name, *rows]).encode())
    if found.depth != FULL_DEPTH:  # which changes the pixels of all 16-bit files
        digest.update(f"grey {found.depth}".encode())
    return digest.hexdigest()


def _store_key(hashes: tuple[str, ...], rule: ResizeRule) -> str:
    """Name of a split's pixels: contents in order, resize rule, versions of file and decoder."""
    return sha256("\n".join([str(SCHEMA), DECODER, str(rule), *hashes]).encode())[:32]


def _decode_one(
    listing: Listing,
    parts: tuple[str, ...],
    hashes: Mapping[str, tuple[str, ...]],
    rule: ResizeRule,
    index: int,
) -> Pixels:
    """Resized pixels of one image of some splits, one after the other."""
    name, *rest = parts
    if rest and index >= len(hashes[name]):
        return _decode_one(listing, tuple(rest), hashes, rule, index - len(hashes[name]))
    split = listing.splits[name]
    key = split.keys[index]
    place = f"{listing.root / key} ({split.place(index)})" if listing.root else key
    stored = content(listing, split, index)
    # The entry's name says that it holds these contents, which are read here for a second time.
    if content_hash(stored) != hashes[name][index]:
        raise DataError(f"{place}: file changed while the data set was read; start again.")
    if isinstance(stored, bytes):
        return rule.apply(decode(stored, place, rule.depth), place)
    return rule.apply(Image.fromarray(stored).convert("RGB"), place)
