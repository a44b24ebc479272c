"""CUB-200-2011 as CUB_200_2011.tgz unpacks: images/, images.txt, train_test_split.txt and others.

`data.root` is the folder CUB_200_2011, or the one that holds it. There is no val: data.val_fraction
of each class of train is drawn, or with data.split=hta what VPT's val.json names, which is looked
for in data.splits_dir, or beside the images.

Source: C. Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", 2011.
"""

from tcpa_core.data._birds import MARKS, bird_parts
from tcpa_core.data._official import OfficialKind

USES = ("splits_dir",)

_KIND = OfficialKind(
    key="cub", places=("", "CUB_200_2011"), marks=MARKS, parts=bird_parts, hta="vpt",
    tells=lambda base: not (base / "hierarchy.txt").exists(),
)  # fmt: skip
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
