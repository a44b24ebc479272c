"""Linear probe: the head alone is trained on the features of the untouched backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcpa_core.config import TrialConfig
from tcpa_core.methods import base

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone


class Config(base.MethodSettings):
    """Nothing to set."""


class Method(base.Method[base.Pass]):
    """Adds nothing to the backbone."""

    @property
    def active(self) -> bool:
        """Never: features stay those of the backbone."""
        return False

    @classmethod
    def merged(
        cls, backbone: Backbone, config: TrialConfig, state: base.MemberState
    ) -> Backbone | None:
        """The backbone as it is."""
        return backbone
