"""CVPT on VTAB-1k.

Source:
    Lingyun0419/CVPT: the training script, whose weight decay and batch size hold whatever the
    configuration files say.
"""

from tcpa_core.protocols._cvpt import PROGRAM, VTAB
from tcpa_core.protocols.base import Protocol

PROTOCOL = Protocol(
    program=PROGRAM,
    facts=VTAB,
    not_reproduced={
        "the rate changes with every step, from 0 and to 0; theirs with every epoch, from 1e-6 "
        "and to 1e-5": "train.py:105",
        "test is read after every epoch; theirs after every tenth": "train.py:35",
        "replicates are seeds; theirs is one seed, chosen for each data set": "train.py:77",
    },
)
