"""Blocks whose frozen layers are corrected by small trained ones (Adapter, LoRA, SSF, ...).

A block is run from its own children, so that its norms of queries and keys, its layer scale and
its attention norm stay in place; methods step in behind a layer or beside the MLP.
"""

# Axes: M members, B samples, S tokens, R rows (leading tokens that are computed), D width, N = M B.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor

from tcpa_core.errors import ConfigError
from tcpa_core.methods import base
from tcpa_core.model.blocks import projections, rotated, scaled, split_heads

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block

    from tcpa_core.model.backbone import Backbone

Layer = Literal["norm1", "q", "k", "v", "o", "norm2", "fc1", "fc2", "mlp"]
"""A place behind which a method can step in; mlp is the whole MLP, before its layer scale."""


@dataclass(frozen=True, slots=True)
class State:
    """One pass."""

    run: base.Pass
    by_block: Mapping[str, Sequence[Tensor]]
    """The trained tensors (M, ...) of each block, by name."""


class TunedBlocks(base.Method[State]):
    """A method that corrects the layers of all blocks."""

    per_block: Sequence[str]
    """Names of the tensors (M, L, ...) that have an axis of blocks."""

    def behind(self, layer: Layer, x_MBSI: Tensor, y_MBSO: Tensor, index: int, s: State) -> Tensor:
        """Change the output of one layer.

        Args:
            x_MBSI: What entered the layer.
            y_MBSO: What came out.
            index: The block.
        """
        return y_MBSO

    def beside_mlp(self, u_MBRD: Tensor, index: int, num_tokens: int, s: State) -> Tensor | None:
        """What is added to the second residual sum, next to the MLP.

        Args:
            u_MBRD: Tokens that enter the MLP's branch, before its norm.
            num_tokens: S, of which the R leading ones are computed.
        """
        return None

    def begin(self, run: base.Pass) -> State:
        """Split the tensors by block."""
        return State(run, {name: getattr(self, name).unbind(1) for name in self.per_block})

    def on_block(self, index: int, block: Block, tokens_MBSD: Tensor, state: State) -> Tensor:
        """Run the block with its corrections; the last one on the rows that are read."""
        rows = state.run.rows if index == self.layout.depth - 1 else None
        o_MBRD = self._attention(index, block, tokens_MBSD, rows, state)
        u_MBRD = tokens_MBSD[:, :, :rows] + o_MBRD
        h_MBRD = self.behind("norm2", u_MBRD, block.norm2(u_MBRD), index, state)
        m_MBRD = self.behind("mlp", h_MBRD, self._mlp(index, block, h_MBRD, state), index, state)
        # Layer scale and drop path belong to the frozen branch; what stands beside it skips both.
        out = u_MBRD + scaled(block, 2, m_MBRD)
        side = self.beside_mlp(u_MBRD, index, tokens_MBSD.shape[2], state)
        return out if side is None else out + side

    def attention(
        self, index: int, block: Block, tokens_MBSD: Tensor, state: State
    ) -> base.BlockAttention:
        """With the corrections of queries and keys."""
        q_NHSE, k_NHSE, _ = self._heads(index, block, tokens_MBSD, None, state)
        return base.BlockAttention(q_NHSE=q_NHSE, k_NHSE=k_NHSE)

    def _attention(
        self, index: int, block: Block, x_MBSD: Tensor, rows: int | None, state: State
    ) -> Tensor:
        attn, batch = block.attn, x_MBSD.shape[:2]
        o_NHRE = F.scaled_dot_product_attention(*self._heads(index, block, x_MBSD, rows, state))
        o_MBRA = attn.norm(o_NHRE.transpose(1, 2).flatten(2)).unflatten(0, batch)
        o_MBRD = self.behind("o", o_MBRA, attn.proj(o_MBRA), index, state)
        return scaled(block, 1, attn.proj_drop(o_MBRD))

    def _heads(
        self, index: int, block: Block, x_MBSD: Tensor, rows: int | None, state: State
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (N, H, R, E) of the rows, keys and values (N, H, S, E) of all tokens."""
        attn = block.attn
        h_MBSD = self.behind("norm1", x_MBSD, block.norm1(x_MBSD), index, state)
        # Keys and values are needed of all tokens, queries only of those that are computed.
        h_MBRD = h_MBSD[:, :, :rows]
        q, k, v = _projections(block, h_MBSD, rows)
        q = self.behind("q", h_MBRD, q, index, state)
        k = self.behind("k", h_MBSD, k, index, state)
        v = self.behind("v", h_MBSD, v, index, state)
        q_NHRE, k_NHSE, v_NHSE = (split_heads(t.flatten(0, 1), attn.num_heads) for t in (q, k, v))
        q_NHRE = rotated(block, attn.q_norm(q_NHRE))
        return q_NHRE, rotated(block, attn.k_norm(k_NHSE), is_whole=True), v_NHSE

    def _mlp(self, index: int, block: Block, h_MBRD: Tensor, state: State) -> Tensor:
        mlp = block.mlp
        if not _is_plain(mlp):  # `require_mlp` keeps methods away that step in behind its layers
            return mlp(h_MBRD)
        hidden = self.behind("fc1", h_MBRD, mlp.fc1(h_MBRD), index, state)
        hidden = mlp.norm(mlp.drop1(mlp.act(hidden)))
        return mlp.drop2(self.behind("fc2", hidden, mlp.fc2(hidden), index, state))


def block_sizes(backbone: Backbone) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of a block's linear layers; of its norms the width twice."""
    block, width = backbone.blocks[0], backbone.layout.embed_dim
    inner = block.attn.proj.weight.shape[1]
    sizes = {name: (width, inner) for name in ("q", "k", "v")} | {"o": (inner, width)}
    sizes |= {"norm1": (width, width), "norm2": (width, width)}
    if _is_plain(block.mlp):
        hidden = block.mlp.fc1.weight.shape[0]
        sizes |= {"fc1": (width, hidden), "fc2": (hidden, width)}
    return sizes


def require_mlp(backbone: Backbone, setting: str) -> None:
    """Refuse backbones whose MLP is not two linear layers.

    Raises:
        ConfigError: Naming the setting.
    """
    for index, block in enumerate(backbone.blocks):
        if not _is_plain(block.mlp):
            raise ConfigError(
                f"{setting} needs an MLP of two linear layers, got {type(block.mlp).__name__} in "
                f"block {index}; choose another backbone or method."
            )


def _projections(block: Block, h_MBSD: Tensor, rows: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the rows, keys and values of all tokens, before their norms."""
    if rows is None:  # one product, bit for bit that of the block itself
        q, k, v = projections(block, h_MBSD, "qkv")
        return q, k, v
    (q,) = projections(block, h_MBSD[:, :, :rows], "q")
    k, v = projections(block, h_MBSD, "kv")
    return q, k, v


def _is_plain(mlp: object) -> bool:
    from timm.layers import Mlp  # it was loaded with the backbone

    return type(mlp) is Mlp
