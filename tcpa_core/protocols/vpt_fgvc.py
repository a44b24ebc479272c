"""VPT and its family on the fine-grained data sets, which keep their val split.

Their program tests every epoch and says of none that it is the one; the last is what the same
authors report on VTAB-1k.

Source:
    KMnP/vpt: tune_fgvc.py and the configurations.
"""

from tcpa_core.protocols._vpt import PROGRAM, VTAB
from tcpa_core.protocols.base import FINE_GRAINED, Fact, Protocol

PROTOCOL = Protocol(
    program=PROGRAM,
    facts={
        **VTAB,
        **FINE_GRAINED,
        "data.train_on": Fact("train", "train.py:71"),
        "train.batch_size": Fact(128, "configs/base-prompt.yaml:25"),
    },
    not_reproduced={
        "the rate changes with every step; theirs with every epoch, the first of which has rate 0":
            "src/engine/trainer.py:221",
        "replicates are the study's seeds; theirs have none": "src/configs/config.py:27",
    },
)  # fmt: skip
