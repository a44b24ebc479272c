"""CVPT on the fine-grained data sets, without their val split.

Source:
    Lingyun0419/CVPT: the training script.
"""

from tcpa_core.protocols.base import FINE_GRAINED, Protocol
from tcpa_core.protocols.cvpt_vtab import PROTOCOL as VTAB

PROTOCOL = Protocol(
    settings={
        **VTAB.settings,
        **FINE_GRAINED,
    },
    not_reproduced=tuple(line for line in VTAB.not_reproduced if not line.startswith("test is")),
)
