"""Stanford Cars, in the forms in which copies circulate; its own page is offline.

- cars_train/, cars_test/, devkit/ with cars_train_annos.mat and cars_meta.mat, and
  cars_test_annos_withlabels.mat beside or in devkit/ (torchvision's StanfordCars); a copy of Kaggle
  has cars_train/cars_train/.
- car_ims/ and cars_annos.mat, which numbers the pictures otherwise.

`data.root` is the folder that holds them, or the one above it. There is no val: data.val_fraction
of each class of train is drawn, or with data.split=hta what VPT's val.json names.

Source: J. Krause et al., "3D Object Representations for Fine-Grained Categorization", 2013.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tcpa_core.data._listing import SplitListing
from tcpa_core.data._mat import numbers, read_mat, texts
from tcpa_core.data._official import OfficialKind, Parts, part
from tcpa_core.errors import DataError

DEVKITS = ("devkit", "", "car_devkit/devkit", "car_devkit")


def _parts(base: Path) -> Parts:
    if (base / "car_ims").is_dir():
        return _one_folder(base)
    names = _names(_find(base, "cars_meta.mat"))
    return Parts(
        root=base,
        class_names=names,
        class_source="cars_meta.mat",
        splits={
            "train": _split(base, "cars_train", _find(base, "cars_train_annos.mat")),
            "test": _split(base, "cars_test", _find(base, "cars_test_annos_withlabels.mat")),
        },
    )


def _one_folder(base: Path) -> Parts:
    file = _find(base, "cars_annos.mat")
    held = read_mat(file, ["annotations"])["annotations"]
    fields = _fields(file, held, ("relative_im_path", "class", "test"))
    keys, is_test = texts(fields[0]), numbers(file, fields[2])
    labels = [label - 1 for label in numbers(file, fields[1])]
    return Parts(
        root=base,
        class_names=_names(file),
        class_source=file.name,
        splits={
            name: part(
                [(file.name, key) for key, t in zip(keys, is_test, strict=True) if t == flag],
                [label for label, t in zip(labels, is_test, strict=True) if t == flag],
                file.name,
            )
            for name, flag in (("train", 0), ("test", 1))
        },
    )


def _split(base: Path, folder: str, file: Path) -> SplitListing:
    held = read_mat(file, ["annotations"])["annotations"]
    names, labels = _fields(file, held, ("fname", "class"))
    twice = (base / folder / folder).is_dir()
    return part(
        [(file.name, f"{folder}/{folder}/{n}" if twice else f"{folder}/{n}") for n in texts(names)],
        [label - 1 for label in numbers(file, labels)],
        file.name,
    )


def _fields(file: Path, held: Any, names: Sequence[str]) -> list[Any]:
    known = held if isinstance(held, dict) else {}
    lacking = [name for name in names if name not in known]
    if lacking:
        raise DataError(
            f"{file}: annotations have no field {lacking[0]!r}, they have {[*known]}; take the "
            "file with labels."
        )
    return [held[name] for name in names]


def _names(file: Path) -> tuple[str, ...]:
    return tuple(texts(read_mat(file, ["class_names"])["class_names"]))


def _find(base: Path, name: str) -> Path:
    found = next((base / kit / name for kit in DEVKITS if (base / kit / name).is_file()), None)
    if found is None:
        raise DataError(
            f"file {name} is missing below {base.absolute()}: looked beside cars_train/ or "
            f"car_ims/ and in {', '.join(kit for kit in DEVKITS if kit)}; take a copy that "
            "has it."
        )
    return found


USES = ("splits_dir",)

_KIND = OfficialKind(
    key="stanford_cars",
    places=("", "stanford_cars", "stanford-cars", "Stanford-cars", "StanfordCars"),
    marks=("car_ims|cars_train", "car_ims|cars_test"),
    parts=_parts,
    hta="vpt",
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
