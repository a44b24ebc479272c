"""Describable Textures as dtd-r1.0.1.tar.gz unpacks: images/ and ten partitions in labels/.

`data.root` is the folder dtd with images/ and labels/, or one or two above it (torchvision puts it
into dtd/dtd). Splits are those of partition 1, which HTA and VTAB use: train1.txt, val1.txt and
test1.txt.

Source: M. Cimpoi et al., "Describing Textures in the Wild", CVPR 2014.
"""

from pathlib import Path

from tcpa_core.data._listing import SPLITS
from tcpa_core.data._official import OfficialKind, Parts, part, ranks, read_rows


def _parts(base: Path) -> Parts:
    rows = {name: read_rows(base / "labels" / f"{name}1.txt", 1) for name in SPLITS}
    folders = {name: [row[0].partition("/")[0] for _, row in rows[name]] for name in SPLITS}
    rank = ranks(folder for found in folders.values() for folder in found)
    return Parts(
        root=base / "images",
        class_names=tuple(rank),
        class_source="labels/*1.txt",
        splits={
            name: part(
                [(place, row[0]) for place, row in rows[name]],
                [rank[folder] for folder in folders[name]],
                f"labels/{name}1.txt",
            )
            for name in SPLITS
        },
    )


_KIND = OfficialKind(
    key="dtd",
    places=("", "dtd", "dtd/dtd", "dtd-r1.0.1/dtd"),
    marks=("images", "labels/train1.txt", "labels/val1.txt", "labels/test1.txt"),
    parts=_parts,
    offers_val=True,
    hta="official",
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
