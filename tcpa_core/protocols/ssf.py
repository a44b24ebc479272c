"""SSF on VTAB-1k, where its authors augment nothing.

Source:
    dongzelian/SSF: train_scripts/vit/vtab.
"""

from tcpa_core.protocols._ssf import COMMON, NOT_REPRODUCED, PROGRAM
from tcpa_core.protocols.base import Fact, Protocol, unaugmented

PROTOCOL = Protocol(
    program=PROGRAM,
    facts={
        **COMMON,
        **unaugmented("train_scripts/vit/vtab/cifar_100/train_ssf.sh:2"),
        "data.resize": Fact("squash", "data/transforms_factory.py:28"),
        "data.interpolation": Fact("bicubic", "models/vision_transformer.py:51"),
        "data.antialias": Fact(True, "data/transforms_factory.py:28"),
        "data.random_crop": Fact(False, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:2"),
        "data.flip": Fact(False, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:2"),
        "data.train_on": Fact("train_and_val", "data/vtab.py:12"),
        "train.label_smoothing": Fact(0.0, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:8"),
        "train.mixup_alpha": Fact(0.0, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:8"),
    },
    not_reproduced=NOT_REPRODUCED,
)
