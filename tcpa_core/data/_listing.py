"""What a data set file hands over: each image's split and class, and the checks on them."""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tcpa_core.data._classes import check_classes
from tcpa_core.data._formats import SUFFIXES, unread_suffix
from tcpa_core.data._masks import MaskValues
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DataConfig

SPLITS = ("train", "val", "test")
MAX_LIST_BYTES = 1 << 28
"""Two million lines of 128 characters: more than the lists of ImageNet-1k."""
TEST_FRACTION = 0.2

Content = bytes | npt.NDArray[np.uint8]
"""An image as it is stored: an image file's bytes, or pixels [H, W, 3] or grey ones [H, W]."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitListing:
    """The images of one split, in the order in which trials number them."""

    keys: tuple[str, ...]
    """Name of each image, used once over all splits: its path below `Listing.root`, written with
    "/", or a running number where the data set has no files."""
    labels: tuple[int, ...]
    """Class of each image, 0-based."""
    source: str
    """List or folder that the split was read from, for messages."""
    numbered: bool = False
    """The source has one image per line, so messages name the line."""
    read: Callable[[int], Content] | None = None
    """Content of image `index`, where images are no files of their own; called from several
    threads, mostly in ascending order. None: the keys are files."""
    files: tuple[str, ...] = ()
    """With `read`: the file below `Listing.root` that holds each image. What was read of it is
    remembered as long as its size and times stay. Empty: the images come without files."""
    masks: tuple[str, ...] = ()
    """Of each image the file with the class of every pixel, below `Listing.root`; the labels are 0
    then. Empty: an image has one class, its label."""

    def place(self, index: int) -> str:
        """Where image `index` is listed."""
        return f"{self.source}:{index + 1}" if self.numbered else self.source


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listing:
    """All splits of a data set. Checks itself; the files are read later.

    Raises:
        DataError: A split is missing or empty, a label has no class, an image is named twice, a
            suffix is not one of `SUFFIXES`, there are fewer than two classes, or the splits cannot
            mean the same classes (`check_classes`).
    """

    root: Path | None
    """Folder that the keys are relative to; None where the data set has no files."""
    class_names: tuple[str, ...]
    class_source: str
    """What the number of classes was read from, for messages."""
    splits: Mapping[str, SplitListing]
    """One entry for each name in `SPLITS`."""
    drawn: bool = False
    """Val was split off from train here (`draw_val`), and not by the data set."""
    notes: tuple[str, ...] = ()
    """What its reader found odd but not wrong, as sentences."""
    published: str | None = None
    """The data set of `PUBLISHED` that this is a copy of, with which its sizes are compared, or
    "vtab1k/" and a task. None: as the name of its folder says."""
    split: str = "official"
    """The value of data.split that the splits were made for."""
    tracks: str | None = None
    """What data.group would be to keep frames of one track together, where names have them."""
    mask_values: MaskValues | None = None
    """What is in the masks; None: there are none."""

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise DataError(
                f"a data set needs at least 2 classes, {self.class_source} gives "
                f"{len(self.class_names)} ({self.where})."
            )
        if len(set(self.class_names)) != len(self.class_names):
            twice = Counter(self.class_names).most_common(1)[0][0]
            raise DataError(f"{self.class_source} names class {twice!r} twice ({self.where}).")
        for name in SPLITS:
            self._check_split(name)
        self._check_overlap()
        if self.mask_values is None:
            check_classes(self.class_names, self.counts, self.where)

    @property
    def files(self) -> dict[str, SplitListing]:
        """The splits, and as further ones their masks: all that the data set is made of."""
        masks = {
            masks_of(name): SplitListing(
                keys=split.masks, labels=(0,) * len(split.masks), source=split.source
            )
            for name, split in self.splits.items()
            if split.masks
        }
        return {**self.splits, **masks}

    @property
    def counts(self) -> dict[str, tuple[int, ...]]:
        """Images of each class, by split."""
        found = {name: Counter(self.splits[name].labels) for name in SPLITS}
        classes = range(len(self.class_names))
        return {name: tuple(of[c] for c in classes) for name, of in found.items()}

    @property
    def where(self) -> str:
        """Root of the data set, for messages."""
        return str(self.root) if self.root else "built in"

    def _check_split(self, name: str) -> None:
        split = self.splits[name]
        if not split.keys:
            raise DataError(
                f"split {name} has no images: {split.source} below {self.where} is empty; "
                f"train, val and test each need at least one."
            )
        for index, (key, label) in enumerate(zip(split.keys, split.labels, strict=True)):
            if not 0 <= label < len(self.class_names):
                # The commonest mistake; that no label is 0 tells it from one wrong line.
                is_one_based = label == len(self.class_names) and 0 not in split.labels
                hint = " It seems to count from 1; subtract 1." if is_one_based else ""
                raise DataError(
                    f"{split.place(index)}: label of {key!r} must be in 0.."
                    f"{len(self.class_names) - 1} ({len(self.class_names)} classes by "
                    f"{self.class_source}), got {label} (below {self.where}).{hint}"
                )
            if split.read is None:
                check_suffix(key, split.place(index), self.where)

    def _check_overlap(self) -> None:
        seen: dict[str, str] = {}
        for name in SPLITS:
            split = self.splits[name]
            for index, key in enumerate(split.keys):
                place = f"{name} ({split.place(index)})"
                if key in seen:
                    raise DataError(
                        f"image {key!r} is named twice, in {seen[key]} and in {place}, below "
                        f"{self.where}; each image may be in one split, once. Remove one line."
                    )
                seen[key] = place


def masks_of(split: str) -> str:
    """What the masks of a split are called where they stand beside the splits."""
    return f"{split} masks"


def split_of_masks(name: str) -> str:
    """The reverse of `masks_of`."""
    return name.removesuffix(" masks")


def need_root(cfg: DataConfig) -> Path:
    """The folder `data.root`.

    Raises:
        ConfigError: data.root is not set.
        DataError: There is no such folder.
    """
    if cfg.root is None:
        raise ConfigError(
            f"data.root must name the folder of the data set for data.name={cfg.name!r}, got None; "
            f"'tcpa data get {cfg.name} --root DIR' fetches it, or says how."
        )
    root = Path(os.path.expanduser(cfg.root))
    if not os.path.isdir(root):  # unlike root.is_dir() without errors on names that cannot be
        what = "is a file" if os.path.exists(root) else "does not exist"
        raise DataError(
            f"data.root={cfg.root!r} must be a folder, but {root.absolute()} {what}; unpack the "
            f"data set there or correct data.root."
        )
    return root


def check_suffix(key: str, place: str, where: str) -> None:
    """Refuse a file that does not end like an image.

    Raises:
        DataError: Its suffix is not one of `SUFFIXES`.
    """
    if os.path.splitext(key)[1].lower() not in SUFFIXES:
        raise DataError(
            f"{place}: {key!r} does not end like an image (below {where})."
            f"{unread_suffix(key)} Accepted: {', '.join(SUFFIXES)}."
        )


def relative_key(text: str, place: str) -> str:
    """A path from a list in its one spelling ("./a//b.jpg" is "a/b.jpg").

    Raises:
        DataError: The path is empty, absolute or leaves the data set's folder, or has control
            characters or halves of a pair of code units, which no file name needs.
    """
    parts = [part for part in text.split("/") if part not in ("", ".")]
    # isprintable first: it is one fast call, and nearly all names pass it.
    odd = not text.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in text)
    if text.startswith("/") or ".." in parts or odd or not parts:
        raise DataError(
            f"{place}: image path must be relative and stay inside the data set's folder, got "
            f"{text!r}; write it relative to that folder, without '..' and control characters."
        )
    return "/".join(parts)


def read_text(path: Path) -> str:
    """A list file as text.

    Raises:
        DataError: The file is missing, unreadable, no regular file, too large or not UTF-8.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"list {path} is a folder or a device; a list is a text file.")
    try:
        size = path.stat().st_size
        if size > MAX_LIST_BYTES:
            raise DataError(
                f"list {path} has {size:,} bytes, more than {MAX_LIST_BYTES:,}; it is another file."
            )
        # -sig: spreadsheets put a mark in front, which would become part of the first name.
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as err:
        raise DataError(
            f"list {path.name} is missing below {path.parent.absolute()}; data.root must be the "
            f"folder that holds it."
        ) from err
    except UnicodeDecodeError as err:
        raise DataError(
            f"list {path} must be UTF-8 text, byte {err.start} is not; save it as UTF-8."
        ) from err
    except OSError as err:
        raise DataError(f"list {path} cannot be read: {err.strerror}; check its rights.") from err


def draw_val(keys: Sequence[str], labels: Sequence[int], cfg: DataConfig) -> list[int]:
    """Choose the images that become val where a data set has no val split.

    Of each class `data.val_fraction`, by a hash of the names and `data.split_seed`. With
    `data.group` whole groups are chosen, so that the shares are met as closely as their sizes
    allow; train keeps an image of every class.

    Args:
        keys: Names of the images of train.
        labels: Their classes.

    Returns:
        Positions of the chosen images, ascending.

    Raises:
        DataError: `data.group` does not match a name, or leaves no group to choose.
    """
    return _draw(keys, labels, cfg.val_fraction, f"val {cfg.split_seed}", cfg.group)


def draw_test(keys: Sequence[str], labels: Sequence[int], cfg: DataConfig) -> list[int]:
    """Choose the images that become test where a data set has no labelled test split.

    A fifth of each class by a hash of the names, whatever the seeds: no study trains on what
    another one is scored on. With `data.group` whole groups.

    Args:
        keys: Names of all images but those of val.
        labels: Their classes.

    Returns:
        Positions of the chosen images, ascending.

    Raises:
        DataError: As `draw_val`.
    """
    return _draw(keys, labels, TEST_FRACTION, "test", cfg.group)


def _draw(
    keys: Sequence[str], labels: Sequence[int], fraction: float, seed: str, group: str | None
) -> list[int]:
    if group is not None:
        return _choose_groups(group_keys(keys, group), labels, fraction, seed)
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    chosen = []
    for of_class in members.values():
        _, part = split_off([keys[i] for i in of_class], fraction, seed)
        chosen += [of_class[i] for i in part]
    return sorted(chosen)


def group_of(key: str, expression: str) -> str | None:
    """What `data.group` finds in a name: its first group, or the whole match; None: nothing."""
    match = re.search(expression, key)
    return None if match is None else match[1 if match.re.groups else 0]


def group_keys(keys: Sequence[str], expression: str) -> list[str]:
    """The group of each image.

    Raises:
        DataError: The expression finds nothing in a name, which is shown.
    """
    found = []
    for key in keys:
        group = group_of(key, expression)
        if group is None:
            raise DataError(
                f"data.group={expression!r} does not match {key!r}; it must find the track, "
                "patient or scene in every image's path below the data set's folder."
            )
        found.append(group)
    return found


def _choose_groups(
    groups: Sequence[str], labels: Sequence[int], fraction: float, seed: str
) -> list[int]:
    """Images of the groups that bring every class closest to its share, in the order of a hash."""
    sizes: dict[str, Counter[int]] = {}
    for group, label in zip(groups, labels, strict=True):
        sizes.setdefault(group, Counter())[label] += 1
    total = Counter(labels)
    # At least one image of a class in val, and at least one left in train.
    wanted = {c: min(max(1, round(fraction * n)), n - 1) for c, n in total.items()}
    val: Counter[int] = Counter()
    chosen = set()
    ordered = sorted(sizes, key=lambda group: rank_of(seed, group))
    for group in ordered:
        size = sizes[group]
        # A group may hold several classes: it is taken if, all in all, they come closer.
        gain = sum(abs(wanted[c] - val[c]) - abs(wanted[c] - val[c] - n) for c, n in size.items())
        if gain > 0 and all(val[c] + n < total[c] for c, n in size.items()):
            chosen.add(group)
            val += size
    for group in sorted(ordered, key=lambda group: sizes[group].total()):
        size = sizes[group]  # a class of few large groups: its smallest one, though it is too large
        if any(not val[c] for c in size) and all(val[c] + n < total[c] for c, n in size.items()):
            chosen.add(group)
            val += size
    if not chosen:
        raise DataError(
            f"data.group finds {len(sizes)} groups, none of which can be val without leaving train "
            "without a class; correct the expression or add a val split."
        )
    return [i for i, group in enumerate(groups) if group in chosen]


def split_off(keys: Sequence[str], fraction: float, seed: str) -> tuple[list[int], list[int]]:
    """Divide images of one class by a hash of their names.

    The result depends on names and seed alone, not on a library's random numbers; a picture more
    does not reshuffle the others.

    Args:
        keys: Names of the images, at least two.
        fraction: Share of the second part, in (0, 1); rounded, but neither part is empty.
        seed: Any text.

    Returns:
        Positions of the first and of the second part, each ascending.
    """
    order = sorted(range(len(keys)), key=lambda i: rank_of(seed, keys[i]))
    count = min(max(1, round(fraction * len(keys))), len(keys) - 1)
    return sorted(order[count:]), sorted(order[:count])


def rank_of(seed: str, name: str) -> bytes:
    """Place of a name in an order that depends on the seed and on nothing else."""
    return hashlib.sha256(os.fsencode(f"{seed}/{name}")).digest()
