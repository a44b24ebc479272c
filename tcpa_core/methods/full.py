"""Full fine-tuning: every weight of the backbone is trained.

Trainable besides the head: all of the backbone (85.8 M on a ViT-B/16). The network stays in
evaluation mode; the authors of VPT train with dropout 0.1 in the embeddings and the MLPs, which
train.dropout = 0.1 does here.

Source:
    The recipe of Jia et al., Visual Prompt Tuning, ECCV 2022 (KMnP/vpt): AdamW, biases without
    weight decay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcpa_core.methods import base
from tcpa_core.methods._backbone_weights import BackboneWeights

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone


class Config(base.MethodSettings):
    """Nothing to set."""


class Method(BackboneWeights):
    """All weights of the backbone."""

    @classmethod
    def trained(cls, backbone: Backbone, settings: Any) -> list[str]:
        """Every weight but those of the classifier that came with it, which no head uses, and the
        frequencies of rotary positions, from which angles are made before the training."""
        names = [name for name, _ in backbone.named_parameters() if name.startswith("vit.")]
        return [name for name in names if not name.startswith("vit.rope.")]
