"""Caltech-101 as it unpacks: 101_ObjectCategories/<class>/, its background class included.

`data.root` is 101_ObjectCategories or one or two folders above it (torchvision's caltech101). There
are no splits: a fifth of each class is test, by a hash of the names; data.val_fraction of the rest
is val. The background class makes 102 classes, as in VTAB; torchvision leaves it out.

Source: L. Fei-Fei et al., "Learning generative visual models from few training examples", 2004.
"""

from tcpa_core.data._class_folders import class_folder_parts
from tcpa_core.data._official import OfficialKind

_KIND = OfficialKind(
    key="caltech101",
    places=(
        "101_ObjectCategories", "caltech101/101_ObjectCategories",
        "caltech-101/101_ObjectCategories", "",
    ),
    marks=("BACKGROUND_Google|accordion|airplanes|Faces|Faces_easy|Leopards|Motorbikes|anchor|ant",),
    parts=class_folder_parts,
)  # fmt: skip
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
