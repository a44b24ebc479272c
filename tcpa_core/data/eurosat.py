"""EuroSAT's RGB pictures as EuroSAT.zip unpacks: one folder for each of ten classes, no splits.

`data.root` is the folder of the class folders (2750, EuroSAT_RGB), or one above it (torchvision's
eurosat/2750). A fifth of each class is test, by a hash of the names; data.val_fraction of the rest
is val.

Source: P. Helber et al., "EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and
Land Cover Classification", 2019.
"""

from tcpa_core.data._class_folders import class_folder_parts
from tcpa_core.data._official import OfficialKind

CLASSES = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture",
    "PermanentCrop", "Residential", "River", "SeaLake",
)  # fmt: skip

_KIND = OfficialKind(
    key="eurosat",
    places=("", "2750", "eurosat/2750", "EuroSAT_RGB", "EuroSAT/2750", "EuroSAT", "eurosat"),
    marks=("|".join(CLASSES),),
    parts=class_folder_parts,
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
