"""SSF on CIFAR-100 and ImageNet-1k: as on the fine-grained data sets, and RandAugment.

Source:
    dongzelian/SSF: train_scripts/vit/cifar_100, train_scripts/vit/imagenet_1k.
"""

from tcpa_core.protocols._ssf import (
    AUGMENTED,
    COMMON,
    NOT_REPRODUCED,
    NOT_REPRODUCED_OF_AUGMENTED,
    PROGRAM,
)
from tcpa_core.protocols.base import Fact, Protocol

PROTOCOL = Protocol(
    program=PROGRAM,
    facts={
        **COMMON,
        **AUGMENTED,
        "data.auto_augment": Fact("rand-m9-mstd0.5-inc1", "train.py:226"),
        "data.train_on": Fact("train_and_val", "data/dataset_factory.py:114"),
        "optim.lr": Fact(1e-3, "train_scripts/vit/cifar_100/train_ssf.sh:6"),
        "optim.warmup_fraction": Fact((0.1, 5 / 30), "train_scripts/vit/cifar_100/train_ssf.sh:5"),
        "train.epochs": Fact((100, 30), "train_scripts/vit/imagenet_1k/train_ssf.sh:3"),
        "train.batch_size": Fact((128, 256), "train_scripts/vit/cifar_100/train_ssf.sh:3"),
        "train.drop_path": Fact((0.0, 0.1), "train_scripts/vit/imagenet_1k/train_ssf.sh:7"),
    },
    not_reproduced={**NOT_REPRODUCED, **NOT_REPRODUCED_OF_AUGMENTED},
)
