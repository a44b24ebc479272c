"""Two small layers around a bottleneck in every block: what Adapter and AdaptFormer have in common.

Trainable besides the head: L * (2 D h + h + D) with bottleneck h.
"""

# Axes: M members, L blocks, D width, K bottleneck.

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tcpa_core.config import TrialConfig
from tcpa_core.methods import base
from tcpa_core.methods._tuned_blocks import TunedBlocks
from tcpa_core.methods.base import Init, constant

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone


class BottleneckSettings(base.MethodSettings):
    """Settings of a bottleneck."""

    bottleneck: int = Field(default=8, ge=0)
    """Width between the two layers (h); 0 leaves the backbone as it is."""

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """What the bottleneck is made of, where there is none."""
        return (
            () if self.bottleneck else type(self).model_fields.keys() - {"bottleneck", "head_norm"}
        )

    def pack_key(self) -> tuple[object, ...]:
        """Code path, and whether there is a bottleneck at all."""
        return (*super().pack_key(), self.bottleneck > 0)


class Bottleneck(TunedBlocks):
    """Bottlenecks for a pack, padded with zeros to the widest."""

    per_block: Sequence[str] = ("down_weight", "down_bias", "up_weight", "up_bias")
    """(M, L, K, D), (M, L, K), (M, L, D, K), (M, L, D)."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._sizes = [s.bottleneck for s in self.settings]

    @classmethod
    def down_init(cls, settings: Any, width: int) -> Init:
        """How the weight of the first layer starts; the rest starts at 0."""
        raise NotImplementedError

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Both layers, stacked over the blocks; biases do not decay."""
        settings = setup.settings(cls.name())
        size, layout = settings.bottleneck, setup.backbone.layout
        if size == 0:
            return {}
        depth, width = layout.depth, layout.embed_dim
        down = cls.down_init(settings, width)
        return {
            "down_weight": base.ParamSpec((depth, size, width), down),
            "down_bias": base.ParamSpec((depth, size), constant(0.0), decay=False),
            "up_weight": base.ParamSpec((depth, width, size), constant(0.0)),
            "up_bias": base.ParamSpec((depth, width), constant(0.0), decay=False),
        }

    @property
    def active(self) -> bool:
        """Whether there is a bottleneck."""
        return max(self._sizes) > 0

    def extra_flops(self, m: int) -> float:
        """Two products of all tokens in every block."""
        layout = self.layout
        tokens = layout.num_prefix + layout.num_image
        return 4.0 * layout.depth * tokens * layout.embed_dim * self._sizes[m]
