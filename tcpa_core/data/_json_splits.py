"""Splits as VPT writes them: one JSON object {"relative/image/path.jpg": class id} per split."""

import json
from pathlib import Path
from typing import Any

from tcpa_core.data._listing import read_text, relative_key
from tcpa_core.errors import DataError

MAX_ID = 200


def read_json_split(path: Path) -> dict[str, int | str]:
    """Images and their ids, in the order of the file.

    Raises:
        DataError: The file is missing, no such object, or names an image twice or outside.
    """
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
