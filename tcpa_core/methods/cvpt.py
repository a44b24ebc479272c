"""CVPT: in every block all tokens attend to the block's prompts through a copy of its attention.

Prompts never join the sequence. Neither tokens nor prompts are normalised before the cross
attention (`ca_norm`), although the copied weights were trained on normalised tokens. The backbone's
drop path (train.drop_path; the authors' is 0.1) reaches it at positions 2 and 4 only.

Trainable besides the head: L * P * D, and L * (4 D^2 + 4 D) where `weights` are learnable.

Source:
    CVPT, ICCV 2025 (Lingyun0419/CVPT, CVPT.py); positions as numbered in its ablation.
"""

# Axes: M members, B samples (1 where all share), S tokens, R rows that are computed, P prompt
# tokens, H heads, E head width, A = H * E, D width, L blocks.

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tcpa_core.config import TrialConfig
from tcpa_core.methods import base
from tcpa_core.methods.base import Init, constant, trunc02, uniform
from tcpa_core.model.attention import mix
from tcpa_core.model.blocks import (
    joint_projection,
    mlp_residual,
    normalised,
    plain_block,
    scaled,
    self_attention,
)
from tcpa_core.settings import MAY_CHANGE
from tcpa_core.streams import Stream

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block

    from tcpa_core.model.backbone import Backbone

_WEIGHTS = ("qkv_weight", "qkv_bias", "proj_weight", "proj_bias")


class Config(base.MethodSettings):
    """Settings of CVPT."""

    shared = ("position", "weights", "ca_norm")

    num_prompts: int = Field(default=10, ge=0)
    """Prompt tokens per block (P); 0 leaves the backbone as it is."""
    position: Literal[1, 2, 3, 4, 5] = 3
    """Where the cross attention is added: 1 before self-attention, 2 beside it, 3 after it, 4 to
    the input of the MLP, 5 after the MLP."""
    weights: Literal["shared_frozen", "shared_learnable", "random_frozen", "random_learnable"] = (
        "shared_frozen"
    )
    """Cross-attention weights: copied from the block's self-attention or drawn; trained or not."""
    ca_norm: Literal["none", "query", "both"] = "none"
    """What the block's first norm is applied to: nothing (authors), the tokens, prompts as well."""
    init: Literal["xavier3d", "zero", "vpt"] = "xavier3d"
    """Prompts from Xavier's bound of the (L, P, D) tensor (authors), zeros, or VPT's bound."""
    prompt_dropout: float = Field(default=0.1, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Dropout on the prompts, per sample."""

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """Everything else where there are no prompts."""
        return () if self.num_prompts else type(self).model_fields.keys() - {"num_prompts"}

    def pack_key(self) -> tuple[object, ...]:
        """Code path, and whether there are prompts at all."""
        return (*super().pack_key(), self.num_prompts > 0)


@dataclass(frozen=True, slots=True)
class _Weights:
    """Cross-attention weights of one block; a leading axis of M members, or of 1 if they share."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor


@dataclass(frozen=True, slots=True)
class _Folded:
    """Both products with the prompts done once per pass: scores = x A + b, output = a C + b_O."""

    a_MDX: Tensor
    """X = H * P."""
    b_MX: Tensor
    c_MXD: Tensor


@dataclass(slots=True)
class _State:
    run: base.Pass
    weights: Sequence[_Weights]
    exists_MP: Tensor | None
    drops: bool
    prompts: Sequence[Tensor] = ()
    """(M, B, P, D) per block behind dropout, B is 1 where nothing is dropped; made in the first."""


class Method(base.Method[_State]):
    """CVPT for a pack."""

    prompts: Tensor
    """(M, L, P, D), padded at the end of P."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._sizes = [s.num_prompts for s in self.settings]
        rates = [s.prompt_dropout for s in self.settings]
        self._dropout = base.Dropout("cvpt.prompt_dropout", rates, self.layout.depth)
        self._config: Config = self.settings[0]
        self._blocks = backbone.blocks
        if self.active and self._config.weights == "random_frozen":
            # Drawn from the seed each time, so they need no place in the trial's state.
            for name, value in _draw_frozen(backbone, configs).items():
                self.register_buffer(name, value, persistent=False)

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Prompts (L, P, D), and the weights stacked over the blocks if they are learnable."""
        backbone, settings = setup.backbone, setup.settings(cls.name())
        if settings.num_prompts == 0:
            return {}
        layout = backbone.layout
        shape = (layout.depth, settings.num_prompts, layout.embed_dim)
        specs = {"prompts": base.ParamSpec(shape, _prompt_init(settings, backbone))}
        return specs | (_weight_specs(backbone, settings) if _learnable(settings) else {})

    @property
    def active(self) -> bool:
        """Whether there is any prompt."""
        return max(self._sizes) > 0

    def extra_flops(self, m: int) -> float:
        """The cheaper of the two ways to attend to P prompts, in every block."""
        layout, size = self.layout, self._sizes[m]
        tokens, width = layout.num_prefix + layout.num_image, layout.embed_dim
        if size == 1:
            return 0.0
        plain = 4.0 * tokens * width * (width + size)
        return layout.depth * min(plain, 4.0 * tokens * width * layout.num_heads * size)

    def begin(self, run: base.Pass) -> _State:
        """Split the weights by block."""
        exists = base.padding(self._sizes, self.prompts.device)
        return _State(run, self._weights(), exists, self._dropout.is_on(run.step))

    def on_block(self, index: int, block: Block, tokens_MBSD: Tensor, state: _State) -> Tensor:
        """Run the block with the cross attention at its position."""
        rows = state.run.rows if index == self.layout.depth - 1 else None
        cross = self._cross_attention(index, block, tokens_MBSD.shape[1], state)
        position = self._config.position
        if position == 1:
            return plain_block(block, tokens_MBSD + cross(tokens_MBSD), rows=rows)
        if position == 5:
            tokens_MBSD = plain_block(block, tokens_MBSD, rows=rows)
            return tokens_MBSD + cross(tokens_MBSD)
        x_NSD = tokens_MBSD.flatten(0, 1)
        x_NRD = x_NSD[:, :rows] + self_attention(block, normalised(block, x_NSD), rows=rows)
        u_MBRD = x_NRD.unflatten(0, tokens_MBSD.shape[:2])
        if position == 4:
            # Behind the norm: only what enters the MLP changes, not the residual sum.
            hidden = block.norm2(u_MBRD) + cross(u_MBRD)
            return u_MBRD + scaled(block, 2, block.mlp(hidden))
        if position == 2:  # within the branch of the self-attention, so it skips with it
            u_MBRD = u_MBRD + block.drop_path1(cross(tokens_MBSD[:, :, :rows]))
        else:
            u_MBRD = u_MBRD + cross(u_MBRD)
        return mlp_residual(block, u_MBRD)

    def attention(
        self, index: int, block: Block, tokens_MBSD: Tensor, state: _State
    ) -> base.BlockAttention:
        """The block's own; prompts take no share of it, they are read by the cross attention."""
        if self._config.position == 1:
            cross = self._cross_attention(index, block, tokens_MBSD.shape[1], state)
            tokens_MBSD = tokens_MBSD + cross(tokens_MBSD)
        plain = base.BlockAttention.of(block, tokens_MBSD)
        return replace(plain, num_prompts_apart=max(self._sizes))

    def _cross_attention(
        self, index: int, block: Block, samples: int, state: _State
    ) -> Callable[[Tensor], Tensor]:
        """The function from query tokens (M, B, R, D) to what is added to them."""
        config, weights = self._config, state.weights[index]
        if not state.prompts:
            stored, step = self.prompts.transpose(0, 1), state.run.step
            ready = self._dropout.prompts(stored, state.exists_MP, samples, step)
            # Not one by one by their index: each would send a gradient of all blocks back.
            state.prompts = ready.unbind()
        prompts = state.prompts[index]
        if config.ca_norm == "both":
            prompts = block.norm1(prompts)
        k, v = self._keys_values(block, prompts, weights)
        exists = state.exists_MP

        def attend(x_MBRD: Tensor) -> Tensor:
            if prompts.shape[2] == 1:  # softmax over one key is 1
                return _linear(v[:, :, :, 0].flatten(2)[:, :, None], weights, "proj")
            if config.ca_norm != "none":
                x_MBRD = block.norm1(x_MBRD)
            # Constant prompts can be multiplied into the projections: two products of the tokens
            # are left.
            if self._folds(block, state):
                folded = _fold(k, v, weights)
                return _attend_folded(
                    x_MBRD, folded, exists, weights.proj_bias, self.layout.num_heads
                )
            return self._attend(block, x_MBRD, k, v, exists, weights)

        return attend

    def _keys_values(
        self, block: Block, prompts_MBPD: Tensor, weights: _Weights
    ) -> tuple[Tensor, Tensor]:
        """Keys and values (M, B, H, P, E)."""
        both = _linear(prompts_MBPD, weights, "kv").chunk(2, dim=-1)
        k, v = (t.unflatten(-1, (self.layout.num_heads, -1)).transpose(2, 3) for t in both)
        return block.attn.k_norm(k), v

    def _folds(self, block: Block, state: _State) -> bool:
        """Whether folding is possible and takes fewer operations (12 HP < 8 D + 12 P)."""
        heads, width = self.layout.num_heads, self.layout.embed_dim
        possible = (
            not state.drops
            and not _learnable(self._config)
            and isinstance(block.attn.q_norm, nn.Identity)
        )
        return possible and 3 * (heads - 1) * max(self._sizes) < 2 * width

    def _attend(
        self,
        block: Block,
        x_MBRD: Tensor,
        k_MBHPE: Tensor,
        v_MBHPE: Tensor,
        exists_MP: Tensor | None,
        weights: _Weights,
    ) -> Tensor:
        members, samples = x_MBRD.shape[:2]
        q = _linear(x_MBRD, weights, "q").unflatten(-1, (self.layout.num_heads, -1))
        q_MBHRE = block.attn.q_norm(q.transpose(2, 3))
        k, v = (t.expand(-1, samples, -1, -1, -1).flatten(0, 1) for t in (k_MBHPE, v_MBHPE))
        mask = None
        if exists_MP is not None:
            mask = exists_MP.repeat_interleave(samples, 0)[:, None, None]
        out = mix(q_MBHRE.flatten(0, 1), k, v, mask)
        mixed = out.transpose(1, 2).flatten(2).unflatten(0, (members, samples))
        return _linear(mixed, weights, "proj")

    def _weights(self) -> list[_Weights]:
        if self._config.weights == "shared_frozen":
            # One set for all members: the leading axis of length 1 broadcasts.
            return [
                _Weights(*(own[name][None] for name in _WEIGHTS)) for own in map(_own, self._blocks)
            ]
        stacked = [getattr(self, name).unbind(1) for name in _WEIGHTS]
        return [_Weights(*parts) for parts in zip(*stacked, strict=True)]


def _learnable(config: Config) -> bool:
    return config.weights.endswith("learnable")


def _own(block: Block) -> dict[str, Tensor]:
    """Weights and biases of the block's self-attention by name; zeros for absent biases."""
    out = block.attn.proj
    found = dict(zip(_WEIGHTS, (*joint_projection(block), out.weight, out.bias), strict=True))
    for name in ("qkv", "proj"):
        if found[f"{name}_bias"] is None:
            weight = found[f"{name}_weight"]
            found[f"{name}_bias"] = weight.new_zeros(len(weight))
    return found


def _draw_frozen(backbone: Backbone, configs: Sequence[TrialConfig]) -> dict[str, Tensor]:
    """Random weights (M, L, ...) from the members' seeds; never trained, so never saved."""
    frozen = {}
    for name, spec in _weight_specs(backbone, configs[0].method_settings["cvpt"]).items():
        drawn = [torch.empty(spec.shape) for _ in configs]
        for tensor, config in zip(drawn, configs, strict=True):
            spec.init(tensor, Stream(config.seed).generator(f"init/cvpt.{name}"))
        frozen[name] = torch.stack(drawn).to(backbone.device, backbone.dtype)
    return frozen


def _weight_specs(backbone: Backbone, config: Config) -> dict[str, base.ParamSpec]:
    specs, own = {}, _own(backbone.blocks[0])
    for name in _WEIGHTS:
        init: Init = constant(0.0) if name.endswith("bias") else trunc02
        if config.weights.startswith("shared"):
            init = _copy_init(backbone, name)
        shape = tuple(own[name].shape)
        specs[name] = base.ParamSpec((backbone.layout.depth, *shape), init)
    return specs


def _copy_init(backbone: Backbone, name: str) -> Init:
    return lambda tensor, generator: tensor.copy_(
        torch.stack([_own(block)[name] for block in backbone.blocks])
    )


def _prompt_init(config: Config, backbone: Backbone) -> Init:
    if config.init == "zero":
        return constant(0.0)
    if config.init == "vpt":
        return uniform(base.vpt_bound(backbone))
    layout = backbone.layout  # PyTorch's fans of a 3-d tensor: P * D and L * D
    fans = (config.num_prompts + layout.depth) * layout.embed_dim
    return uniform((6 / fans) ** 0.5)


def _linear(x_MBRD: Tensor, weights: _Weights, part: str) -> Tensor:
    """Apply one projection ("q", "kv" or "proj") with each member's own weights, or the shared."""
    weight, bias = weights.proj_weight, weights.proj_bias
    if part != "proj":
        width = weights.qkv_weight.shape[1] // 3
        span = slice(0, width) if part == "q" else slice(width, None)
        weight, bias = weights.qkv_weight[:, span], weights.qkv_bias[:, span]
    if len(weight) == 1:
        return F.linear(x_MBRD, weight[0], bias[0])
    out = torch.baddbmm(bias[:, None], x_MBRD.flatten(1, 2), weight.mT)
    return out.unflatten(1, x_MBRD.shape[1:3])


def _fold(k_MBHPE: Tensor, v_MBHPE: Tensor, weights: _Weights) -> _Folded:
    """Multiply the prompts into the query and output projections."""
    num_heads, head_width = k_MBHPE.shape[2], k_MBHPE.shape[-1]
    width = weights.qkv_weight.shape[1] // 3
    scaled = k_MBHPE[:, 0] * head_width**-0.5
    w_q = weights.qkv_weight[:, :width].unflatten(1, (num_heads, head_width))
    b_q = weights.qkv_bias[:, :width].unflatten(1, (num_heads, head_width))
    w_o = weights.proj_weight.unflatten(2, (num_heads, head_width)).permute(0, 2, 3, 1)
    a_MHDP = w_q.mT @ scaled.mT
    return _Folded(
        a_MHDP.transpose(1, 2).flatten(2),
        (scaled @ b_q.unsqueeze(-1)).flatten(1),
        (v_MBHPE[:, 0] @ w_o).flatten(1, 2),
    )


def _attend_folded(
    x_MBRD: Tensor, folded: _Folded, exists_MP: Tensor | None, bias_MD: Tensor, num_heads: int
) -> Tensor:
    """Cross attention in two products of the tokens with per-pass matrices."""
    size = folded.a_MDX.shape[-1] // num_heads
    scores = torch.baddbmm(folded.b_MX[:, None], x_MBRD.flatten(1, 2), folded.a_MDX)
    scores_MNHP = scores.unflatten(-1, (num_heads, size))
    if exists_MP is not None:
        scores_MNHP = scores_MNHP.masked_fill(~exists_MP[:, None, None], float("-inf"))
    weights_MNX = scores_MNHP.softmax(-1).flatten(2).to(scores.dtype)
    return torch.baddbmm(bias_MD[:, None], weights_MNX, folded.c_MXD).unflatten(
        1, x_MBRD.shape[1:3]
    )
