"""Splits as JSON, the layout of the FGVC sets in VPT and TCPA: train.json, val.json and test.json.

`data.root` holds the three files. Each is one object {"relative/image/path.jpg": class id}; paths
are relative to images/, Images/ or the folder itself, whichever holds them. Ids are integers or
texts, with gaps or starting at 1; they are numbered 0.. in ascending order over the union of the
splits. (The published code numbers them per file, which shifts the labels of NABirds' val split,
where two of 555 classes do not occur.)

Source: file layout of the VPT code, arXiv:2203.12119.
"""

import json
import os
from pathlib import Path
from typing import Any

from tcpa_core.data.base import SPLITS, Listing, SplitListing, need_root, read_text, relative_key
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

MAX_ID = 200
IMAGE_ROOTS = ("images", "Images", ".")


def draws_val(cfg: DataConfig) -> bool:
    """Whether val is split off here: no, val.json is there."""
    return False


def recognises(root: Path) -> bool:
    """Whether a folder has the layout."""
    return all(os.path.isfile(root / f"{name}.json") for name in ("train", "test"))


def read(cfg: DataConfig) -> Listing:
    """List the splits.

    Raises:
        ConfigError: data.root is not set.
        DataError: A file is missing or not such an object, or its images are in no known folder.
    """
    root = need_root(cfg)
    rows = {name: _read_split(root / f"{name}.json") for name in SPLITS}
    ids = _sorted_ids(root, rows)
    rank = {class_id: index for index, class_id in enumerate(ids)}
    image_root = _image_root(root, list(rows["train"]))
    return Listing(
        root=image_root,
        class_names=tuple(map(str, ids)),
        class_source="the ids in train.json, val.json and test.json",
        splits={
            name: SplitListing(
                keys=tuple(split),
                labels=tuple(rank[class_id] for class_id in split.values()),
                source=f"{name}.json",
            )
            for name, split in rows.items()
        },
    )


def _read_split(path: Path) -> dict[str, int | str]:
    """Images and their ids, in the order of the file."""
    text = read_text(path)
    try:
        # Pairs, since a plain dict keeps only the last of two equal keys.
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as err:
        raise DataError(
            f"{path} is not JSON: {err}; restore the file, it must be one object "
            f'{{"image path": class id}}.'
        ) from err
    if not isinstance(pairs, _Pairs):
        raise DataError(
            f'{path}: must be one object {{"image path": class id}}, got a {type(pairs).__name__}.'
        )
    split: dict[str, int | str] = {}
    for name, class_id in pairs:
        key = relative_key(name, str(path))
        if key in split:
            raise DataError(f"{path}: image {key!r} is named twice; remove one of the two.")
        is_name = isinstance(class_id, str) and len(class_id) <= MAX_ID and class_id.isprintable()
        if not is_name and type(class_id) is not int:
            raise DataError(
                f"{path}: class id of {key!r} must be an integer or a text of at most {MAX_ID} "
                f"printable characters, got {_shown(class_id)}."
            )
        split[key] = class_id
    return split


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, told apart from a JSON array."""


def _shown(value: Any) -> str:
    return "an object" if isinstance(value, _Pairs) else repr(value)[: 2 * MAX_ID]


def _sorted_ids(root: Path, rows: dict[str, dict[str, int | str]]) -> list[int | str]:
    """Distinct ids of all splits in ascending order; texts of digits by their value."""
    ids = {class_id for split in rows.values() for class_id in split.values()}
    if len({type(class_id) for class_id in ids}) > 1:
        kinds = {
            name: sorted({type(class_id).__name__ for class_id in split.values()})
            for name, split in rows.items()
        }
        raise DataError(
            f"class ids below {root.absolute()} must be all integers or all texts, got {kinds}; "
            f"1 and '1' would be two classes."
        )
    if all(isinstance(class_id, int) or class_id.isdecimal() for class_id in ids):
        return sorted(ids, key=lambda class_id: (int(class_id), str(class_id)))
    return sorted(ids, key=str)


def _image_root(root: Path, keys: list[str]) -> Path:
    for name in IMAGE_ROOTS:
        if any(os.path.isfile(root / name / key) for key in keys):
            return root / name
    raise DataError(
        f"no image of train.json is below {root.absolute()}: looked for {keys[:1]} in "
        f"{', '.join(IMAGE_ROOTS)}; unpack the images there."
    )
