"""NABirds as nabirds.tar.gz unpacks: images/, images.txt, train_test_split.txt, classes.txt, ...

`data.root` is the folder nabirds, or the one that holds it. Classes are the 555 that pictures have,
by ascending id; ids have gaps. There is no val: data.val_fraction of each class of train is drawn,
or with data.split=hta what VPT's val.json names, which is looked for in data.splits_dir, or beside
the images.

Source: G. Van Horn et al., "Building a bird recognition app and large scale dataset with citizen
scientists", CVPR 2015.
"""

from tcpa_core.data._birds import MARKS, bird_parts
from tcpa_core.data._official import OfficialKind

USES = ("splits_dir",)

_KIND = OfficialKind(
    key="nabirds", places=("", "nabirds"), marks=MARKS, parts=bird_parts, hta="vpt",
    tells=lambda base: (base / "hierarchy.txt").exists(),
)  # fmt: skip
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
