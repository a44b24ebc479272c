"""Where a copy of a published data set differs from what its authors distribute."""

import re
from collections.abc import Iterable, Iterator

from tcpa_core.data._hashes import content
from tcpa_core.data._listing import SPLITS, Listing
from tcpa_core.data._published import PUBLISHED, VTAB_TASKS, Sizes, alike, published_key
from tcpa_core.errors import DataError

_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WebP",
    b"P6": "PPM",
    b"P5": "PPM",
    b"BM": "BMP",
    b"II": "TIFF",
    b"MM": "TIFF",
}
_OF_LAYOUTS = re.compile("images|jpg|data|default|plain_text|cropped_digits|snapshots|[0-9a-f]{40}")
"""Folders inside a copy, those of huggingface_hub's cache included."""
_ANY = ("cars", "dogs", "pets", "cub", "aircraft")
"""Words that may name other data than the published set."""
_LOSSY = ("JPEG", "WebP")


def copy_notes(listing: Listing) -> tuple[str, ...]:
    """Sentences on classes, sizes and format that are not those of `Listing.published`."""
    key = listing.published if listing.published is not None else _named_after(listing)
    task = key.removeprefix("vtab1k/")
    if key in PUBLISHED:
        published = PUBLISHED[key]
        notes = _size_notes(listing, published.title, published.classes, published.splits.values())
        if listing.published == key and published.pictures == "arrays":
            return tuple(notes)  # its own files; unpacking SVHN's takes a second
        return (*notes, *_format_notes(listing, published.title, published.pictures))
    if task in VTAB_TASKS:  # lengths of its lists are its reader's
        return tuple(_format_notes(listing, f"VTAB's {task}", VTAB_TASKS[task].pictures))
    return ()


def _named_after(listing: Listing) -> str:
    """The data set that a folder is named after, where its layout does not say what it is."""
    folder = listing.root.resolve() if listing.root else None
    while folder and folder.name and _OF_LAYOUTS.fullmatch(folder.name.lower()):
        folder = folder.parent
    name = folder.name if folder else ""
    return "" if alike(name) in _ANY else published_key(name) or ""


def _size_notes(
    listing: Listing, title: str, classes: int, variants: Iterable[Sizes]
) -> Iterator[str]:
    used = sum(any(of) for of in zip(*listing.counts.values(), strict=True))
    found = Sizes(*(len(listing.splits[name].keys) for name in SPLITS))
    if used != classes or not any(_fits(listing, found, known) for known in variants):
        if listing.drawn:
            found = Sizes(found.train + found.val, 0, found.test)
        yield (
            f"this copy has pictures of {used} classes, {_text(found)}; {title} has {classes}, "
            f"{_text(next(iter(variants)))}."
        )


def _fits(listing: Listing, found: Sizes, known: Sizes) -> bool:
    """Whether a copy is whole: what is drawn from train counts as train."""
    if not known.test:
        return sum(found) == sum(known)
    if listing.drawn or not known.val:
        return found.test == known.test and found.train + found.val == known.train + known.val
    return found == known


def _text(sizes: Sizes) -> str:
    named = zip(SPLITS, sizes, strict=True)
    return ", ".join(f"{count:,} in {name}" for name, count in named if count)


def _format_notes(listing: Listing, title: str, published: str) -> Iterator[str]:
    try:
        first = content(listing, listing.splits["train"], 0)
    except DataError:  # told with all others that are missing, when they are hashed
        return
    if not isinstance(first, bytes):
        return
    found = next((name for magic, name in _MAGIC.items() if first.startswith(magic)), None)
    if found is None or (found in _LOSSY) == (published in _LOSSY):
        return
    theirs = "in arrays of bytes" if published == "arrays" else published
    why = "compressed anew" if found in _LOSSY else "decoded and stored anew"
    yield f"pictures of this copy are {found}, those of {title} are {theirs}: they were {why}."
