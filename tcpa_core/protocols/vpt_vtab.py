"""VPT and its family on VTAB-1k: the final runs, after the search on train and val.

Source:
    KMnP/vpt: tune_vtab.py and the configurations; the same in VFPT, E2VPT.
"""

from tcpa_core.protocols._vpt import PROGRAM, VTAB
from tcpa_core.protocols.base import Protocol

PROTOCOL = Protocol(
    program=PROGRAM,
    facts=VTAB,
    not_reproduced={
        "the rate changes with every step; theirs with every epoch, the first of which has rate 0":
            "src/engine/trainer.py:221",
        "resized pictures are rounded to whole bytes; theirs are not":
            "src/data/datasets/tf_dataset.py:152",
        "replicates are the study's seeds; theirs are 42, 44, 82, 100 and 800": "tune_vtab.py:284",
    },
)  # fmt: skip
