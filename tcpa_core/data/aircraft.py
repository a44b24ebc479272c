"""FGVC-Aircraft as fgvc-aircraft-2013b.tar.gz unpacks: data/images and lists; classes are variants.

`data.root` is fgvc-aircraft-2013b/data, or one or two folders above it. Splits are those of
images_variant_{train,val,test}.txt. Pictures keep the line of text at their foot.

Source: S. Maji et al., "Fine-Grained Visual Classification of Aircraft", 2013.
"""

from pathlib import Path

from tcpa_core.data._listing import SPLITS
from tcpa_core.data._official import OfficialKind, Parts, part, ranks, read_rows


def _parts(base: Path) -> Parts:
    rows = {name: read_rows(base / f"images_variant_{name}.txt", 2) for name in SPLITS}
    rank = ranks(row[1] for of in rows.values() for _, row in of)
    return Parts(
        root=base / "images",
        class_names=tuple(rank),
        class_source="images_variant_*.txt",
        splits={
            name: part(
                [(place, f"{row[0]}.jpg") for place, row in of],
                [rank[row[1]] for _, row in of],
                f"images_variant_{name}.txt",
            )
            for name, of in rows.items()
        },
    )


_KIND = OfficialKind(
    key="aircraft",
    places=("", "data", "fgvc-aircraft-2013b/data"),
    marks=("images", *(f"images_variant_{name}.txt" for name in SPLITS)),
    parts=_parts,
    offers_val=True,
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
