"""SSF: a trained scale and shift behind every frozen operation.

y * gamma + beta stands behind the patch embedding, and in each block behind both norms, the joint
projection to queries, keys and values, the output projection, and both layers of the MLP (before
its activation); last behind the final norm, which in models that average their tokens is the norm
of the average.

Trainable besides the head: 2 D (11 L + 2) where the MLP is four times as wide; 205,824 on a
ViT-B/16. `merge` folds all of it into the backbone, so inference costs nothing.

Source:
    Lian et al., Scaling & Shifting Your Features, NeurIPS 2022 (dongzelian/SSF). The authors'
    optimiser (timm's) leaves vectors, so all of this, out of the weight decay.
"""

# Axes: M members, B samples, S tokens, D width, F features.

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from pydantic import Field
from torch import Tensor, nn

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import base
from tcpa_core.methods._tuned_blocks import (
    Layer,
    State,
    TunedBlocks,
    block_sizes,
    require_mlp,
)
from tcpa_core.methods.base import normal

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone

_LAYERS = ("norm1", "qkv", "o", "norm2", "fc1", "fc2")
_MODULES = {
    "norm1": "norm1",
    "o": "attn.proj",
    "norm2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


class Config(base.MethodSettings):
    """Settings of SSF."""

    init_std: float = Field(default=0.02, ge=0.0)
    """Scales start from N(1, init_std^2), shifts from N(0, init_std^2); 0 starts as the
    backbone."""


class Method(TunedBlocks):
    """SSF for a pack."""

    per_block = [f"{layer}_{part}" for layer in _LAYERS for part in ("scale", "shift")]
    patch_scale: Tensor
    """(M, D), as the three below."""
    patch_shift: Tensor
    final_scale: Tensor
    final_shift: Tensor

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._norms_average = _norms_average(backbone)

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Scale and shift of every place; those in blocks (L, width of the place). No decay."""
        require_mlp(setup.backbone, "methods [ssf]")
        std = setup.settings(cls.name()).init_std
        sizes, layout = block_sizes(setup.backbone), setup.backbone.layout
        sizes["qkv"] = (sizes["q"][0], 3 * sizes["q"][1])
        shapes = {layer: (layout.depth, sizes[layer][1]) for layer in _LAYERS}
        shapes_all = {**shapes, "patch": (layout.embed_dim,)}
        if setup.config.task.name != "segment":  # maps are read before the final norm
            shapes_all["final"] = (layout.embed_dim,)
        specs = {}
        for place, shape in shapes_all.items():
            for part, mean in (("scale", 1.0), ("shift", 0.0)):
                specs[f"{place}_{part}"] = base.ParamSpec(shape, normal(mean, std), decay=False)
        return specs

    @classmethod
    def hides_map(cls, config: TrialConfig) -> str | None:
        """It does without the pair behind the final norm, which maps are read before."""
        return None

    @classmethod
    def merged(
        cls, backbone: Backbone, config: TrialConfig, state: base.MemberState
    ) -> Backbone | None:
        """The backbone with all scales and shifts in its layers."""
        return merge(backbone, state)

    def behind(self, layer: Layer, x_MBSI: Tensor, y_MBSO: Tensor, index: int, s: State) -> Tensor:
        """Scale and shift the output of one layer."""
        if layer == "mlp":
            return y_MBSO
        # The authors' scale stands behind the joint projection; each part takes its third.
        place = "qkv" if layer in ("q", "k", "v") else layer
        scale, shift = (s.by_block[f"{place}_{part}"][index] for part in ("scale", "shift"))
        if place == "qkv":
            third = "qkv".index(layer)
            scale, shift = scale.chunk(3, dim=-1)[third], shift.chunk(3, dim=-1)[third]
        return _changed(y_MBSO, scale, shift)

    def on_patches(self, patches: Tensor, state: State) -> Tensor:
        """Scale and shift the patch embeddings."""
        return _changed(patches, self.patch_scale, self.patch_shift)

    def on_norm(self, tokens_MBSD: Tensor, state: State) -> Tensor:
        """Scale and shift behind the final norm of the tokens."""
        if self._norms_average:
            return tokens_MBSD
        return _changed(tokens_MBSD, self.final_scale, self.final_shift)

    def on_features(self, features_MBF: Tensor, state: State) -> Tensor:
        """Scale and shift behind the final norm, where that is the norm of the average."""
        if not self._norms_average:
            return features_MBF
        return _changed(features_MBF, self.final_scale, self.final_shift)


def merge(backbone: Backbone, state: base.MemberState) -> Backbone:
    """Fold a trained SSF into a copy of its backbone, which then gives the same features.

    Args:
        state: The member's tensors by full name.
    """
    # Other trials share the backbone, so it is not changed in place.
    merged = deepcopy(backbone)
    vit = merged.vit
    own = {k.removeprefix("ssf."): v for k, v in state.items()}

    def of(place: str, index: int | None = None) -> tuple[Tensor, Tensor]:
        pair = own[f"{place}_scale"], own[f"{place}_shift"]
        return pair if index is None else (pair[0][index], pair[1][index])

    embed = vit.patch_embed
    _fold(embed.proj if isinstance(embed.norm, nn.Identity) else embed.norm, *of("patch"))
    for index, block in enumerate(merged.blocks):
        for layer, module in _MODULES.items():
            _fold(block.get_submodule(module), *of(layer, index))
        _fold_projections(block.attn, *of("qkv", index))
    if "final_scale" in own:
        _fold(vit.fc_norm if _norms_average(backbone) else vit.norm, *of("final"))
    return merged


def _fold_projections(attn: Any, scale: Tensor, shift: Tensor) -> None:
    """`_fold` for queries, keys and values, which may be one layer or three."""
    if attn.qkv is not None and getattr(attn, "q_bias", None) is None:
        _fold(attn.qkv, scale, shift)
        return
    if attn.qkv is not None:
        attn.qkv.weight.data.mul_(scale[:, None])
    for part, own, moved in zip("qkv", scale.chunk(3), shift.chunk(3), strict=True):
        if attn.qkv is None:
            _fold(getattr(attn, f"{part}_proj"), own, moved)
        else:
            getattr(attn, f"{part}_bias").data.mul_(own).add_(moved)


def _fold(module: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Multiply and shift what a linear layer, convolution or norm gives out.

    Raises:
        ConfigError: It has no bias that could be shifted.
    """
    if not isinstance(module, nn.Linear | nn.Conv2d | nn.LayerNorm):
        raise ConfigError(
            f"ssf: the {type(module).__name__} of this backbone has no weight and bias to fold the "
            "scale and shift behind it into; go on with the trial's own checkpoint."
        )
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    weight.data.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))
    moved = shift if bias is None else bias * scale + shift
    module.bias = nn.Parameter(moved.clone(), requires_grad=False)


def _norms_average(backbone: Backbone) -> bool:
    """Whether the last norm is applied to the average of the tokens."""
    return isinstance(backbone.vit.norm, nn.Identity)


def _changed(x_MBSD: Tensor, scale_MD: Tensor, shift_MD: Tensor) -> Tensor:
    shape = (len(scale_MD), *[1] * (x_MBSD.ndim - 2), -1)
    return x_MBSD * scale_MD.view(shape) + shift_MD.view(shape)
