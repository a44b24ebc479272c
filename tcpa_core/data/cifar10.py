"""CIFAR-10 as its authors' cifar-10-python.tar.gz unpacks, which torchvision's CIFAR10 reads too.

`data.root` is cifar-10-batches-py, or the folder that holds it. There is no val: data.val_fraction
of each class of train is drawn, or with data.split=hta the last fifth of train is taken.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from functools import partial

from tcpa_core.data._cifar import cifar_parts
from tcpa_core.data._official import OfficialKind

_KIND = OfficialKind(
    key="cifar10",
    places=("", "cifar-10-batches-py"),
    marks=("batches.meta", "data_batch_1", "test_batch"),
    parts=partial(
        cifar_parts,
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        labels="labels",
        names="label_names",
    ),
    hta="first_80",
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
