"""Tar files of samples, as WebDataset, img2dataset and clip-benchmark write image sets.

`data.root` holds the shards, `train-000000.tar`, or a folder of them for each split, `test/0.tar`.
A sample is a run of members with one name up to the first dot: an image and its class, in a .cls
file (a number or a name), a .json file (`label`, `cls`, `class`, ...) or a .txt file, whichever of
them is there first in this order. classnames.txt or classes.txt names the numbers.

Nothing is unpacked: members are found once by their headers, and read where they lie. Their names
are only names; a link, a device or a file with holes is refused.

Source: naming of the webdataset library; folders and classnames.txt of clip-benchmark's tar files.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tcpa_core.data._blocks import Spans
from tcpa_core.data._rows import (
    MAX_IMAGES,
    Label,
    Rows,
    assemble,
    by_split,
    holds,
    lack_val,
    names_beside,
    need_files,
)
from tcpa_core.data.base import SUFFIXES, Listing, relative_key
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

TARS = (".tar",)
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
LABELS = ("cls", "class", "label", "json", "txt")
JSON_LABELS = (
    "label",
    "cls",
    "class",
    "class_id",
    "class_name",
    "label_name",
    "target",
    "category",
)
MAX_LABEL_BYTES = 1 << 20
MAX_IMAGE_BYTES = 1 << 30


@dataclass(slots=True)
class _Sample:
    """Members of one name."""

    name: str
    image: tuple[int, int] | None = None
    """Where the image's bytes begin in the shard, and how many they are."""
    suffix: str = ""
    texts: dict[str, bytes] = field(default_factory=dict)
    """Contents of the members that may give the class, by suffix."""


def draws_val(cfg: DataConfig) -> bool:
    """Whether val is split off here: where no shard is named after it."""
    return lack_val(cfg, TARS)


def recognises(root: Path) -> bool:
    """Whether a folder has the layout."""
    return holds(root, TARS)


def read(cfg: DataConfig) -> Listing:
    """List the samples of all shards.

    Raises:
        ConfigError: data.root is not set.
        DataError: A shard is damaged or packed, or a member is no plain file, too large, named
            outside the archive or without its image or class.
    """
    try:
        root, shards = need_files(cfg, TARS)
    except DataError as err:
        _check_not_packed(cfg)
        raise err
    named, notes = by_split(shards)
    found = {split: _rows(root, names) for split, names in named.items()}
    above = Path(os.path.expanduser(cfg.root or ""))
    return assemble(root, found, cfg, names=names_beside(root) or names_beside(above), notes=notes)


def _check_not_packed(cfg: DataConfig) -> None:
    try:
        root, files = need_files(cfg, PACKED)
    except DataError:  # no such file either: what is missing is a plain one
        return
    raise DataError(
        f"{root / files[0]} is compressed, so that its members cannot be read one by one; "
        "unpack it to a plain .tar, for example with gunzip."
    )


def _rows(root: Path, shards: Sequence[str]) -> Rows:
    """All samples of one split."""
    keys: list[str] = []
    labels: list[Label] = []
    places: list[tuple[str, int, int]] = []
    without = ""
    for shard in shards:
        for sample in _samples(root / shard):
            if sample.image is None:
                raise DataError(
                    f"{root / shard}: sample {sample.name!r} has no image "
                    f"({', '.join(SUFFIXES)}); restore the shard, no sample is skipped."
                )
            label = _label(sample, root / shard)
            key = f"{shard}/{sample.name}.{sample.suffix}"
            if label is None:
                without = without or key
            else:
                labels.append(label)
            keys.append(key)
            places.append((shard, *sample.image))
            if len(keys) > MAX_IMAGES:
                raise DataError(
                    f"{root / shard}: more than {MAX_IMAGES:,} samples; take a part of the shards."
                )
    if labels and without:
        raise DataError(
            f"{root / without} has no class: no .cls, .json with {', '.join(JSON_LABELS)}, or .txt "
            "stands beside it, as with other samples; restore the shard, no sample is skipped."
        )
    return Rows(
        keys=tuple(keys),
        labels=labels or None,
        source=f"{shards[0]} and {len(shards) - 1} more" if shards[1:] else shards[0],
        read=Spans(root, places).read,
        files=tuple(shard for shard, _, _ in places),
    )


def _samples(path: Path) -> Iterator[_Sample]:
    """Samples of one shard, in its order."""
    sample: _Sample | None = None
    seen: set[str] = set()
    for name, member, text in _members(path):
        folder, _, file = name.rpartition("/")
        stem, _, suffix = file.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        if sample is None or sample.name != key:
            if sample is not None:
                yield sample
            if key in seen:
                raise DataError(
                    f"{path}: members of sample {key!r} stand apart or twice; write the shard with "
                    "the members of a sample one after the other."
                )
            seen.add(key)
            sample = _Sample(key)
        if f".{suffix.lower()}" in SUFFIXES:
            if sample.image is not None:
                raise DataError(
                    f"{path}: sample {key!r} has two images, .{sample.suffix} and .{suffix}; keep "
                    "one."
                )
            sample.image, sample.suffix = member, suffix
        elif text is not None:
            sample.texts[suffix.lower()] = text
    if sample is not None:
        yield sample


def _members(path: Path) -> Iterator[tuple[str, tuple[int, int], bytes | None]]:
    """Name, place and, of those that may give a class, content of each member."""
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps an object for each
                # "._": what macOS puts beside each file that has attributes of its own.
                if member.isdir() or member.name.rpartition("/")[2].startswith("._"):
                    continue
                name = relative_key(member.name, str(path))
                # Of a file with holes tarfile makes as many zeros as its header asks for.
                if not member.isreg() or member.issparse():
                    raise DataError(
                        f"{path}: member {name!r} is a link, a device or a file with holes, which "
                        "are not read; write the shard with plain files."
                    )
                is_label = name.rpartition("/")[2].partition(".")[2].lower() in LABELS
                limit = MAX_LABEL_BYTES if is_label else MAX_IMAGE_BYTES
                if member.size > limit or member.offset_data + member.size > size:
                    raise DataError(
                        f"{path}: member {name!r} has {member.size:,} bytes by its header, more "
                        f"than {limit:,} or than the shard has; download the shard again."
                    )
                stored = archive.extractfile(member) if is_label else None
                text = stored.read() if stored else None
                yield name, (member.offset_data, member.size), text
    except (tarfile.TarError, OSError, ValueError, EOFError) as err:
        raise DataError(
            f"{path} is not a whole, uncompressed tar file ({err}); download it again."
        ) from err


def _label(sample: _Sample, path: Path) -> Label | None:
    """The class of a sample; None: it has none."""
    for suffix in LABELS:
        if suffix not in sample.texts:
            continue
        place = f"{path}: {sample.name}.{suffix}"
        try:
            text = sample.texts[suffix].decode("utf-8").strip()
            value: object = json.loads(text) if suffix == "json" else text
        except (ValueError, RecursionError) as err:
            raise DataError(f"{place} is no UTF-8 text or JSON ({err}); restore it.") from err
        if suffix == "json":
            fields = value if isinstance(value, dict) else {}
            value = next((fields[name] for name in JSON_LABELS if name in fields), None)
            if value is None:
                continue
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise DataError(
                f"{place} must give one class, a whole number or a text, got {value!r:.60}."
            )
        return value
    return None
