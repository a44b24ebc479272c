"""Where data sets with masks keep them: which mask belongs to which picture, by folders and names.

Nothing is read here but lists and folder names.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tcpa_core.data._classes import listed
from tcpa_core.data._formats import SUFFIXES
from tcpa_core.data._listing import check_suffix, read_text, relative_key
from tcpa_core.data._rows import WORDS
from tcpa_core.errors import DataError

Kind = Literal["ade20k", "camvid", "cityscapes", "voc", "plain"]
IMAGES = ("images", "image", "imgs", "img", "img_dir", "jpegimages")
MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "ann_dir", "ann"),
    *("segmentationclass", "segmentationclasspng", "gt"),
)
BESIDE = ("annot", "_annot", "_labels", "_masks", "_mask", "_label", "_annotations")
"""What the folder of a split's masks has behind the name of that of its pictures: trainannot."""
ENDS = (
    *("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_annotation"),
    *("_l", "_p", "_labeltrainids", "_labelids"),
)
"""What a mask's name may have behind that of its picture, in lower case."""
CITY_IMAGE = "_leftimg8bit"
CITY_MASKS = ("_gtfine_labeltrainids", "_gtfine_labelids")
LISTS = "ImageSets/Segmentation"
"""Folder of VOC's lists of names."""
IGNORED = ("thumbs.db", "desktop.ini", "__macosx")
MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pictures of one split with their masks."""

    images: tuple[str, ...]
    """Paths below the root."""
    masks: tuple[str, ...]
    """Of each."""
    source: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Folders of a data set with masks."""

    kind: Kind
    folders: Mapping[str, tuple[str, str]]
    """Of pictures and masks, by split; "": of all splits."""
    lists: Mapping[str, str] = field(default_factory=dict)
    """List of names of each split, where the folders are of all."""


class _Folders:
    """Folders below a root, as they are spelt there; each is listed once, however often asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, dict[str, str]] = {}

    def find(self, path: str) -> str | None:
        """A folder by its path, in whatever case; None: there is none."""
        found = ""
        for part in path.split("/"):
            names = self._below(found)
            name = names.get(part) or names.get(part.lower())
            if not name:
                return None
            found = f"{found}/{name}" if found else name
        return found

    def _below(self, folder: str) -> dict[str, str]:
        """Names of the folders there, by themselves and by how they are in lower case."""
        if folder not in self._names:
            try:
                names = [e.name for e in os.scandir(self.root / folder) if e.is_dir()]
            except OSError:
                names = []
            # the first of several that differ in case alone; its own spelling goes before all
            lower = {name.lower(): name for name in reversed(names)}
            self._names[folder] = lower | {name: name for name in names}
        return self._names[folder]


def layout_of(root: Path) -> Layout | None:
    """The layout that a folder has, by names of folders; None: none with masks."""
    below = _Folders(root)
    city = (below.find("leftImg8bit"), below.find("gtFine"))
    if city[0] and city[1]:
        found = _splits(below, [(f"{city[0]}/{{}}", f"{city[1]}/{{}}")])
        return Layout("cityscapes", found) if "train" in found else None
    masks = below.find("SegmentationClass") or below.find("SegmentationClassPNG")
    voc = (below.find("JPEGImages"), masks)
    if voc[0] and voc[1] and (root / LISTS).is_dir():
        lists = {split: f"{LISTS}/{split}.txt" for split in WORDS}
        lists = {split: file for split, file in lists.items() if (root / file).is_file()}
        return Layout("voc", {"": (voc[0], voc[1])}, lists)
    found = _splits(below, [*_above(), *_below(), *_beside()])
    if "train" in found:
        return Layout(_kind(*found["train"]), found)
    return _flat(below)


def _kind(images: str, masks: str) -> Kind:
    if (images.lower(), masks.lower()) == ("images/training", "annotations/training"):
        return "ade20k"
    return "camvid" if masks.lower().endswith("annot") else "plain"


def _above() -> Iterator[tuple[str, str]]:
    return ((f"{images}/{{}}", f"{masks}/{{}}") for images in IMAGES for masks in MASKS)


def _below() -> Iterator[tuple[str, str]]:
    return ((f"{{}}/{images}", f"{{}}/{masks}") for images in IMAGES for masks in MASKS)


def _beside() -> Iterator[tuple[str, str]]:
    return (("{}", f"{{}}{end}") for end in BESIDE)


def _splits(below: _Folders, patterns: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Folders of each split by the first pattern that fits its name."""
    found: dict[str, tuple[str, str]] = {}
    for pattern in patterns:
        for split, words in WORDS.items():
            for word in words:
                images, masks = (below.find(part.format(word)) for part in pattern)
                if split not in found and images and masks and _has_pictures(below.root / masks):
                    found[split] = images, masks
        if found:
            return found
    return found


def _flat(below: _Folders) -> Layout | None:
    """All pictures in one folder, all masks in another, with lists of the splits or none."""
    root = below.root
    for pictures in IMAGES:
        for of_masks in MASKS:
            images, masks = below.find(pictures), below.find(of_masks)
            if images and masks and _has_pictures(root / masks, deep=False):
                lists = {
                    split: f"{word}.txt"
                    for split, words in WORDS.items()
                    for word in reversed(words)
                    if (root / f"{word}.txt").is_file()
                }
                return Layout("plain", {"": (images, masks)}, lists if "train" in lists else {})
    return None


def _has_pictures(folder: Path, *, deep: bool = True) -> bool:
    """Whether there is a picture file in a folder, or one level below: labels may be texts."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return False
    if any(e.name.lower().endswith(SUFFIXES) and e.name[0] != "." for e in entries):
        return True
    return deep and any(e.is_dir() and _has_pictures(Path(e.path), deep=False) for e in entries)


def unmasked(root: Path, layout: Layout) -> list[str]:
    """Folders of pictures that stand where a split's would, but have no masks beside them."""
    if "train" not in layout.folders or layout.kind == "cityscapes":  # of test it publishes none
        return []
    parts = layout.folders["train"][0].split("/")
    (at,) = (i for i, part in enumerate(parts) if part.lower() in WORDS["train"])
    below = _Folders(root)
    places = (
        below.find("/".join([*parts[:at], word, *parts[at + 1 :]]))
        for split, words in WORDS.items()
        if split not in layout.folders
        for word in words
    )
    return [place for place in places if place and _has_pictures(root / place)]


def pairs_of(root: Path, layout: Layout, lists: Mapping[str, str]) -> dict[str, Pairs]:
    """The pictures and masks of each split.

    Args:
        lists: List of names of each split; other than those of the layout where a setting says so.

    Raises:
        DataError: A picture without a mask, a mask without a picture, two files of one name, a file
            that is no picture, or a list that names what is not there.
    """
    found = {
        split: _paired(root, layout, *folders)
        for split, folders in layout.folders.items()
        if split != "test" or layout.kind != "cityscapes"  # whose masks are not published
    }
    if "" not in found:
        return found
    whole = found[""]
    if not lists:
        return {"train": whole}
    return {split: _chosen(root, whole, file) for split, file in lists.items()}


def _paired(root: Path, layout: Layout, images: str, masks: str) -> Pairs:
    # Cityscapes has polygons as JSON beside its masks.
    pictures, every = _files(root, images), _files(root, masks, layout.kind != "cityscapes")
    if layout.kind == "cityscapes":
        city = [stem.removesuffix(CITY_IMAGE) for stem in pictures]
        end = next((e for e in CITY_MASKS if all(stem + e in every for stem in city)), None)
        wanted = dict(zip(pictures, [stem + (end or CITY_MASKS[-1]) for stem in city], strict=True))
    else:
        end = _end(pictures, every)
        wanted = {stem: stem + end for stem in pictures}
    lost = [pictures[stem] for stem, mask in wanted.items() if mask not in every]
    is_listed = bool(layout.lists)  # pictures without a mask are in no list
    if lost and not is_listed:
        raise DataError(
            f"{len(lost):,} of {len(pictures):,} pictures of {root.absolute() / images} have no "
            f"mask in {masks}/: {listed(lost)}; a mask has the name of its picture. Add the masks "
            "or remove the pictures."
        )
    kept = [stem for stem, mask in wanted.items() if mask in every]
    used = set(wanted.values())
    extra = [every[stem] for stem in every if stem not in used]
    if extra and layout.kind != "cityscapes" and not is_listed:
        raise DataError(
            f"{len(extra):,} of {len(every):,} masks of {root.absolute() / masks} have no picture "
            f"in {images}/: {listed(extra)}; add the pictures or remove the masks."
        )
    return Pairs(
        tuple(pictures[stem] for stem in kept),
        tuple(every[wanted[stem]] for stem in kept),
        f"{images}/",
    )


def _end(pictures: Mapping[str, str], masks: Mapping[str, str]) -> str:
    """What masks have behind the names of pictures, by how many then have one."""
    return max(ENDS, key=lambda end: sum(stem + end in masks for stem in pictures))


def _files(root: Path, folder: str, only_images: bool = True) -> dict[str, str]:
    """Paths below the root by what pictures and masks share: the path below the folder, in lower
    case and without its suffix; sorted."""
    found: dict[str, str] = {}
    for key in _walk(root, folder):
        if not only_images and not key.lower().endswith(SUFFIXES):
            continue
        check_suffix(key, f"{folder}/", str(root))
        stem = os.path.splitext(key[len(folder) + 1 :])[0].lower()
        if stem in found:
            raise DataError(
                f"{found[stem]!r} and {key!r} below {root.absolute()} have one name, so that it is "
                "not known which of them belongs to the other folder's file; remove one."
            )
        found[stem] = key
    return found


def _walk(root: Path, folder: str) -> Iterator[str]:
    if folder.count("/") > MAX_DEPTH:
        raise DataError(f"{root.absolute() / folder} is deeper than {MAX_DEPTH} folders.")
    try:
        entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
    except OSError as err:
        raise DataError(
            f"folder {root.absolute() / folder} cannot be read: {err.strerror}; check its rights."
        ) from err
    for entry in entries:
        if entry.name[0] == "." or entry.name.lower() in IGNORED:
            continue
        if entry.is_dir():
            yield from _walk(root, f"{folder}/{entry.name}")
        else:
            yield f"{folder}/{entry.name}"


def _chosen(root: Path, whole: Pairs, file: str) -> Pairs:
    """The pictures that a list names, with or without folder and suffix."""
    place = {_stem(image): index for index, image in enumerate(whole.images)}
    lines = read_text(root / file).splitlines()
    chosen = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = relative_key(line.split()[0], f"{root / file}:{number}")
        if _stem(name) not in place:
            raise DataError(
                f"{root / file}:{number} names {name!r}, of which there is no picture with a mask "
                f"in {whole.source}; add both or remove the line."
            )
        chosen.append(place[_stem(name)])
    return Pairs(_at(whole.images, chosen), _at(whole.masks, chosen), file)


def _stem(path: str) -> str:
    name = path.rpartition("/")[2].lower()
    stem, suffix = os.path.splitext(name)
    return stem if suffix in SUFFIXES else name


def _at(names: Sequence[str], positions: Sequence[int]) -> tuple[str, ...]:
    return tuple(names[index] for index in positions)
