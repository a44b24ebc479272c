"""AdaptFormer: a bottleneck beside the MLP of every block, fed with the un-normalised tokens.

X' = U + MLP(LN U) + s (W_u Dropout(ReLU(W_d U + b_d)) + b_u), where U is what enters the MLP's
branch; the block's layer scale and drop path do not reach the added term.

Trainable besides the head: L * (2 D h + h + D), and L if the scale is learnable; on a ViT-B/16
1,189,632 with h = 64. The authors put a BatchNorm1d before the head, which is a switch here.

Source:
    Chen et al., AdaptFormer, NeurIPS 2022 (ShoufaChen/AdaptFormer), its image model: W_d as
    PyTorch's Linear (kaiming uniform with a = sqrt 5), all else 0, s = 0.1.
"""

# Axes: M members, B samples, R rows that are computed, D width, K bottleneck, F features.

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods import base
from tcpa_core.methods._bottleneck import Bottleneck, BottleneckSettings
from tcpa_core.methods._tuned_blocks import State
from tcpa_core.methods.base import Init, batch_norm, constant, member_linear
from tcpa_core.settings import MAY_CHANGE

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone


class Config(BottleneckSettings):
    """Settings of AdaptFormer."""

    shared: ClassVar[tuple[str, ...]] = ("head_norm",)

    bottleneck: int = Field(default=64, ge=0)
    """Width between the two layers (h); 0 leaves the backbone as it is."""
    scale: float | Literal["learnable"] = 0.1
    """Factor on the bottleneck's output (s); "learnable": one for each block, from 1."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Dropout in the bottleneck."""
    head_norm: bool = False
    """Normalise each feature over the batch before the head (authors: BatchNorm1d without scale
    and shift, eps 1e-6). Evaluation uses running statistics."""

    def pack_key(self) -> tuple[object, ...]:
        """Code path, and whether the scale is trained."""
        return (*super().pack_key(), self.scale == "learnable")


class Method(Bottleneck):
    """AdaptFormer for a pack."""

    scale: Tensor
    """(M, L), where it is trained."""
    running_mean: Tensor
    """(M, F), with `head_norm`."""
    running_var: Tensor
    """(M, F), with `head_norm`."""
    _fixed_scale: Tensor

    @classmethod
    def splits_batch(cls, config: TrialConfig) -> bool:
        """Not where the head normalises over the batch."""
        return not config.method_settings[cls.name()].head_norm

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        rates = [s.dropout for s in self.settings]
        self._dropout = base.Dropout("adaptformer.dropout", rates, self.layout.depth)
        self._config: Config = self.settings[0]
        if self._config.scale == "learnable":
            self.per_block = (*self.per_block, "scale")
        else:
            # A buffer that is not saved: it follows from the settings.
            fixed = torch.tensor([s.scale for s in self.settings], dtype=backbone.dtype)
            self.register_buffer("_fixed_scale", fixed.to(backbone.device), persistent=False)

    @classmethod
    def down_init(cls, settings: Any, width: int) -> Init:
        """Kaiming uniform with a = sqrt 5."""
        return base.uniform(width**-0.5)

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Both layers, a learnable scale, and the statistics of the norm before the head."""
        settings: Config = setup.settings(cls.name())
        specs = super().params(setup)
        if not specs:
            return {}
        if settings.scale == "learnable":
            specs["scale"] = base.ParamSpec(
                (setup.backbone.layout.depth,), constant(1.0), decay=False
            )
        if settings.head_norm:
            features = (setup.backbone.layout.feature_dim,)
            specs["running_mean"] = base.ParamSpec(features, constant(0.0), trainable=False)
            specs["running_var"] = base.ParamSpec(features, constant(1.0), trainable=False)
        return specs

    @classmethod
    def hides_map(cls, config: TrialConfig) -> str | None:
        """Where it normalises the features."""
        if not config.method_settings[cls.name()].head_norm:
            return None
        return "normalises the one vector of each picture unless adaptformer.head_norm=false"

    def beside_mlp(self, u_MBRD: Tensor, index: int, num_tokens: int, s: State) -> Tensor:
        """The bottleneck's output."""
        names = ("down_weight", "down_bias", "up_weight", "up_bias")
        down, down_bias, up, up_bias = (s.by_block[name][index] for name in names)
        hidden = member_linear(u_MBRD, down, down_bias).relu()
        # counted over all tokens: the last block must not see other numbers for computing fewer
        hidden = self._dropout.activations(hidden, s.run.step, index, length=num_tokens)
        learnable = self._config.scale == "learnable"
        scale = s.by_block["scale"][index] if learnable else self._fixed_scale
        return member_linear(hidden, up, up_bias) * scale.view(-1, 1, 1, 1)

    def on_features(self, features_MBF: Tensor, state: State) -> Tensor:
        """Normalise the features over the batch."""
        if not self._config.head_norm:
            return features_MBF
        # Statistics of a batch are too coarse in half precision.
        with torch.autocast(features_MBF.device.type, enabled=False):
            wide = features_MBF.to(self.running_mean.dtype)
            training = state.run.step.training
            return batch_norm(
                wide, self.running_mean, self.running_var, eps=1e-6, training=training
            )
