"""German traffic signs (GTSRB), in the three forms in which they are distributed.

- As torchvision's GTSRB unpacks: gtsrb/GTSRB/Training/<class>/*.ppm (26,640 pictures),
  gtsrb/GTSRB/Final_Test/Images/*.ppm and gtsrb/GT-final_test.csv.
- The official archives of 2011: GTSRB/Final_Training/Images/<class>/*.ppm (39,209 pictures),
  GTSRB/Final_Test/Images and GT-final_test.csv beside or above them.
- As on Kaggle: Train/<class>/*.png, Test/*.png and Test.csv.

`data.root` is the folder of any of these names, or one above. There is no val: data.val_fraction of
each class of train is drawn image by image, with data.split=own by tracks (30 frames of one sign),
with data.split=hta a fifth of all of train by a shuffle, as TCPA and DAM-VP do, which tears tracks.

Source: J. Stallkamp et al., "Man vs. computer", Neural Networks 32, 2012.
"""

import csv
import os
from pathlib import Path

from tcpa_core.data._listing import SplitListing, read_text
from tcpa_core.data._official import OfficialKind, Parts, image_folders, part, ranks
from tcpa_core.errors import DataError

TRAIN = ("Training", "Final_Training/Images", "Train")
TEST = ("Final_Test/Images", "Test")
TABLES = ("GT-final_test.csv", "Test.csv")
"""The classes of test. GT-final_test.test.csv, which comes with the pictures, has none."""
TRACKS = r"(.*)_[0-9]+\.\w+$"


def _parts(base: Path) -> Parts:
    train_folder = next(name for name in TRAIN if (base / name).is_dir())
    test_folder = next(name for name in TEST if (base / name).is_dir())
    found = image_folders(base, train_folder)
    rows = _test_rows(base, test_folder)
    rank = ranks([str(_number(name, base / train_folder)) for name in found] + [c for _, c in rows])
    return Parts(
        root=base,
        class_names=tuple(rank),
        class_source=f"{train_folder}/",
        splits={
            "train": SplitListing(
                keys=tuple(key for keys in found.values() for key in keys),
                labels=tuple(rank[str(int(name))] for name, keys in found.items() for _ in keys),
                source=f"{train_folder}/",
            ),
            "test": part(
                [(test_folder, f"{test_folder}/{name}") for name, _ in rows],
                [rank[number] for _, number in rows],
                "GT-final_test.csv",
            ),
        },
    )


def _test_rows(base: Path, test_folder: str) -> list[tuple[str, str]]:
    """Name and class of each picture of test."""
    places = [base, base.parent, base / test_folder, base / "Final_Test"]
    table = next((p / name for p in places for name in TABLES if (p / name).is_file()), None)
    if table is None:
        raise DataError(
            f"the classes of test, {TABLES[0]}, are missing: looked in "
            f"{', '.join(str(place.absolute()) for place in places)}; they come in an archive of "
            "their own, GTSRB_Final_Test_GT.zip (GT-final_test.test.csv has none)."
        )
    lines = read_text(table).splitlines()
    reader = csv.DictReader(lines, delimiter=";" if lines and ";" in lines[0] else ",")
    rows = []
    for number, row in enumerate(reader, start=2):
        name, label = row.get("Filename") or row.get("Path") or "", row.get("ClassId") or ""
        if not name or not (label.isascii() and label.isdigit()):
            raise DataError(
                f"{table}:{number}: a line must have a Filename (or Path) and a ClassId, got "
                f"{dict(row)}; restore the table."
            )
        rows.append((name.rpartition("/")[2], str(int(label))))
    return rows


def _number(name: str, folder: Path) -> int:
    if not (name.isascii() and name.isdigit()):
        raise DataError(f"folder {folder / name} must be named by the number of its class.")
    return int(name)


def _is_here(base: Path) -> bool:
    """Class folders of numbers: Train/ and Test/ are names that others use as well."""
    folder = next((base / name for name in TRAIN if (base / name).is_dir()), base)
    return any(name.isdigit() for name in os.listdir(folder)[:100])


_KIND = OfficialKind(
    key="gtsrb",
    places=("", "GTSRB", "gtsrb/GTSRB", "gtsrb"),
    marks=("|".join(TRAIN), "|".join(TEST)),
    parts=_parts,
    hta="shuffled",
    tracks=TRACKS,
    tells=_is_here,
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
