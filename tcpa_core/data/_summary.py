"""What is in a data set, and what its user should know before believing a number measured on it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

from tcpa_core.data._cache import Images
from tcpa_core.data._classes import class_notes, listed
from tcpa_core.data._decode import FULL_DEPTH
from tcpa_core.data._hashes import Contents
from tcpa_core.data._listing import SPLITS, Listing, group_keys, group_of
from tcpa_core.data._masks import IGNORED
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

Hashes = Mapping[str, Sequence[str]]
"""SHA-256 of every image's content, by split."""


class Decoded(NamedTuple):
    """The images that a split is trained or scored on."""

    names: Sequence[str]
    images: Images
    """As they are stored."""
    masks: Images | None = None
    pixels: tuple[int, ...] = ()
    """With masks: pixels of each class, and as the last number those without one."""


DARK = 128
"""Values of 256; a split whose pictures use fewer of them was likely not scaled to 8 bits. Where
16-bit files of the whole data set have a narrower range, they are scaled by it."""
MOSTLY = 0.5
"""Share of pixels without a class that is told."""
NEARLY_BLACK = 32
"""Pictures of a 12-bit sensor end at 15, those of a 13-bit one at 31."""
OF_LAYOUTS = ("images", "jpg", "data", "default", "plain_text")
"""Folders that say nothing of the data set; the one above is its name."""
_FRAME = re.compile(r"(?P<track>.*[^/_-])[_-]\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """Counts of a data set and the sentences that every use of it has to say."""

    name: str
    """The kind, and the folder's name where it has one."""
    fingerprint: str
    class_names: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    """Images of each class, by split."""
    shared: Mapping[str, int]
    """Images of the second split whose bytes are also in the first: {"train/test": 6}."""
    two_labels: int
    """Distinct pictures that stand under more than one class."""
    notes: tuple[str, ...]
    """None of them is an error."""
    remarks: tuple[str, ...] = ()
    """How pictures are read, where that may surprise: nothing to doubt, so no record has it."""
    pixels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """With masks that were read, by split: pixels of each class, and as the last number those
    without one; `counts` are no classes then, only their sums say how many images there are."""

    @property
    def sizes(self) -> dict[str, int]:
        """Images by split."""
        return {split: sum(found) for split, found in self.counts.items()}

    def warnings(self) -> list[str]:
        """The notes, each with the data set's name."""
        return [f"data {self.name}: {note}" for note in self.notes]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record; classes are only counted."""
        found = asdict(self)
        del found["class_names"], found["counts"], found["remarks"], found["pixels"]
        return found | {"classes": len(self.class_names), "images": self.sizes}


def summarise(
    cfg: DataConfig,
    listing: Listing,
    found: Contents,
    fingerprint: str,
    decoded: Mapping[str, Decoded] | None = None,
) -> DataSummary:
    """Count a data set and look for what makes its numbers doubtful.

    Args:
        decoded: None: pixels are not judged.

    Raises:
        DataError: `data.group` does not match an image, or no mask of a split has a class.
    """
    counts, hashes = listing.counts, found.hashes
    shared = {
        f"{first}/{second}": sum(one in known for one in hashes[second])
        for first, second in combinations(SPLITS, 2)
        for known in [set(hashes[first])]
    }
    under_two = _under_two_labels(listing, hashes)
    notes = [
        *listing.notes,
        *([] if listing.mask_values else class_notes(listing.class_names, counts)),
        *(_mask_notes(listing, decoded) if listing.mask_values and decoded else []),
        *_shared_notes(listing, hashes, shared),
        *([_two_labels_note(listing, under_two)] if under_two else []),
        *_group_notes(cfg, listing),
        *(_pixel_notes(decoded) if decoded else []),
    ]
    folder = listing.root.resolve() if listing.root else None
    while folder and folder.name.lower() in OF_LAYOUTS:
        folder = folder.parent
    return DataSummary(
        name=f"{cfg.name} {folder.name}" if folder else cfg.name,
        fingerprint=fingerprint,
        class_names=listing.class_names,
        counts=counts,
        shared=shared,
        two_labels=len(under_two),
        notes=tuple(notes),
        remarks=tuple(_remarks(found)),
        pixels={name: one.pixels for name, one in (decoded or {}).items() if one.masks},
    )


def _mask_notes(listing: Listing, decoded: Mapping[str, Decoded]) -> Iterator[str]:
    """On classes and pictures without pixels.

    Raises:
        DataError: A split has no pixel with a class.
    """
    counts = {name: one.pixels[:-1] for name, one in decoded.items()}
    assert listing.mask_values is not None
    for name, one in decoded.items():
        if not any(counts[name]):
            raise DataError(
                f"no mask of {name} has a pixel with a class, all are ignored ({listing.where}): "
                f"{listing.mask_values.says}; correct data.ignore or the list of classes."
            )
        assert one.masks is not None
        empty = one.masks.flat & (one.masks.lows == IGNORED)
        if empty.any():
            named = listed(key for key, is_empty in zip(one.names, empty, strict=True) if is_empty)
            yield f"{int(empty.sum()):,} masks of {name} have no pixel with a class: {named}."
        share = one.pixels[-1] / sum(one.pixels)
        if share > MOSTLY:
            yield f"{share:.0%} of the pixels of {name} have no class."
    yield from class_notes(listing.class_names, counts, "pixel")


def _remarks(found: Contents) -> Iterator[str]:
    if found.turned:
        yield (
            f"{found.turned:,} pictures have an EXIF orientation, which is ignored, as "
            "torchvision's loader does: they are read as they are stored."
        )
    if found.transparent:
        yield (
            f"{found.transparent:,} pictures have transparent pixels; alpha is dropped, not "
            "blended, as torchvision's loader does, so that the colours stored under it are read."
        )
    if found.depth != FULL_DEPTH:
        yield f"16-bit grey is scaled by the {found.depth} bits that the pictures use."


def _shared_notes(listing: Listing, hashes: Hashes, shared: Mapping[str, int]) -> Iterator[str]:
    for pair, count in shared.items():
        if count:
            first, second = pair.split("/")
            keys = dict(zip(hashes[first], listing.splits[first].keys, strict=True))
            rows = zip(hashes[second], listing.splits[second].keys, strict=True)
            copy, original = next((key, keys[one]) for one, key in rows if one in keys)
            yield (
                f"{count:,} of {len(hashes[second]):,} {second} images are also in {first}, byte "
                f"for byte (first: {copy!r} is {original!r})."
            )


def _under_two_labels(listing: Listing, hashes: Hashes) -> list[list[tuple[str, int]]]:
    """Of every picture with more than one label: the first image of each."""
    found: dict[str, dict[int, str]] = {}
    for name, split in listing.splits.items():
        for one, key, label in zip(hashes[name], split.keys, split.labels, strict=True):
            found.setdefault(one, {}).setdefault(label, key)
    return [[(k, c) for c, k in of.items()] for of in found.values() if len(of) > 1]


def _two_labels_note(listing: Listing, found: Sequence[Sequence[tuple[str, int]]]) -> str:
    first = " and ".join(f"{key!r} ({listing.class_names[c]})" for key, c in found[0][:2])
    return (
        f"{len(found):,} pictures stand under two or more labels, byte for byte (first: {first})."
    )


def _group_notes(cfg: DataConfig, listing: Listing) -> Iterator[str]:
    """Groups in two splits, as far as these can be told."""
    if cfg.group is None:
        if listing.drawn:
            yield from _track_hint(listing)
        return
    keys = {name: split.keys for name, split in listing.splits.items()}
    groups: dict[str, Sequence[str | None]] = {
        name: group_keys(keys[name], cfg.group) for name in ("train", "val")
    }
    groups["test"] = [group_of(key, cfg.group) for key in keys["test"]]  # may be named otherwise
    for first, second in combinations(SPLITS, 2):
        known = set(groups[first]) - {None}
        torn = sum(group in known for group in groups[second])
        if torn:
            yield (
                f"{torn:,} of {len(groups[second]):,} {second} images belong to a group of {first} "
                f"(data.group={cfg.group!r}); the data set itself tears them apart."
            )


def _track_hint(listing: Listing) -> Iterator[str]:
    """Whether val was drawn image by image from what its names show to be frames of tracks."""
    rows = [
        (listing.splits[name].labels[i], _FRAME.fullmatch(key.rpartition(".")[0]), name)
        for name in ("train", "val")
        for i, key in enumerate(listing.splits[name].keys)
    ]
    if not all(match for _, match, _ in rows):
        return
    tracks = Counter(match["track"] for _, match, _ in rows if match)
    classes = len({label for label, _, _ in rows})
    if len(tracks) < 2 * classes or len(rows) < 3 * len(tracks):
        return
    known = {match["track"] for _, match, name in rows if match and name == "train"}
    val = [match["track"] for _, match, name in rows if match and name == "val"]
    torn = sum(track in known for track in val)
    if torn:
        yield (
            f"names look like frames of {len(tracks):,} tracks ({next(iter(tracks))!r}), and "
            f"{torn:,} of {len(val):,} val images have frames of their track in train; data.group "
            "keeps a track in one split, for example '(.*)_[0-9]+'."
        )


def _pixel_notes(decoded: Mapping[str, Decoded]) -> Iterator[str]:
    flat = dict.fromkeys(
        key
        for one in decoded.values()
        for key, is_flat in zip(one.names, one.images.flat, strict=True)
        if is_flat
    )
    if flat:
        yield f"{len(flat):,} pictures are of one colour throughout: {listed(flat)}."
    ranges = {
        split: (int(one.images.lows.min()), int(one.images.highs.max()))
        for split, one in decoded.items()
        if not one.images.flat.all()
    }
    narrow = {split: span for split, span in ranges.items() if span[1] - span[0] < DARK}
    if narrow:
        spans = [f"{low} to {high} in {split}" for split, (low, high) in narrow.items()]
        yield (
            f"of the values 0 to 255 pictures use only {', '.join(spans)}; scale the files to the "
            "whole range."
        )
    dark = dict.fromkeys(
        key
        for split, one in decoded.items()
        for key, high, is_flat in zip(one.names, one.images.highs, one.images.flat, strict=True)
        if high < NEARLY_BLACK and not is_flat and split not in narrow
    )
    if dark:
        yield (
            f"{len(dark):,} pictures use none of the values {NEARLY_BLACK} to 255, as 16-bit files "
            f"of a narrower range than others of the data set: {listed(dark)}."
        )
