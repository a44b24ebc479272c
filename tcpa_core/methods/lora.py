"""LoRA: chosen linear layers of every block get a trained product of two thin matrices on top.

y = W x + b + (alpha / r) B A x, for W any of the query, key, value and output projections of the
attention and the two layers of the MLP.

Trainable besides the head: L * r * (inputs + outputs) over the targets; on a ViT-B/16 with r = 8 on
queries and values 294,912.

Source:
    Hu et al., LoRA, arXiv:2106.09685; A as PyTorch's Linear (kaiming uniform with a = sqrt 5),
    B = 0. The V-PETL benchmark re-draws both after building them, so that it does not start as the
    backbone; this does.
"""

# Axes: M members, B samples, S tokens, I inputs, O outputs, K rank.

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods import base
from tcpa_core.methods._tuned_blocks import (
    Layer,
    State,
    TunedBlocks,
    block_sizes,
    require_mlp,
)
from tcpa_core.methods.base import constant, member_linear

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone

_LAYERS = {
    "q": "attn.q_proj",
    "k": "attn.k_proj",
    "v": "attn.v_proj",
    "o": "attn.proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
"""Of a timm block; queries, keys and values may be one layer."""
_TARGETS = tuple(_LAYERS)


class Config(base.MethodSettings):
    """Settings of LoRA."""

    shared: ClassVar[tuple[str, ...]] = ("targets",)

    rank: int = Field(default=8, ge=0)
    """Width of the thin matrices (r); 0 leaves the backbone as it is."""
    alpha: float | None = Field(default=None, gt=0.0)
    """Numerator of the scale alpha / r; None: r, so that there is no scaling."""
    targets: str = "q,v"
    """Layers that are corrected: some of q, k, v, o (attention), fc1, fc2 (MLP), with commas."""

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: str) -> str:
        chosen = [part.strip() for part in value.split(",")]
        if not set(chosen) <= set(_TARGETS) or len(set(chosen)) < len(chosen):
            raise ValueError(
                f"lora.targets must list some of {', '.join(_TARGETS)} once each, got {value!r}; "
                "write for example 'q,v'"
            )
        return ",".join(name for name in _TARGETS if name in chosen)

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """Everything else where the rank is 0."""
        return () if self.rank else ("alpha", "targets")

    def pack_key(self) -> tuple[object, ...]:
        """Targets, and whether there is anything at all."""
        return (*super().pack_key(), self.rank > 0)


class Method(TunedBlocks):
    """LoRA for a pack, padded with zeros to the highest rank."""

    _scale: Tensor

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._ranks = [s.rank for s in self.settings]
        self._targets: list[str] = self.settings[0].targets.split(",")
        self._widths = block_sizes(backbone)
        self.per_block = [f"{t}_{part}" for t in self._targets for part in ("down", "up")]
        # Rank 0 has no scale; its padding multiplies to 0 anyway.
        scales = [(s.alpha or s.rank) / max(s.rank, 1) for s in self.settings]
        scale = torch.tensor(scales, dtype=backbone.dtype, device=backbone.device)
        self.register_buffer("_scale", scale.view(-1, 1, 1), persistent=False)

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """A (L, r, inputs) and B (L, outputs, r) of each target."""
        settings: Config = setup.settings(cls.name())
        if settings.rank == 0:
            return {}
        targets = settings.targets.split(",")
        if {"fc1", "fc2"} & set(targets):
            require_mlp(setup.backbone, "lora.targets with fc1 or fc2")
        depth, sizes, specs = setup.backbone.layout.depth, block_sizes(setup.backbone), {}
        for name in targets:
            inputs, outputs = sizes[name]
            down = base.uniform(inputs**-0.5)
            specs[f"{name}_down"] = base.ParamSpec((depth, settings.rank, inputs), down)
            specs[f"{name}_up"] = base.ParamSpec((depth, outputs, settings.rank), constant(0.0))
        return specs

    @classmethod
    def merged(
        cls, backbone: Backbone, config: TrialConfig, state: base.MemberState
    ) -> Backbone | None:
        """The backbone with every product added to the layer that it corrects."""
        own = deepcopy(backbone)
        for name, (down, up) in products(backbone, config, state).items():
            own.vit.get_submodule(name).weight.data.add_(up @ down)
        return own

    @property
    def active(self) -> bool:
        """Whether there is any rank."""
        return max(self._ranks) > 0

    def extra_flops(self, m: int) -> float:
        """Two thin products of all tokens at each target; none once merged into the weights."""
        layout = self.layout
        tokens = layout.num_prefix + layout.num_image
        widths = sum(sum(self._widths[name]) for name in self._targets)
        return 2.0 * layout.depth * tokens * self._ranks[m] * widths

    def behind(self, layer: Layer, x_MBSI: Tensor, y_MBSO: Tensor, index: int, s: State) -> Tensor:
        """Add the target's product."""
        if layer not in self._targets:
            return y_MBSO
        down, up = s.by_block[f"{layer}_down"][index], s.by_block[f"{layer}_up"][index]
        return y_MBSO + member_linear(member_linear(x_MBSI, down), up * self._scale)


def products(
    backbone: Backbone, config: TrialConfig, state: base.MemberState
) -> dict[str, tuple[Tensor, Tensor]]:
    """What a trained LoRA adds to layers of the network: A (k, inputs) and B (outputs, k) with the
    scale in it, by the layer's name in timm's model.

    Where queries, keys and values are one layer, its k is the sum of their ranks.
    """
    settings: Config = config.method_settings["lora"]
    if settings.rank == 0:
        return {}
    scale = (settings.alpha or settings.rank) / settings.rank
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for index, block in enumerate(backbone.blocks):
        own = {
            target: (state[f"lora.{target}_down"][index], scale * state[f"lora.{target}_up"][index])
            for target in settings.targets.split(",")
        }
        if block.attn.qkv is not None:
            joined = {target: own.pop(target) for target in "qkv" if target in own}
            if joined:
                found[f"blocks.{index}.attn.qkv"] = _joined(joined)
        for target, pair in own.items():
            found[f"blocks.{index}.{_LAYERS[target]}"] = pair
    return found


def _joined(parts: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Products on some of queries, keys and values as one on all three."""
    width = len(next(iter(parts.values()))[1])
    ups = []
    for target, (_, up) in parts.items():
        wide = up.new_zeros(3 * width, up.shape[1])
        start = "qkv".index(target) * width
        wide[start : start + width] = up
        ups.append(wide)
    return torch.cat([down for down, _ in parts.values()]), torch.cat(ups, dim=1)
