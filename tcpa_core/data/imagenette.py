"""Imagenette as imagenette2.tgz and its smaller versions unpack: {train,val}/<WordNet id>/.

`data.root` is the folder imagenette2, imagenette2-320 or imagenette2-160, or the one that holds it.
Its val split is what it is scored on, and is test here; data.val_fraction of each class of train is
val.

Source: J. Howard, https://github.com/fastai/imagenette.
"""

from pathlib import Path

from tcpa_core.data._official import OfficialKind, Parts, folder_part, image_folders
from tcpa_core.errors import DataError

CLASSES = {
    "n01440764": "tench", "n02102040": "English springer", "n02979186": "cassette player",
    "n03000684": "chain saw", "n03028079": "church", "n03394916": "French horn",
    "n03417042": "garbage truck", "n03425413": "gas pump", "n03445777": "golf ball",
    "n03888257": "parachute",
}  # fmt: skip


def _parts(base: Path) -> Parts:
    found = {split: image_folders(base, split) for split in ("train", "val")}
    if [*found["train"]] != [*found["val"]]:
        raise DataError(
            f"train/ and val/ below {base.absolute()} have other class folders; unpack the "
            "archive again."
        )
    return Parts(
        root=base,
        class_names=tuple(CLASSES.get(name, name) for name in found["train"]),
        class_source="the class folders of train/",
        splits={
            "train": folder_part(found["train"], "train/"),
            "test": folder_part(found["val"], "val/"),
        },
    )


_KIND = OfficialKind(
    key="imagenette",
    places=("", "imagenette2", "imagenette2-320", "imagenette2-160"),
    marks=("|".join(f"train/{name}" for name in CLASSES), "val"),
    parts=_parts,
    # The whole of ImageNet has these folders among a thousand.
    tells=lambda base: len([*(base / "train").iterdir()]) <= len(CLASSES) + 1,
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
