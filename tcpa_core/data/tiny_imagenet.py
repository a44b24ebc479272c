"""Tiny ImageNet as tiny-imagenet-200.zip unpacks: train/<WordNet id>/images/, val/ and its list.

`data.root` is the folder tiny-imagenet-200, or the one that holds it. Its test pictures have no
labels: its val split is test here, and data.val_fraction of each class of train is val. Copies
whose val/ was sorted into class folders are read as well.

Source: course CS231n, Stanford.
"""

from pathlib import Path

from tcpa_core.data._listing import SplitListing
from tcpa_core.data._official import (
    OfficialKind,
    Parts,
    folder_part,
    image_files,
    image_folders,
    part,
    read_rows,
)
from tcpa_core.errors import DataError

LIST = "val/val_annotations.txt"


def _parts(base: Path) -> Parts:
    train = image_folders(base, "train", of_class="images")
    return Parts(
        root=base,
        class_names=tuple(train),
        class_source="the class folders of train/",
        splits={"train": folder_part(train, "train/"), "test": _test(base, [*train])},
    )


def _test(base: Path, classes: list[str]) -> SplitListing:
    if not (base / LIST).is_file():
        found = {
            name: image_files(base, f"val/{name}/images" if inside else f"val/{name}")
            for name in classes
            for inside in [(base / "val" / name / "images").is_dir()]
        }
        return folder_part(found, "val/")
    rank = {name: number for number, name in enumerate(classes)}
    rows = read_rows(base / LIST, 3)  # a picture, its class, and a box
    strange = next((f"{place}: class {r[1]!r}" for place, r in rows if r[1] not in rank), None)
    if strange is not None:
        raise DataError(f"{strange} has no folder in train/ below {base.absolute()}.")
    return part(
        [(place, f"val/images/{row[0]}") for place, row in rows],
        [rank[row[1]] for _, row in rows],
        LIST,
    )


_KIND = OfficialKind(
    key="tiny_imagenet",
    places=("", "tiny-imagenet-200"),
    marks=("wnids.txt", "train", "val"),
    parts=_parts,
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
