"""Splits as JSON, the layout of the FGVC sets in VPT and TCPA: train.json, val.json and test.json.

`data.splits_dir` holds the three files, or a folder of them that is named after the data set;
without it `data.root` does. `data.train_list` is another list of train beside them, such as
train_0.1.json. Each list is one object {"relative/image/path.jpg": class id}; paths are relative to
data.root, or to images/, Images/, jpg/ or images/Images/ below it, whichever holds them. Pictures
of Stanford Cars may lie in car_ims/ or in cars_train/ and cars_test/.

Ids are integers or texts, with gaps or starting at 1; they are numbered 0.. in ascending order over
the union of the splits. (The published code numbers them per file, which shifts the labels of
NABirds' val split, where two of 555 classes do not occur.)

Source: file layout of the VPT code, arXiv:2203.12119.
"""

import os
from pathlib import Path

from tcpa_core.data._json_splits import read_json_split
from tcpa_core.data._official import splits_folders
from tcpa_core.data._published import published_key
from tcpa_core.data.base import SPLITS, Listing, SplitListing, need_root, relative_key
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

USES = ("splits_dir", "train_list")
CARS = ("car_ims", "cars_train", "cars_test")
IMAGE_ROOTS = ("images", "Images", ".", "jpg", "images/Images")


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
    lists = _lists_folder(cfg, root)
    files = {name: f"{name}.json" for name in SPLITS}
    if cfg.train_list is not None:
        files["train"] = relative_key(cfg.train_list, "data.train_list")
    rows = {name: read_json_split(lists / file) for name, file in files.items()}
    ids = _sorted_ids(root, rows)
    rank = {class_id: index for index, class_id in enumerate(ids)}
    image_root, cars = _image_root(root, list(rows["train"]))
    return Listing(
        root=image_root,
        class_names=tuple(map(str, ids)),
        class_source="the ids in train.json, val.json and test.json",
        splits={
            name: SplitListing(
                keys=tuple(_cars_key(image_root, key) for key in split) if cars else tuple(split),
                labels=tuple(rank[class_id] for class_id in split.values()),
                source=files[name],
            )
            for name, split in rows.items()
        },
        published=published_key(root.resolve().name),
        split="hta",
    )


def _lists_folder(cfg: DataConfig, root: Path) -> Path:
    """Where the lists are."""
    if cfg.splits_dir is None:
        return root
    given = Path(os.path.expanduser(cfg.splits_dir))
    key = published_key(root.resolve().name)
    folders = splits_folders(given, key)
    found = next((f for f in folders if (f / "val.json").is_file()), None)
    if found is None:
        raise DataError(
            f"data.splits_dir={cfg.splits_dir!r} has no val.json, nor has a folder in it that is "
            f"named as data.root, {root.resolve().name!r}; name the folder of the three lists."
        )
    return found


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


def _image_root(root: Path, keys: list[str]) -> tuple[Path, bool]:
    """The folder that paths are relative to, and whether those of Stanford Cars are to be found."""
    for name in IMAGE_ROOTS:
        if any(os.path.isfile(root / name / key) for key in keys):
            return root / name, False
    if keys and keys[0].partition("/")[0] in CARS and _cars_key(root, keys[0]) != keys[0]:
        return root, True
    hint = ""
    if keys and keys[0].startswith("car_ims/") and (root / "cars_train").is_dir():
        hint = (
            " The lists are of the copy in one folder, car_ims/; cars_train/ and cars_test/ number "
            "the pictures otherwise, and are read with data.name=stanford_cars."
        )
    raise DataError(
        f"no image of train.json is below {root.absolute()}: looked for {keys[:1]} in "
        f"{', '.join(IMAGE_ROOTS)}; unpack the images there.{hint}"
    )


def _cars_key(root: Path, key: str) -> str:
    """Where a picture of Stanford Cars lies: its copies have other folders, some of them twice.

    Numbers tell the copies apart: they have six digits in car_ims/, five in cars_train/.
    """
    folder, _, name = key.partition("/")
    places = (key, *(f"{each}/{rest}" for each in CARS for rest in (name, f"{each}/{name}")))
    allowed = (p for p in places if p.startswith(folder) or folder == "car_ims")
    return next((place for place in allowed if os.path.isfile(root / place)), key)
