"""Oxford Flowers-102 as its page gives it: jpg/, imagelabels.mat and setid.mat.

`data.root` is the folder that holds the three, or the one above it (torchvision's flowers-102).
Splits are the official ones: 1,020 for train, 1,020 for val, 6,149 for test.

Source: M.-E. Nilsback and A. Zisserman, "Automated Flower Classification over a Large Number of
Classes", ICVGIP 2008.
"""

from pathlib import Path

from tcpa_core.data._mat import numbers, read_mat
from tcpa_core.data._official import OfficialKind, Parts, part, ranks
from tcpa_core.errors import DataError

LISTS = {"train": "trnid", "val": "valid", "test": "tstid"}


def _parts(base: Path) -> Parts:
    labels = numbers(
        base / "imagelabels.mat", read_mat(base / "imagelabels.mat", ["labels"])["labels"]
    )
    file = base / "setid.mat"
    held = read_mat(file, list(LISTS.values()))
    ids = {split: numbers(file, held[name]) for split, name in LISTS.items()}
    wrong = next((i for of in ids.values() for i in of if not 1 <= i <= len(labels)), None)
    if wrong is not None:
        raise DataError(
            f"{file} names picture {wrong}, imagelabels.mat has {len(labels)}; restore both."
        )
    rank = ranks(str(labels[i - 1]) for of in ids.values() for i in of)
    return Parts(
        root=base,
        class_names=tuple(rank),
        class_source="imagelabels.mat",
        splits={
            split: part(
                [("setid.mat", f"jpg/image_{i:05d}.jpg") for i in of],
                [rank[str(labels[i - 1])] for i in of],
                f"setid.mat ({LISTS[split]})",
            )
            for split, of in ids.items()
        },
    )


_KIND = OfficialKind(
    key="flowers102",
    places=("", "flowers-102", "102flowers", "flowers102", "oxford-flowers"),
    marks=("jpg", "imagelabels.mat", "setid.mat"),
    parts=_parts,
    offers_val=True,
    hta="official",
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
