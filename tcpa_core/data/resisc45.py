"""NWPU-RESISC45 as its archive unpacks: one folder for each of 45 classes, no splits.

`data.root` is the folder NWPU-RESISC45, or the one that holds it. A fifth of each class is test, by
a hash of the names; data.val_fraction of the rest is val.

Source: G. Cheng et al., "Remote Sensing Image Scene Classification: Benchmark and State of the
Art", 2017.
"""

from tcpa_core.data._class_folders import class_folder_parts
from tcpa_core.data._official import OfficialKind

CLASSES = (
    "airplane", "airport", "baseball_diamond", "basketball_court", "beach", "bridge", "chaparral",
    "church", "circular_farmland", "cloud", "commercial_area", "dense_residential", "desert",
    "forest", "freeway", "golf_course", "ground_track_field", "harbor", "industrial_area",
    "intersection", "island", "lake", "meadow", "medium_residential", "mobile_home_park",
    "mountain", "overpass", "palace", "parking_lot", "railway", "railway_station",
    "rectangular_farmland", "river", "roundabout", "runway", "sea_ice", "ship", "snowberg",
    "sparse_residential", "stadium", "storage_tank", "tennis_court", "terrace",
    "thermal_power_station", "wetland",
)  # fmt: skip

_KIND = OfficialKind(
    key="resisc45",
    places=("", "NWPU-RESISC45", "resisc45", "RESISC45"),
    marks=("|".join(CLASSES),),
    parts=class_folder_parts,
    # Folders of one of these names are found elsewhere, two of them hardly.
    tells=lambda base: sum((base / name).is_dir() for name in CLASSES) > 1,
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
