"""VPT and its family on the fine-grained data sets, which keep their val split.

Source:
    KMnP/vpt: tune_fgvc.py and the configurations.
"""

from tcpa_core.protocols.base import FINE_GRAINED, Protocol
from tcpa_core.protocols.vpt_vtab import PROTOCOL as VTAB

PROTOCOL = Protocol(
    settings={
        **VTAB.settings,
        **FINE_GRAINED,
        "train.batch_size": 128,
    },
    not_reproduced=VTAB.not_reproduced,
)
