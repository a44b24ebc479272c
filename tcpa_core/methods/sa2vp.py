"""SA²VP: a map of prompts, one per token, runs through the same frozen blocks as a second branch.

In every block one branch reads the other through a cross block: frozen attention of the same block
from the reading branch's tokens to the other's, a norm and a small MLP, both trained. An image
token reads only the 3 x 3 image tokens around it; prefix tokens (CLS, distillation, registers) read
all. In about every third block of the depth, beginning with the first, the prompt branch reads, and
a fresh prompt map joins it (but in the first); in all others the base branch reads.

Both branches go through the backbone's final norm and pooling and share the head. The loss is 0.8
of the base branch's and 0.2 of the prompt branch's; predictions are those of the base branch.

Trainable besides the head, with r = inner_dim and F maps (3 if L > 6): L * (2 D r + r + 3 D) for
norms and MLPs, F * (S r + D r + D) for the maps, (F - 1) * D for the weights of the later maps.

Source:
    Pei et al., SA²VP: Spatially Aligned-and-Adapted Visual Prompt, AAAI 2024. The authors also run
    the frozen backbone's own dropout on both branches, which train.dropout = 0.1 does here.
"""

# Axes: M members, B samples (1 where all share), S tokens, R tokens that are computed, D width,
# r inner width, F maps, L blocks.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ShapeError
from tcpa_core.methods import base
from tcpa_core.methods.base import Dropout, constant, normal, trunc02, uniform
from tcpa_core.model.blocks import keys_values, normalised, plain_block, queries
from tcpa_core.model.noise import has_noise
from tcpa_core.settings import MAY_CHANGE

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block

    from tcpa_core.model.backbone import Backbone, TokenLayout

PROMPT_SHARE = 0.2
"""Share of the loss that the prompt branch has."""


class Config(base.MethodSettings):
    """Settings of SA²VP."""

    inner_dim: int = Field(default=16, ge=0)
    """Width of maps and MLPs inside (r); 0 leaves the backbone as it is."""
    inter_weight: float = Field(default=0.1, ge=0.0, json_schema_extra=MAY_CHANGE)
    """Weight of what one branch reads from the other; 0 leaves the base branch as it is."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Dropout behind the cross attention, inside the MLPs and behind them."""

    def pack_key(self) -> tuple[object, ...]:
        """Whether there is a prompt branch."""
        return (*super().pack_key(), self.inner_dim > 0)


@dataclass(slots=True)
class _State:
    run: base.Pass
    prompts: Tensor
    """The prompt branch (M, B, S, D)."""
    maps: Tensor
    """Maps that join later (M, F - 1, B, S, D)."""


class Method(base.Method[_State]):
    """SA²VP for a pack."""

    map_codes: Tensor
    """(M, F, S, r)."""
    map_weight: Tensor
    """(M, F, D, r)."""
    map_bias: Tensor
    """(M, F, D)."""
    map_scale: Tensor
    """(M, F - 1, D)."""
    norm_weight: Tensor
    norm_bias: Tensor
    """(M, L, D)."""
    down_weight: Tensor
    """(M, L, r, D)."""
    down_bias: Tensor
    """(M, L, r)."""
    up_weight: Tensor
    """(M, L, D, r)."""
    up_bias: Tensor
    """(M, L, D)."""
    positions: Tensor
    """(S, D), not trained."""
    near: Tensor
    """Boolean (S, S): which tokens of the other branch a token reads."""
    inter_weight: Tensor
    """Share of what is read from the other branch, (M, 1, 1, 1)."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        # A bound method: as an attribute the backbone would become part of this module.
        self._read = backbone.read
        self._drop_embedding = backbone.vit.pos_drop.forward
        self._linear = sum(p.numel() for p in backbone.blocks[0].parameters() if p.ndim == 2)
        self._sizes = [s.inner_dim for s in self.settings]
        rates = [s.dropout for s in self.settings]
        self._read_dropout = Dropout("sa2vp.cross_dropout", rates, self.layout.depth)
        self._inner_dropout = Dropout("sa2vp.mlp_dropout", rates, self.layout.depth)
        self._output_dropout = Dropout("sa2vp.output_dropout", rates, self.layout.depth)
        self._turns = _turns(self.layout.depth)
        self._is_noisy = any(has_noise(config) for config in configs)
        self.register_buffer("positions", _positions(backbone), persistent=False)
        near = _near(self.layout).to(backbone.device)
        self.register_buffer("near", near, persistent=False)
        weights = [[[[s.inter_weight]]] for s in self.settings]
        weight = torch.tensor(weights, dtype=backbone.dtype, device=backbone.device)
        self.register_buffer("inter_weight", weight, persistent=False)

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Maps, and a norm and an MLP per block."""
        inner: int = setup.settings(cls.name()).inner_dim
        if inner == 0:
            return {}
        layout = setup.backbone.layout
        depth, width, tokens = layout.depth, layout.embed_dim, layout.num_prefix + layout.num_image
        maps = len(_turns(depth))
        xavier = uniform((6 / (inner + width)) ** 0.5)
        specs = {
            "map_codes": base.ParamSpec((maps, tokens, inner), trunc02),
            "map_weight": base.ParamSpec((maps, width, inner), xavier),
            "map_bias": base.ParamSpec((maps, width), normal(0.0, 1e-6)),
            "norm_weight": base.ParamSpec((depth, width), constant(1.0)),
            "norm_bias": base.ParamSpec((depth, width), constant(0.0)),
            "down_weight": base.ParamSpec((depth, inner, width), xavier),
            "down_bias": base.ParamSpec((depth, inner), normal(0.0, 1e-6)),
            "up_weight": base.ParamSpec((depth, width, inner), xavier),
            "up_bias": base.ParamSpec((depth, width), normal(0.0, 1e-6)),
        }
        if maps > 1:
            specs["map_scale"] = base.ParamSpec((maps - 1, width), normal(0.0, 0.02))
        return specs

    @property
    def active(self) -> bool:
        """Whether there is a prompt branch."""
        return max(self._sizes) > 0

    def extra_flops(self, m: int) -> float:
        """The prompt branch and the cross blocks; what all samples share is not counted."""
        layout = self.layout
        tokens, width, depth = layout.num_prefix + layout.num_image, layout.embed_dim, layout.depth
        block = 2.0 * tokens * self._linear + 4.0 * tokens**2 * width
        cross = 4.0 * tokens * width * (2 * width + tokens + self._sizes[m])
        return (depth - 1) * block + depth * cross - 2.0 * tokens * width**2

    def begin(self, run: base.Pass) -> _State:
        """Expand the maps to the backbone's width."""
        maps = self.map_codes @ self.map_weight.mT + self.map_bias[:, :, None]
        return _State(run, maps[:, :1] + self.positions, maps[:, 1:, None])

    def on_tokens(self, tokens_MBSD: Tensor, state: _State) -> Tensor:
        """Check that there is one prompt per token; noise of the backbone is drawn per sample."""
        if tokens_MBSD.shape[2] != len(self.near):
            raise ShapeError(
                f"sa2vp has {len(self.near)} prompts, one per token of the backbone's own image "
                f"size, got images of {tokens_MBSD.shape[2]} tokens; load the backbone with "
                "backbone.img_size of these images."
            )
        if self._is_noisy and state.run.step.training:
            # Dropout has to differ between samples, which share the prompts without it.
            prompts = state.prompts.expand(-1, tokens_MBSD.shape[1], -1, -1)
            state.prompts = self._drop_embedding(prompts)
            state.maps = state.maps.expand(-1, -1, tokens_MBSD.shape[1], -1, -1)
        return tokens_MBSD

    def on_block(self, index: int, block: Block, tokens_MBSD: Tensor, state: _State) -> Tensor:
        """Run both branches; one of them adds what it reads from the other's input."""
        rows = state.run.rows if index == self.layout.depth - 1 else None
        prompts = state.prompts
        prompts_read = index in self._turns
        readers, others = (prompts, tokens_MBSD) if prompts_read else (tokens_MBSD, prompts)
        # Before either branch moves on: both read the other's input of this block.
        read = self.inter_weight * self._cross(index, block, readers[:, :, :rows], others, state)
        tokens = plain_block(block, tokens_MBSD, rows=rows)
        prompts = plain_block(block, prompts, rows=rows)
        if not prompts_read:
            state.prompts = prompts
            return tokens + read
        # The first map is the branch itself; later ones run through this block before they join.
        number = self._turns.index(index)
        if number > 0:
            fresh = plain_block(block, state.maps[:, number - 1], rows=rows)
            prompts = prompts + self.map_scale[:, number - 1, None, None] * fresh
        state.prompts = prompts + read
        return tokens

    def attention(
        self, index: int, block: Block, tokens_MBSD: Tensor, state: _State
    ) -> base.BlockAttention:
        """The base branch's own; it reads the prompt branch, a prompt per token, elsewhere."""
        plain = base.BlockAttention.of(block, tokens_MBSD)
        return replace(plain, num_prompts_apart=len(self.near))

    def side_features(self, state: _State) -> Sequence[tuple[float, Tensor]]:
        """Features of the prompt branch, for its share of the loss."""
        features = self._read(state.prompts.flatten(0, 1))
        return [(PROMPT_SHARE, features.unflatten(0, state.prompts.shape[:2]))]

    def _cross(
        self, index: int, block: Block, readers: Tensor, others: Tensor, state: _State
    ) -> Tensor:
        """What tokens (M, B, R, D) read from the other branch (M, B, S, D)."""
        members, samples = readers.shape[0], max(readers.shape[1], others.shape[1])

        def flat(x: Tensor) -> Tensor:
            return x.unflatten(0, (members, -1)).expand(-1, samples, -1, -1, -1).flatten(0, 1)

        q = flat(queries(block, normalised(block, readers.flatten(0, 1))))
        k, v = (flat(x) for x in keys_values(block, normalised(block, others.flatten(0, 1))))
        near = self.near[: readers.shape[2]]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=near).transpose(1, 2).flatten(2)
        read = block.attn.proj(block.attn.norm(mixed)).unflatten(0, (members, samples))
        step = state.run.step
        read = self._read_dropout.activations(read, step, index) + readers
        return self._mlp(index, F.layer_norm(read, read.shape[-1:], eps=block.norm1.eps), step)

    def _mlp(self, index: int, x_MBRD: Tensor, step: base.Step) -> Tensor:
        """Scale of the norm, then down to the inner width and up again."""
        x = x_MBRD * self.norm_weight[:, index, None, None] + self.norm_bias[:, index, None, None]
        bias = self.down_bias[:, index, None]
        hidden = torch.baddbmm(bias, x.flatten(1, 2), self.down_weight[:, index].mT)
        hidden = F.gelu(hidden).unflatten(1, x.shape[1:3])
        hidden = self._inner_dropout.activations(hidden, step, index)
        bias = self.up_bias[:, index, None]
        out = torch.baddbmm(bias, hidden.flatten(1, 2), self.up_weight[:, index].mT)
        out = out.unflatten(1, x.shape[1:3])
        return self._output_dropout.activations(out, step, index)


def _turns(depth: int) -> list[int]:
    """Blocks in which the prompt branch reads: 0, 4, 8 of 12."""
    return list(range(0, depth, max(2, -(-depth // 3))))


def _near(layout: TokenLayout) -> Tensor:
    """Boolean (S, S): prefix tokens read everything, image tokens the 3 x 3 image tokens around."""
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in layout.grid), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=-1)
    near = torch.ones([layout.num_prefix + layout.num_image] * 2, dtype=torch.bool)
    near[layout.num_prefix :, : layout.num_prefix] = False
    distance = (places[:, None] - places[None]).abs().amax(-1)
    near[layout.num_prefix :, layout.num_prefix :] = distance <= 1
    return near


def _positions(backbone: Backbone) -> Tensor:
    """Position embedding (S, D) of every token; 0 for those without one."""
    layout, embedding = backbone.layout, backbone.vit.pos_embed
    tokens = layout.num_prefix + layout.num_image
    full = torch.zeros(tokens, layout.embed_dim, device=backbone.device, dtype=backbone.dtype)
    if embedding is not None:
        full[tokens - embedding.shape[1] :] = embedding.detach()[0]
    return full
