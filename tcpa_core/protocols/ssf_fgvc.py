"""SSF on the fine-grained data sets: random parts of pictures, mirrored, mixed, cut and erased.

Source:
    dongzelian/SSF: train_scripts/vit/fgvc.
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
        "data.auto_augment": Fact(None, "train_scripts/vit/fgvc/cub_2011/train_ssf.sh:2"),
        "data.train_on": Fact("train_and_val", "data/cub2011.py:55"),
        "optim.weight_decay": Fact(0.05, "train_scripts/vit/fgvc/cub_2011/train_ssf.sh:4"),
        "train.epochs": Fact(100, "train_scripts/vit/fgvc/cub_2011/train_ssf.sh:3"),
        "train.batch_size": Fact(64, "train_scripts/vit/fgvc/cub_2011/train_ssf.sh:3"),
        "train.drop_path": Fact((0.0, 0.1), "train_scripts/vit/fgvc/nabirds/train_ssf.sh:7"),
    },
    not_reproduced={**NOT_REPRODUCED, **NOT_REPRODUCED_OF_AUGMENTED},
)
