"""Oxford-IIIT Pets as images.tar.gz and annotations.tar.gz unpack: images/ and annotations/.

`data.root` is the folder that holds the two, or the one above it (torchvision's oxford-iiit-pet).
Train is annotations/trainval.txt, of which data.val_fraction of each class is drawn as val.

Source: O. Parkhi et al., "Cats and Dogs", CVPR 2012.
"""

from pathlib import Path

from tcpa_core.data._official import OfficialKind, Parts, part, ranks, read_rows

LISTS = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}


def _parts(base: Path) -> Parts:
    # A line: name, breed from 1, cat or dog, breed among these.
    rows = {
        split: [r for r in read_rows(_place(base, file), 2) if r[1][0] != "#"]
        for split, file in LISTS.items()
    }
    breeds = {row[1].split()[0]: row[0].rpartition("_")[0] for of in rows.values() for _, row in of}
    rank = ranks(breeds)
    return Parts(
        root=_place(base, "images"),
        class_names=tuple(breeds[number] for number in rank),
        class_source="annotations/",
        splits={
            split: part(
                [(place, f"{row[0]}.jpg") for place, row in of],
                [rank[row[1].split()[0]] for _, row in of],
                LISTS[split],
            )
            for split, of in rows.items()
        },
    )


def _twice(name: str) -> str:
    """Where Kaggle's copy has it: in a folder in the folder of the same name."""
    return f"{name.partition('/')[0]}/{name}"


def _place(base: Path, name: str) -> Path:
    twice = base / _twice(name)
    return twice if twice.exists() else base / name


_KIND = OfficialKind(
    key="pets",
    places=("", "oxford-iiit-pet", "oxford-iiit-pets", "oxford_iiit_pet"),
    marks=("images", *(f"{name}|{_twice(name)}" for name in LISTS.values())),
    parts=_parts,
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
