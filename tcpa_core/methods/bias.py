"""BitFit: every bias of the backbone is trained, those of its norms included.

Trainable besides the head, on a ViT-B/16: 102,912. A bias has no weight decay. The bias of the keys
adds the same to all scores of a query and so gets a gradient of 0 unless keys are normalised.

Source:
    Ben Zaken et al., BitFit, ACL 2022; as "tinytl-bias" in Jia et al., Visual Prompt Tuning, ECCV
    2022 (KMnP/vpt), which has TinyTL's biases but not its residual branches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcpa_core.errors import ConfigError
from tcpa_core.methods import base
from tcpa_core.methods._backbone_weights import BackboneWeights

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone


class Config(base.MethodSettings):
    """Nothing to set."""


class Method(BackboneWeights):
    """All biases of the backbone."""

    @classmethod
    def trained(cls, backbone: Backbone, settings: Any) -> list[str]:
        """Every weight named bias.

        Raises:
            ConfigError: There is none.
        """
        names = [name for name, _ in backbone.named_parameters() if name.endswith("bias")]
        if not names:
            raise ConfigError(
                "methods: 'bias' trains the backbone's biases, and this backbone has 0 of them; "
                "use methods [linear], or a backbone with biases."
            )
        return names
