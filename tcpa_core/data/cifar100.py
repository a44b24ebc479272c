"""CIFAR-100 as its authors' cifar-100-python.tar.gz unpacks, and as torchvision's CIFAR100 has it.

`data.root` is cifar-100-python, or the folder that holds it. Classes are the 100 fine ones. There
is no val: data.val_fraction of each class of train is drawn, or with data.split=hta the last fifth
of train is taken.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from functools import partial

from tcpa_core.data._cifar import cifar_parts
from tcpa_core.data._official import OfficialKind

_KIND = OfficialKind(
    key="cifar100",
    places=("", "cifar-100-python"),
    marks=("meta", "train", "test"),
    parts=partial(
        cifar_parts,
        train=("train",),
        test="test",
        meta="meta",
        labels="fine_labels",
        names="fine_label_names",
    ),
    hta="first_80",
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
