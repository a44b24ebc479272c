"""Food-101 as food-101.tar.gz unpacks: images/<class>/ and meta/{train,test}.txt.

`data.root` is the folder food-101, or the one that holds it. There is no val: data.val_fraction of
each class of train is drawn, or with data.split=hta a fifth of all of train by a shuffle.

Source: L. Bossard et al., "Food-101 - Mining Discriminative Components with Random Forests", ECCV
2014.
"""

import json
from pathlib import Path

from tcpa_core.data._listing import read_text
from tcpa_core.data._official import OfficialKind, Parts, part, ranks, read_rows
from tcpa_core.errors import DataError


def _parts(base: Path) -> Parts:
    names = {split: _names(base / "meta", split) for split in ("train", "test")}
    folders = {split: [one.partition("/")[0] for _, one in of] for split, of in names.items()}
    rank = ranks(folder for found in folders.values() for folder in found)
    return Parts(
        root=base / "images",
        class_names=tuple(rank),
        class_source="meta/",
        splits={
            split: part(
                [(place, f"{one}.jpg") for place, one in of],
                [rank[folder] for folder in folders[split]],
                f"meta/{split}",
            )
            for split, of in names.items()
        },
    )


def _names(meta: Path, split: str) -> list[tuple[str, str]]:
    """Place and name of each image; the same lists are there as text and as JSON."""
    text, file = meta / f"{split}.txt", meta / f"{split}.json"
    if text.is_file():
        return [(place, row[0]) for place, row in read_rows(text, 1)]
    try:
        found = json.loads(read_text(file))
        return [(str(file), str(name)) for names in found.values() for name in names]
    except (ValueError, AttributeError, TypeError, RecursionError) as err:
        raise DataError(
            f'{file} must be one object {{"class": ["class/image", ...]}} ({err}); restore it.'
        ) from err


_KIND = OfficialKind(
    key="food101",
    places=("", "food-101", "food101", "food-101/food-101"),
    marks=("images", "meta", "meta/train.json|meta/train.txt", "meta/test.json|meta/test.txt"),
    parts=_parts,
    hta="shuffled",
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
