"""CVPT on the fine-grained data sets, without their val split.

Source:
    Lingyun0419/CVPT: the training script.
"""

from tcpa_core.protocols.base import Protocol
from tcpa_core.protocols.cvpt_vtab import PROTOCOL as VTAB

PROTOCOL = Protocol(
    settings={
        **VTAB.settings,
        "data.resize": "short_side",
        "data.resize_to": None,
        "data.random_crop": True,
        "data.flip": True,
        "data.train_on": "train",
    },
    not_reproduced=tuple(line for line in VTAB.not_reproduced if not line.startswith("test is")),
)
