"""VPT and its family on the fine-grained data sets, which keep their val split.

Source:
    KMnP/vpt: tune_fgvc.py and the configurations.
"""

from tcpa_core.protocols.base import Protocol
from tcpa_core.protocols.vpt_vtab import PROTOCOL as VTAB

PROTOCOL = Protocol(
    settings={
        **VTAB.settings,
        "data.resize": "short_side",
        "data.resize_to": None,
        "data.random_crop": True,
        "data.flip": True,
        "data.train_on": "train",
        "train.batch_size": 128,
    },
    not_reproduced=VTAB.not_reproduced,
)
