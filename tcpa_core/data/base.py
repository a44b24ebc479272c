"""The data layer's contract: from `data.*` settings to decoded images that every trial shares.

A new kind of data set is one public file in this folder, `<name>.py`, which exports

    def read(cfg: DataConfig) -> Listing

and, where it brings its own val split, `draws_val(cfg) -> bool`, which says so: settings of a split
that is never made tell no two trials apart. `USES` names the settings of `OF_SOME_KINDS` that it
reads.

And, where its layout can be told from a few names, `recognises(root: Path) -> bool`: whether a
folder has it, by some os.path checks and without reading a file. The error of another kind then
says which kind reads that folder, or one up to two levels away.

`idle(cfg)` in place of `draws_val` names all settings of splits that change nothing, and
`deviations(cfg)` says where a split is not the one that data.split claims. `data.split=own` and
`data.size_per_class` are the same for all kinds; `data.split=hta` is for those that know it, which
say so in `Listing.split`.

`read` reads lists and folder names, not images: which image is in which split and class. Where
images lie inside larger files, `SplitListing.read` gives them one by one. `Listing` checks itself
(labels, overlaps, suffixes, empty splits, classes across splits); hashing, decoding, caching,
augmentation and what `DataSummary` says are the same for all. `need_root`, `read_text`,
`relative_key`, `check_suffix` and `draw_val` do what several layouts need. Errors are `DataError`s
that name the file and line.
"""

import hashlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tcpa_core import plugins
from tcpa_core.data._cache import (
    SCHEMA,
    BrokenImages,
    Images,
    ImageStore,
    JoinedImages,
    Progress,
    cache_root,
    fetch_file,
    join,
    lacks,
    open_or_build,
    usable_cache,
)
from tcpa_core.data._classes import NAMED, other_spelling
from tcpa_core.data._copies import copy_notes
from tcpa_core.data._dataset import Dataset, Split
from tcpa_core.data._decode import DECODER, FULL_DEPTH, Pixels, ResizeRule, decode, header_size
from tcpa_core.data._formats import SUFFIXES
from tcpa_core.data._hashes import Contents, content, contents, sha256, unchanged
from tcpa_core.data._kinds import kind_hint
from tcpa_core.data._listing import (
    SPLITS,
    Content,
    Listing,
    SplitListing,
    check_suffix,
    draw_test,
    draw_val,
    masks_of,
    need_root,
    read_text,
    relative_key,
    split_of_masks,
    split_off,
)
from tcpa_core.data._manifest import (
    Fetch,
    files_of,
    open_manifest,
    source_key,
    told,
    write_manifest,
)
from tcpa_core.data._mask_counts import class_pixels
from tcpa_core.data._mask_files import decode_mask
from tcpa_core.data._masks import IGNORED
from tcpa_core.data._parallel import num_cores, ordered_map
from tcpa_core.data._published import PUBLISHED, Published, Sizes, published_key
from tcpa_core.data._room import CacheNeed
from tcpa_core.data._splits import few_shot, own_val
from tcpa_core.data._summary import DataSummary, Decoded, summarise
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DATASETS, OF_SOME_KINDS, DataConfig

__all__ = [
    "FULL_DEPTH",
    "IGNORED",
    "PUBLISHED",
    "SPLITS",
    "SUFFIXES",
    "CacheNeed",
    "Content",
    "DataSummary",
    "Dataset",
    "Fetch",
    "ImageStore",
    "Images",
    "JoinedImages",
    "Listing",
    "Pixels",
    "Progress",
    "Published",
    "Sizes",
    "Split",
    "SplitListing",
    "cache_need",
    "cache_root",
    "check_suffix",
    "dataset_fingerprint",
    "dataset_summary",
    "draw_test",
    "draw_val",
    "fetch_file",
    "files_of",
    "load_dataset",
    "need_root",
    "num_cores",
    "open_manifest",
    "ordered_map",
    "other_spelling",
    "published_key",
    "raw_images",
    "read_text",
    "relative_key",
    "source_key",
    "split_off",
    "told",
    "usable_cache",
    "write_manifest",
]


def load_dataset(
    cfg: DataConfig,
    img_size: int,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    told: Callable[[CacheNeed], None] | None = None,
    keep: bool = True,
) -> Dataset:
    """Read, decode and resize a data set; from the cache where that was done before.

    Args:
        cfg: Which data set and which resize.
        img_size: Side of the images that trials see, in pixels.
        cache_dir: Where decoded images are kept; None: $TCPA_CACHE or ~/.cache/tcpa.
        progress: Called with (stage, done, total) from the calling thread.
        told: Called before images are decoded, with what they will take in the cache.
        keep: False: the cache is read where it has something, and left as it is.

    Raises:
        ConfigError: Settings that contradict, or no data set kind of that name.
        DataError: A list, folder or image is missing or broken, the cache cannot be written, or
            its disk has no room.
    """
    rule = ResizeRule.of(cfg, img_size)
    cache = cache_root(cache_dir)
    listing = _read(cfg)
    found = contents(listing, cache, progress, keep=keep)
    hashes = found.hashes
    parts = _parts(cfg, listing, replace(rule, depth=found.depth))
    entries = dict.fromkeys(entry for of_split in parts.values() for entry in of_split)
    need = _need(listing, hashes, entries, cache, progress)
    if need.images:
        if told:
            told(need)
        need.check()
        if not keep:
            passing = Path(tempfile.gettempdir())
            CacheNeed.of(need.images, need.num_bytes, passing, "TMPDIR").check()
    stores: dict[_Entry, ImageStore] = {}
    broken: dict[str, str] = {}
    for name, rule in entries:
        split = listing.files[name]
        try:
            stores[name, rule] = open_or_build(
                cache / "pixels",
                _store_key(listing, hashes, name, rule),
                len(split.keys),
                _decoder(listing, name, hashes, rule),
                progress,
                f"decode {name}",
                rule=rule if name in SPLITS else None,
                keep=keep,
            )
        # All splits are tried, so that one run names every image that has to be restored.
        except BrokenImages as err:
            broken |= {split.keys[index]: why for index, why in err.found.items()}
    if broken:
        raise _broken_error(broken)
    splits = {name: _split(listing, stores, parts, name) for name in SPLITS}
    fingerprint = _fingerprint(listing, found)
    decoded = {
        name: Decoded(
            split.paths,
            split.images,
            split.masks,
            class_pixels(split.masks, cache, len(listing.class_names)) if split.masks else (),
        )
        for name, split in splits.items()
    }
    return Dataset(
        name=cfg.name,
        num_classes=len(listing.class_names),
        class_names=listing.class_names,
        splits=splits,
        fingerprint=fingerprint,
        img_size=img_size,
        summary=summarise(cfg, listing, found, fingerprint, decoded),
    )


def cache_need(
    cfg: DataConfig,
    img_size: int,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    keep: bool = True,
) -> CacheNeed:
    """What a data set will take in the cache, and what is free there; no image is decoded.

    Files are read for their hashes, where these are not remembered, and for the sizes in their
    headers, where the cache does not have their pixels.

    Args:
        cfg: Which data set and which resize.
        img_size: Side of the images that trials see, in pixels.
        cache_dir: Where decoded images are kept; None: $TCPA_CACHE or ~/.cache/tcpa.
        progress: Called with (stage, done, total) from the calling thread.
        keep: Remember the hashes for the next run.

    Raises:
        ConfigError: Settings that contradict, or no data set kind of that name.
        DataError: A list, folder or image is missing or unreadable.
    """
    rule = ResizeRule.of(cfg, img_size)
    cache = cache_root(cache_dir)
    listing = _read(cfg)
    found = contents(listing, cache, progress, keep=keep)
    parts = _parts(cfg, listing, replace(rule, depth=found.depth))
    entries = dict.fromkeys(entry for of_split in parts.values() for entry in of_split)
    return _need(listing, found.hashes, entries, cache, progress)


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
    return summarise(cfg, listing, found, _fingerprint(listing, found))


def raw_images(cfg: DataConfig, split: str, most: int | None = None) -> list[Content]:
    """Images of a split as they are stored: the content of a file, or pixels.

    Args:
        most: How many at most, the first of each class in turn; None: all, in the split's order.

    Raises:
        ConfigError: Settings that contradict, or no data set kind of that name.
        DataError: A list, folder or image is missing or broken.
    """
    listing = _read(cfg)
    found = listing.splits[split]
    places = list(range(len(found.keys)))
    if most is not None:
        met: Counter[int] = Counter()
        turns = []
        for label in found.labels:
            turns.append(met[label])
            met[label] += 1
        places = sorted(places, key=turns.__getitem__)[:most]
    return [content(listing, found, place) for place in places]


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
    notes = (*listing.notes, *_split_notes(cfg, listing), *copy_notes(listing))
    listing = replace(listing, notes=notes)
    if cfg.size_per_class is not None and listing.mask_values is not None:
        raise ConfigError(
            f"data.size_per_class={cfg.size_per_class} counts pictures of a class, which pictures "
            f"with masks (data.name={cfg.name!r}) do not have; leave it out."
        )
    if cfg.split == "own":
        listing = own_val(listing, cfg)
    return listing if cfg.size_per_class is None else few_shot(listing, cfg)


def _split_notes(cfg: DataConfig, listing: Listing) -> tuple[str, ...]:
    if cfg.split != "hta" or listing.split == "hta":
        return ()
    return (
        f"data.split=hta says nothing of data.name={cfg.name!r}; the split is the data set's own.",
    )


def _fingerprint(listing: Listing, found: Contents) -> str:
    digest = hashlib.sha256(json.dumps(["tcpa data 1", listing.class_names]).encode())
    for name in SPLITS:
        split = listing.splits[name]
        rows = zip(split.keys, split.labels, found.hashes[name], strict=True)
        digest.update(json.dumps([name, *rows]).encode())
    if listing.mask_values is not None:
        masks = [found.hashes[masks_of(name)] for name in SPLITS]
        digest.update(json.dumps(["masks", listing.mask_values.key, *masks]).encode())
    if found.depth != FULL_DEPTH:  # which changes the pixels of all 16-bit files
        digest.update(f"grey {found.depth}".encode())
    return digest.hexdigest()


def _store_key(
    listing: Listing, hashes: Mapping[str, tuple[str, ...]], name: str, rule: ResizeRule
) -> str:
    """Name of a split's pixels: contents in order, resize rule, versions of file and decoder."""
    told = [str(SCHEMA), DECODER, str(rule), *hashes[name]]
    if name not in SPLITS:  # masks: and what they mean, and the pictures that give their size
        assert listing.mask_values is not None
        told += [listing.mask_values.key, *hashes[split_of_masks(name)]]
    return sha256("\n".join(told).encode())[:32]


_Entry = tuple[str, ResizeRule]
"""A split of a listing, or its masks, as the cache keeps it."""


def _parts(cfg: DataConfig, listing: Listing, rule: ResizeRule) -> dict[str, Sequence[_Entry]]:
    """What the splits of a data set are made of, one after the other, and their masks."""
    # val stays: it is still what epochs are scored on.
    trained = ("train", "val") if cfg.train_on == "train_and_val" else ("train",)
    of_train = rule.of_train(cfg)
    parts: dict[str, Sequence[_Entry]] = {name: [(name, rule)] for name in SPLITS}
    parts |= {"train": [(name, of_train) for name in trained]}
    if listing.mask_values is None:
        return parts
    # Scored at the size of their files.
    masks = {masks_of(name): [(masks_of(name), replace(rule, whole=True))] for name in SPLITS}
    masks[masks_of("train")] = [(masks_of(name), of_train) for name in trained]
    return parts | masks


def _split(
    listing: Listing,
    stores: Mapping[_Entry, ImageStore],
    parts: Mapping[str, Sequence[_Entry]],
    name: str,
) -> Split:
    """Some entries, one after the other."""
    found = [listing.splits[entry] for entry, _ in parts[name]]
    masks = parts.get(masks_of(name))
    return Split(
        images=join(*(stores[entry] for entry in parts[name])),
        labels=np.array([label for split in found for label in split.labels], np.int64),
        paths=tuple(key for split in found for key in split.keys),
        masks=join(*(stores[entry] for entry in masks)) if masks else None,
    )


def _need(
    listing: Listing,
    hashes: Mapping[str, tuple[str, ...]],
    entries: Collection[_Entry],
    cache: Path,
    progress: Progress | None,
) -> CacheNeed:
    """Of the entries that the cache lacks."""
    images = [
        (rule, name, index)
        for name, rule in entries
        if lacks(cache / "pixels", _store_key(listing, hashes, name, rule))
        for index in range(len(listing.files[name].keys))
    ]
    num_bytes = 0
    for done, found in enumerate(ordered_map(partial(_stored_bytes, listing), images)):
        num_bytes += found
        if progress:
            progress("measure images", done + 1, len(images))
    masks = sum(name not in SPLITS for _, name, _ in images)
    return CacheNeed.of(len(images), num_bytes, cache, masks=masks)


def _stored_bytes(listing: Listing, image: tuple[ResizeRule, str, int]) -> int:
    """What one image takes in the cache, by its header; 0: it has none that can be read."""
    rule, name, index = image
    split = listing.files[name]
    if split.read is None and listing.root:
        size = header_size(listing.root / split.keys[index])
    else:
        stored = content(listing, split, index)
        if isinstance(stored, bytes):
            size = header_size(io.BytesIO(stored))
        else:
            size = stored.shape[1], stored.shape[0]
    if size is None:
        return 0
    width, height = rule.stored_size(*size)
    return (3 if name in SPLITS else 1) * width * height


def _decoder(
    listing: Listing, name: str, hashes: Mapping[str, Sequence[str]], rule: ResizeRule
) -> Callable[[int], Pixels]:
    """Gives the pixels of each image of a split as the cache stores them, or its masks."""
    split = listing.files[name]
    if name in SPLITS:
        return partial(_decode_one, listing, split, hashes[name], rule)
    images = listing.splits[split_of_masks(name)].keys
    return partial(decode_mask, listing, split, images, hashes[name], rule)


def _decode_one(
    listing: Listing, split: SplitListing, hashes: Sequence[str], rule: ResizeRule, index: int
) -> Pixels:
    """Pixels of one image as the cache stores them."""
    key = split.keys[index]
    place = f"{listing.root / key} ({split.place(index)})" if listing.root else key
    stored = unchanged(listing, split, index, hashes[index], place)
    if isinstance(stored, bytes):
        return rule.store(decode(stored, place, rule.depth), place)
    return rule.store(Image.fromarray(stored).convert("RGB"), place)
