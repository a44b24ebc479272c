"""What the self-attention of one block reads, as a method tells it to figures."""

# Axes: M members, B samples, N = M * B, H heads, S tokens in the sequence, E head width.

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from torch import Tensor

from tcpa_core.model.attention import PromptKeys, Visibility
from tcpa_core.model.blocks import keys_values, normalised, queries

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockAttention:
    """Queries and keys of one block; attention is the softmax of their products / sqrt(E)."""

    q_NHSE: Tensor
    """Of the tokens in the sequence, prompts among them."""
    k_NHSE: Tensor
    inserted: slice | None = None
    """Where prompts stand in the sequence; None: nowhere."""
    prompts: PromptKeys | None = None
    """Prompts beside the sequence, which all tokens attend to as well."""
    visibility: Visibility | None = None
    """Which of these each token uses; None: all."""
    num_prompts_apart: int = 0
    """Prompts of this block that something else than its self-attention reads."""

    @classmethod
    def of(
        cls,
        block: Block,
        tokens_MBSD: Tensor,
        prompts: PromptKeys | None = None,
        visibility: Visibility | None = None,
        *,
        inserted: slice | None = None,
    ) -> Self:
        """The attention of the frozen block itself over some tokens, and over prompts beside them.

        Args:
            block: Whose norm, projections and norms of queries and keys to use.
            tokens_MBSD: What enters the block.
        """
        h_NSD = normalised(block, tokens_MBSD.flatten(0, 1))
        return cls(
            q_NHSE=queries(block, h_NSD, inserted),
            k_NHSE=keys_values(block, h_NSD, inserted)[0],
            inserted=inserted,
            prompts=prompts,
            visibility=visibility,
        )
