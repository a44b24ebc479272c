"""SUN397 as SUN397.tar.gz unpacks: ClassName.txt and a tree of folders such as a/abbey.

`data.root` is the folder SUN397, or the one that holds it. A fifth of each class is test, by a hash
of the names; data.val_fraction of the rest is val. The partitions of the authors are not read.

Source: J. Xiao et al., "SUN Database: Large-scale Scene Recognition from Abbey to Zoo", CVPR 2010.
"""

from pathlib import Path

from tcpa_core.data._listing import relative_key
from tcpa_core.data._official import OfficialKind, Parts, folder_part, image_files, read_rows


def _parts(base: Path) -> Parts:
    rows = read_rows(base / "ClassName.txt", 1)
    folders = sorted(relative_key(row[0].strip("/"), place) for place, row in rows)
    found = {folder: image_files(base, folder) for folder in folders if (base / folder).is_dir()}
    return Parts(
        root=base,
        # The letter in front is no part of the name.
        class_names=tuple(folder.partition("/")[2] for folder in found),
        class_source="ClassName.txt",
        splits={"train": folder_part(found, "the folders of ClassName.txt")},
    )


_KIND = OfficialKind(
    key="sun397", places=("", "SUN397"), marks=("ClassName.txt",), parts=_parts
)  # fmt: skip
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
