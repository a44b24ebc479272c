"""Splits made from splits: parts, unions, val drawn anew, and few images of each class."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from tcpa_core.data._listing import Content, Listing, SplitListing, draw_val, rank_of, split_off
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

VPT_VAL = 0.1
"""Share of each class of train that VPT's lists keep for val."""

HtaRule = Literal["first_80", "shuffled", "official", "vpt"]
"""How HTA splits train: its first 80 %, a shuffle cut at 80 %, as the distributor does, or by VPT's
train.json and val.json."""


def take(split: SplitListing, positions: Sequence[int]) -> SplitListing:
    """The images of a split at some positions, in that order."""
    read = split.read

    def read_taken(index: int) -> Content:
        assert read is not None
        return read(positions[index])

    return replace(
        split,
        keys=tuple(split.keys[i] for i in positions),
        labels=tuple(split.labels[i] for i in positions),
        numbered=False,  # positions are no longer lines of the source
        read=read and read_taken,
        files=tuple(split.files[i] for i in positions) if split.files else (),
        masks=tuple(split.masks[i] for i in positions) if split.masks else (),
    )


def join(first: SplitListing, second: SplitListing) -> SplitListing:
    """All images of two splits of one data set."""
    length = len(first.keys)

    def read(index: int) -> Content:
        split, at = (first, index) if index < length else (second, index - length)
        assert split.read is not None
        return split.read(at)

    return SplitListing(
        keys=first.keys + second.keys,
        labels=first.labels + second.labels,
        source=f"{first.source} and {second.source}",
        read=first.read and read,
        files=first.files + second.files,
        masks=first.masks + second.masks,
    )


def split_train(train: SplitListing, val: Sequence[int]) -> dict[str, SplitListing]:
    """Train and val of the images of train, val at some positions."""
    chosen = set(val)
    rest = [i for i in range(len(train.keys)) if i not in chosen]
    return {"train": take(train, rest), "val": take(train, sorted(chosen))}


def hta_val(train: SplitListing, rule: Literal["first_80", "shuffled"], seed: int) -> list[int]:
    """Positions of val as the programs of TCPA and DAM-VP choose them.

    Args:
        seed: Of the shuffle. Theirs is drawn anew for each split, so that an image may be in both;
            here it is drawn once.
    """
    count = len(train.keys)
    order = np.arange(count)
    if rule == "shuffled":
        order = np.random.default_rng(seed).permutation(count)
    return sorted(order[count * 4 // 5 :].tolist())


def own_val(listing: Listing, cfg: DataConfig) -> Listing:
    """The data set with val drawn per class from train, and from the val that it brings.

    Frames of a track stay together where data.group or the data set's names tell them.

    Raises:
        DataError: `data.group` does not match a name, or leaves no group to choose.
    """
    by_track = cfg.group is None and listing.tracks is not None
    if listing.drawn and not by_track:
        return listing
    train = join(listing.splits["train"], listing.splits["val"])
    notes = listing.notes
    try:
        group = listing.tracks if by_track else cfg.group
        val = draw_val(train.keys, train.labels, cfg.model_copy(update={"group": group}))
    except DataError:
        if not by_track:
            raise
        val = draw_val(train.keys, train.labels, cfg)
        notes += ("val is drawn image by image: tracks are too few to keep them together.",)
    splits = {**listing.splits, **split_train(train, val)}
    return replace(listing, splits=splits, drawn=True, notes=notes)


def few_shot(listing: Listing, cfg: DataConfig) -> Listing:
    """The data set with `data.size_per_class` images of each class in train, by a hash of names.

    A smaller number takes some of the images that a larger one takes. Classes with fewer images
    keep all of theirs, which is noted.
    """
    assert cfg.size_per_class is not None
    train = listing.splits["train"]
    chosen: list[int] = []
    short = 0
    for of_class in _by_class(train):
        ordered = sorted(of_class, key=lambda i: rank_of(f"few {cfg.split_seed}", train.keys[i]))
        chosen += ordered[: cfg.size_per_class]
        short += len(of_class) < cfg.size_per_class
    notes = listing.notes
    if short:
        notes += (f"{short} classes have fewer images than data.size_per_class.",)
    splits = {**listing.splits, "train": take(train, sorted(chosen))}
    return replace(listing, splits=splits, notes=notes)


def _by_class(split: SplitListing) -> list[list[int]]:
    """Positions of the images of each class."""
    members: dict[int, list[int]] = {}
    for index, label in enumerate(split.labels):
        members.setdefault(label, []).append(index)
    return [*members.values()]


def vpt_val(train: SplitListing, val_keys: Mapping[str, object] | None, seed: int) -> list[int]:
    """Positions of val by VPT's val.json; without it, a tenth of each class by a hash.

    Raises:
        DataError: val.json names an image that train does not have.
    """
    if val_keys is not None:
        # Folder and file: lists and copies differ in the folders above.
        place = {_end(key): index for index, key in enumerate(train.keys)}
        lost = next((key for key in val_keys if _end(key) not in place), None)
        if lost is not None:
            raise DataError(
                f"val.json names {lost!r}, which is not in the train split of this copy "
                f"({train.source}); take the lists that belong to it."
            )
        return sorted(place[_end(key)] for key in val_keys)
    return [
        of_class[i]
        for of_class in _by_class(train)
        for i in split_off([train.keys[i] for i in of_class], VPT_VAL, f"val {seed}")[1]
    ]


def _end(key: str) -> tuple[str, ...]:
    return tuple(key.split("/")[-2:])
