"""Blocks of a frozen ViT taken apart, so that methods can change what happens inside.

Prompts that are replaced in every block need no query, projection or MLP of their own: what they
would compute is thrown away. They are keys and values only, which leaves results unchanged.
"""

# Axes: M members, B samples (1 where all samples share), H heads, S real tokens, R rows (leading
# real tokens that are computed), P prompt tokens of all pools, E head width, D width, A = H * E,
# L blocks.
# A flat batch axis of length M * B is written N.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache, wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tcpa_core.model.attention import Backend, PromptKeys, Visibility, attend, mix

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block


P = ParamSpec("P")
T = TypeVar("T")

MOST_SHAPES = 1024
"""That a function of a block is compiled for in one process."""
_backend: ContextVar[str | None] = ContextVar("backend", default=None)
"""Of `torch.compile`; None: nothing is compiled."""


def _compilable(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function of a block run compiled within `compiled_blocks`."""

    @cache
    def compiled(backend: str) -> Callable[P, T]:
        # Whole: where torch could compile a part only, the rest would be a guess.
        return torch.compile(function, backend=backend, dynamic=False, fullgraph=True)

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        # A function that calls another one of this module is compiled with it.
        backend = None if torch.compiler.is_compiling() else _backend.get()
        return (function if backend is None else compiled(backend))(*args, **kwargs)

    return run


def _many_shapes() -> AbstractContextManager[None]:
    """Let torch compile for more than eight shapes: pack sizes and last batches are more."""
    import torch._dynamo.config as config  # takes seconds to load

    limits = {"recompile_limit": MOST_SHAPES, "accumulated_recompile_limit": MOST_SHAPES}
    return cast("AbstractContextManager[None]", config.patch(limits))


@contextmanager
def compiled_blocks(is_on: bool, backend: str = "inductor") -> Iterator[None]:
    """Run the functions of this module compiled, for as long as it lasts.

    One block is compiled, not the network: the blocks of a ViT are alike, and so all of them run
    the same code. Shapes are fixed: other sizes are compiled for themselves.

    Args:
        is_on: False: nothing changes.
        backend: Of `torch.compile`.
    """
    before = _backend.set(backend if is_on else None)
    try:
        with _many_shapes() if is_on else nullcontext():
            yield
    finally:
        _backend.reset(before)


class PromptProjections:
    """Normalises and projects prompts as the blocks that they belong to would, all at once.

    Nothing of a block's prompts waits for the block before it. Normalised together they start a few
    kernels where each block would start as many of its own.

    Args:
        blocks: All blocks, whose norm1 and key and value projections to use.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = list(blocks)
        self._affine: tuple[Tensor, Tensor] | None = None
        norms = [block.norm1 for block in blocks]
        kinds = {(type(norm), getattr(norm, "eps", None)) for norm in norms}
        # RMS norms and the like are left to themselves.
        self._eps: float | None = None
        if len(kinds) == 1 and isinstance(norms[0], nn.LayerNorm) and norms[0].bias is not None:
            self._eps = norms[0].eps

    def __call__(self, prompts_LMBPD: Tensor, exists_MP: Tensor | None) -> list[PromptKeys]:
        """Keys and values of each block.

        Args:
            prompts_LMBPD: Prompts of all blocks; B is 1 where all samples share them.
            exists_MP: False for padding; None: no padding.
        """
        batch = prompts_LMBPD.shape[1:3]
        projected = []
        for block, h_MBPD in zip(self._blocks, self._normalised(prompts_LMBPD), strict=True):
            k, v = keys_values(block, h_MBPD.flatten(0, 1))
            projected.append(PromptKeys(k.unflatten(0, batch), v.unflatten(0, batch), exists_MP))
        return projected

    def _normalised(self, prompts_LMBPD: Tensor) -> Sequence[Tensor]:
        if self._eps is None:
            each = zip(self._blocks, prompts_LMBPD, strict=True)
            return [normalised(block, prompts) for block, prompts in each]
        weight, bias = self._stacked(prompts_LMBPD.device)
        plain = F.layer_norm(prompts_LMBPD, prompts_LMBPD.shape[-1:], eps=self._eps)
        both = torch.addcmul(bias, plain, weight)
        return both.to(self._blocks[0].attn.qkv.weight.dtype).unbind(0)

    def _stacked(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Weight and bias of all norms, (L, 1, 1, 1, D)."""
        if self._affine is None or self._affine[0].device != device:
            with torch.inference_mode(False):
                weight, bias = (
                    torch.stack([getattr(block.norm1, name).detach() for block in self._blocks])
                    for name in ("weight", "bias")
                )
            self._affine = weight[:, None, None, None], bias[:, None, None, None]
        return self._affine


@_compilable
def prompted_block(
    block: Block,
    tokens_MBSD: Tensor,
    prompts: PromptKeys | None,
    visibility: Visibility | None = None,
    *,
    backend: Backend | None,
    rows: int | None = None,
) -> Tensor:
    """Run one block with prompts as extra keys and values.

    Args:
        tokens_MBSD: Residual stream that enters the block.
        prompts: Prompts of this block; None: no prompts.
        visibility: Which prompts each of the S tokens uses; None: all.
        backend: None: the fastest for the device and the shapes.
        rows: Compute only this many leading tokens; None: all.

    Returns:
        Residual stream after the block, (M, B, rows or S, D).

    Source:
        TCPA, arXiv:2505.02406: "post" is Eq. 13, "pre" is Eq. 6-7. The authors' code is "post"
        (ICML2025-TCPA, models/VFPT_TCPA.py).
    """
    batch = tokens_MBSD.shape[:2]
    x_NSD = tokens_MBSD.flatten(0, 1)
    h_NSD = normalised(block, x_NSD)
    q = queries(block, h_NSD[:, :rows]).unflatten(0, batch)
    k, v = (t.unflatten(0, batch) for t in keys_values(block, h_NSD))
    if visibility is not None and rows is not None:
        visibility = Visibility(visibility.used_MBRP[:, :, :rows], visibility.mode)
    o_MBHRE = attend(q, k, v, prompts, visibility, backend=backend)
    x_NRD = x_NSD[:, :rows] + project(block, o_MBHRE.flatten(0, 1))
    return mlp_residual(block, x_NRD).unflatten(0, batch)


@_compilable
def plain_block(
    block: Block, tokens_MBSD: Tensor, *, exists_MS: Tensor | None = None, rows: int | None = None
) -> Tensor:
    """Run one block on real tokens only.

    Args:
        block: Block of the frozen network.
        tokens_MBSD: Residual stream that enters the block.
        exists_MS: False for padding tokens, which nothing may attend to.
        rows: Compute only this many leading tokens; None: all.

    Returns:
        Residual stream after the block, (M, B, rows or S, D).
    """
    x_NSD = tokens_MBSD.flatten(0, 1)
    # timm's own code wherever it does: only then is an unchanged block equal to timm's to the bit.
    if exists_MS is None and rows is None:
        return block(x_NSD).view_as(tokens_MBSD)
    mask = None
    if exists_MS is not None:
        mask = exists_MS.repeat_interleave(tokens_MBSD.shape[1], 0)[:, None, None]
    h_NSD = normalised(block, x_NSD)
    x_NRD = x_NSD[:, :rows] + self_attention(block, h_NSD, mask=mask, rows=rows)
    return mlp_residual(block, x_NRD).unflatten(0, tokens_MBSD.shape[:2])


@_compilable
def self_attention(
    block: Block, h_NSD: Tensor, *, mask: Tensor | None = None, rows: int | None = None
) -> Tensor:
    """Self-attention branch of a block for the first `rows` tokens, layer scale included."""
    q = queries(block, h_NSD[:, :rows])
    k, v = keys_values(block, h_NSD)
    return project(block, mix(q, k, v, mask))


@_compilable
def mlp_residual(block: Block, x_NRD: Tensor) -> Tensor:
    """Second half of a block, (N, R, D): the MLP and its residual."""
    return x_NRD + block.drop_path2(block.ls2(block.mlp(block.norm2(x_NRD))))


def normalised(block: Block, x_NSD: Tensor) -> Tensor:
    """What the projections of the self-attention read, in their format."""
    # Once for all of them: autocast would round it for each, forward and backward.
    return block.norm1(x_NSD).to(block.attn.qkv.weight.dtype)


def queries(block: Block, h_NRD: Tensor) -> Tensor:
    """Queries (N, H, R, E) of normalised tokens; the norm of the model's queries included."""
    # timm keeps the three projections in one matrix; prompts need the last two thirds of it only.
    attn = block.attn
    width = attn.qkv.weight.shape[0] // 3
    bias = None if attn.qkv.bias is None else attn.qkv.bias[:width]
    if h_NRD.dtype == torch.bfloat16:
        # torch adds the bias to scattered rows behind the product, which is rounded by then.
        h_NRD = h_NRD.contiguous()
    return attn.q_norm(split_heads(F.linear(h_NRD, attn.qkv.weight[:width], bias), attn.num_heads))


def keys_values(block: Block, h_NSD: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (N, H, S, E) of normalised tokens or prompts."""
    attn = block.attn
    width = attn.qkv.weight.shape[0] // 3
    bias = None if attn.qkv.bias is None else attn.qkv.bias[width:]
    both = F.linear(h_NSD, attn.qkv.weight[width:], bias)
    # Taken apart by heads and not before, so that the backward pass puts all of them together in
    # one copy.
    k, v = both.unflatten(-1, (2, attn.num_heads, -1)).unbind(-3)
    return attn.k_norm(k.transpose(-3, -2)), v.transpose(-3, -2)


def project(block: Block, o_NHRE: Tensor) -> Tensor:
    """Output projection of the attention branch (N, R, D), layer scale included."""
    attn = block.attn
    o_NRA = attn.norm(o_NHRE.transpose(1, 2).flatten(2))
    return block.drop_path1(block.ls1(attn.proj_drop(attn.proj(o_NRA))))


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(..., S, A) to (..., H, S, E)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(-3, -2)
