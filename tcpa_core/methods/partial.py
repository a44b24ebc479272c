"""Partial-k: the last k blocks and the final norm are trained.

Trainable besides the head, on a ViT-B/16: k * 7,087,872 + 1,536. With k = 0 the final norm stays
frozen as well. The attention pooling of a backbone that has one belongs to neither and is frozen.

Source:
    Jia et al., Visual Prompt Tuning, ECCV 2022 (KMnP/vpt). The authors' code finds blocks by a
    part of their name, so that block 1 would also match block 11; here they are found by index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import base
from tcpa_core.methods._backbone_weights import BackboneWeights

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone, TokenLayout


class Config(base.MethodSettings):
    """Settings of partial fine-tuning."""

    num_blocks: int = Field(default=1, ge=0)
    """Blocks trained, counted from the last (k); 0 leaves the backbone as it is."""


class Method(BackboneWeights):
    """The last blocks of the backbone."""

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse more blocks than there are."""
        super().check(config, layout)
        wanted = config.method_settings[cls.name()].num_blocks
        if wanted > layout.depth:
            raise ConfigError(
                f"partial.num_blocks must be <= {layout.depth}, the blocks of "
                f"{config.backbone.full_name!r}, got {wanted}; lower it, or train all with methods "
                "[full]."
            )

    @property
    def first_block(self) -> int:
        """The first block trained."""
        return self.layout.depth - int(self.settings[0].num_blocks)

    @classmethod
    def trained(cls, backbone: Backbone, settings: Any) -> list[str]:
        """Weights of the last blocks and of the norm behind them."""
        if settings.num_blocks == 0:
            return []
        depth = backbone.layout.depth
        blocks = [f"vit.blocks.{i}." for i in range(depth - settings.num_blocks, depth)]
        parts = (*blocks, "vit.norm.", "vit.fc_norm.")
        return [name for name, _ in backbone.named_parameters() if name.startswith(parts)]
