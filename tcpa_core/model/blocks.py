"""Blocks of a frozen ViT taken apart, so that methods can change what happens inside.

Prompts that are replaced in every block need no query, projection or MLP of their own: what they
would compute is thrown away. They are keys and values only, which leaves results unchanged.

This is the only place that knows how timm's families write a block down. `Block` stands for that of
its VisionTransformer and for `EvaBlock` (EVA-02, DINOv3, Perception Encoder, ...), in which the
projections may be apart or without a bias of the keys, layer scales have other names, and queries
and keys of image tokens may be rotated by their place. Prefix tokens have no place and are not
rotated, and neither are prompts.
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
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tcpa_core.errors import ShapeError
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
            k, v = _unplaced_keys_values(block, h_MBPD.flatten(0, 1))
            projected.append(PromptKeys(k.unflatten(0, batch), v.unflatten(0, batch), exists_MP))
        return projected

    def _normalised(self, prompts_LMBPD: Tensor) -> Sequence[Tensor]:
        if self._eps is None:
            each = zip(self._blocks, prompts_LMBPD, strict=True)
            return [normalised(block, prompts) for block, prompts in each]
        weight, bias = self._stacked(prompts_LMBPD.device)
        plain = F.layer_norm(prompts_LMBPD, prompts_LMBPD.shape[-1:], eps=self._eps)
        both = torch.addcmul(bias, plain, weight)
        return both.to(_format(self._blocks[0])).unbind(0)

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
    inserted: slice | None = None,
) -> Tensor:
    """Run one block with prompts as extra keys and values.

    Args:
        tokens_MBSD: Residual stream that enters the block.
        prompts: Prompts of this block; None: no prompts.
        visibility: Which prompts each of the S tokens uses; None: all.
        backend: None: the fastest for the device and the shapes.
        rows: Compute only this many leading tokens; None: all.
        inserted: As in `plain_block`.

    Returns:
        Residual stream after the block, (M, B, rows or S, D).

    Source:
        TCPA, arXiv:2505.02406: "post" is Eq. 13, "pre" is Eq. 6-7. The authors' code is "post"
        (ICML2025-TCPA, models/VFPT_TCPA.py).
    """
    batch = tokens_MBSD.shape[:2]
    x_NSD = tokens_MBSD.flatten(0, 1)
    h_NSD = normalised(block, x_NSD)
    q = queries(block, h_NSD[:, :rows], inserted).unflatten(0, batch)
    k, v = (t.unflatten(0, batch) for t in keys_values(block, h_NSD, inserted))
    if visibility is not None and rows is not None:
        visibility = Visibility(visibility.used_MBRP[:, :, :rows], visibility.mode)
    o_MBHRE = attend(q, k, v, prompts, visibility, backend=backend)
    x_NRD = x_NSD[:, :rows] + project(block, o_MBHRE.flatten(0, 1))
    return mlp_residual(block, x_NRD).unflatten(0, batch)


@_compilable
def plain_block(
    block: Block,
    tokens_MBSD: Tensor,
    *,
    exists_MS: Tensor | None = None,
    rows: int | None = None,
    inserted: slice | None = None,
) -> Tensor:
    """Run one block on real tokens only.

    Args:
        block: Block of the frozen network.
        tokens_MBSD: Residual stream that enters the block.
        exists_MS: False for padding tokens, which nothing may attend to.
        rows: Compute only this many leading tokens; None: all.
        inserted: Where tokens without a place (prompts) stand in the sequence; None: nowhere.

    Returns:
        Residual stream after the block, (M, B, rows or S, D).
    """
    x_NSD = tokens_MBSD.flatten(0, 1)
    rotation = _rotation(block, x_NSD.shape[1], inserted)
    # timm's own code wherever it does: only then is an unchanged block equal to timm's to the bit.
    if exists_MS is None and rows is None:
        if rotation is None:
            return block(x_NSD).view_as(tokens_MBSD)
        if inserted is None:
            rope = rotation[..., block.attn.num_prefix_tokens :, :]
            return block(x_NSD, rope=rope).view_as(tokens_MBSD)
    mask = None
    if exists_MS is not None:
        mask = exists_MS.repeat_interleave(tokens_MBSD.shape[1], 0)[:, None, None]
    h_NSD = normalised(block, x_NSD)
    x_NRD = x_NSD[:, :rows] + self_attention(block, h_NSD, mask=mask, rows=rows, inserted=inserted)
    return mlp_residual(block, x_NRD).unflatten(0, tokens_MBSD.shape[:2])


@_compilable
def self_attention(
    block: Block,
    h_NSD: Tensor,
    *,
    mask: Tensor | None = None,
    rows: int | None = None,
    inserted: slice | None = None,
) -> Tensor:
    """Self-attention branch of a block for the first `rows` tokens, layer scale included."""
    q = queries(block, h_NSD[:, :rows], inserted)
    k, v = keys_values(block, h_NSD, inserted)
    return project(block, mix(q, k, v, mask))


@_compilable
def mlp_residual(block: Block, x_NRD: Tensor) -> Tensor:
    """Second half of a block, (N, R, D): the MLP and its residual."""
    return x_NRD + scaled(block, 2, block.mlp(block.norm2(x_NRD)))


def normalised(block: Block, x_NSD: Tensor) -> Tensor:
    """What the projections of the self-attention read, in their format."""
    # Once for all of them: autocast would round it for each, forward and backward.
    return block.norm1(x_NSD).to(_format(block))


def queries(block: Block, h_NRD: Tensor, inserted: slice | None = None) -> Tensor:
    """Queries (N, H, R, E) of the leading normalised tokens of a sequence, as the scores take them:
    behind the model's norm of queries, and rotated by their places.

    Args:
        inserted: As in `plain_block`.
    """
    attn = block.attn
    if h_NRD.dtype == torch.bfloat16:
        # torch adds the bias to scattered rows behind the product, which is rounded by then.
        h_NRD = h_NRD.contiguous()
    (q,) = projections(block, h_NRD, "q")
    return rotated(block, attn.q_norm(split_heads(q, attn.num_heads)), inserted)


def keys_values(
    block: Block, h_NSD: Tensor, inserted: slice | None = None
) -> tuple[Tensor, Tensor]:
    """Keys, behind their norm and rotated, and values (N, H, S, E) of a normalised sequence.

    Args:
        inserted: As in `plain_block`.
    """
    k, v = _unplaced_keys_values(block, h_NSD)
    return rotated(block, k, inserted, is_whole=True), v


def _unplaced_keys_values(block: Block, h_NSD: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (N, H, S, E) of tokens that have no place, as prompts."""
    attn = block.attn
    if attn.qkv is None:
        k, v = (split_heads(part, attn.num_heads) for part in projections(block, h_NSD, "kv"))
        return attn.k_norm(k), v
    both = F.linear(h_NSD, *_joint(block, "kv"))
    # Taken apart by heads and not before, so that the backward pass puts all of them together in
    # one copy.
    k, v = both.unflatten(-1, (2, attn.num_heads, -1)).unbind(-3)
    return attn.k_norm(k.transpose(-3, -2)), v.transpose(-3, -2)


Parts = Literal["q", "kv", "qkv"]
"""Neighbouring projections of the self-attention."""


def projections(block: Block, h_NSD: Tensor, parts: Parts) -> Sequence[Tensor]:
    """Queries, keys or values (N, S, A) of normalised tokens, before their norms."""
    attn = block.attn
    if attn.qkv is None:
        return [getattr(attn, f"{part}_proj")(h_NSD) for part in parts]
    return F.linear(h_NSD, *_joint(block, parts)).chunk(len(parts), dim=-1)


def joint_projection(block: Block) -> tuple[Tensor, Tensor | None]:
    """Weight (3 A, D) and bias (3 A,) of all projections, queries first; copies where they are
    apart."""
    attn = block.attn
    if attn.qkv is not None:
        return _joint(block, "qkv")
    layers = [attn.q_proj, attn.k_proj, attn.v_proj]
    weight = torch.cat([layer.weight for layer in layers])
    if all(layer.bias is None for layer in layers):
        return weight, None
    # EVA's keys have none.
    biases = [
        layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
        for layer in layers
    ]
    return weight, torch.cat(biases)


def _joint(block: Block, parts: Parts) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of some projections that timm keeps in one matrix."""
    attn = block.attn
    width, first = len(attn.qkv.weight) // 3, "qkv".index(parts[0])
    span = slice(first * width, (first + len(parts)) * width)
    bias: Tensor | None = attn.qkv.bias
    if getattr(attn, "q_bias", None) is None:
        return attn.qkv.weight[span], None if bias is None else bias[span]
    # EVA's biases are apart; that of the keys is fixed at 0.
    biases = [getattr(attn, f"{part}_bias") for part in parts]
    return attn.qkv.weight[span], biases[0] if len(biases) == 1 else torch.cat(biases)


def rotated(
    block: Block, x_NHRE: Tensor, inserted: slice | None = None, *, is_whole: bool = False
) -> Tensor:
    """Queries or keys of the leading tokens of a sequence, rotated by their places if the block
    does that.

    Args:
        inserted: As in `plain_block`; these are not rotated, nor are prefix tokens.
        is_whole: They are all tokens of the sequence, which is checked.

    Source:
        RoFormer, arXiv:2104.09864; pairs of neighbours, or of the two halves, as timm has it.
    """
    rotation = _rotation(block, x_NHRE.shape[-2], inserted, is_whole=is_whole)
    if rotation is None:
        return x_NHRE
    sin, cos = rotation.chunk(2, dim=-1)
    if block.attn.rotate_half:
        first, second = x_NHRE.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
    else:
        turned = torch.stack([-x_NHRE[..., 1::2], x_NHRE[..., ::2]], dim=-1).flatten(-2)
    # In the tables' float32: half precision would round places.
    return (x_NHRE * cos + turned * sin).to(x_NHRE.dtype)


def _rotation(
    block: Block, rows: int, inserted: slice | None, *, is_whole: bool = True
) -> Tensor | None:
    """Sines and cosines (R, 2 E) or (H, R, 2 E) of the leading tokens; None: no rotation.

    Raises:
        ShapeError: The sequence has tokens of which nobody says where they stand.
    """
    table: Tensor | None = getattr(block, "rotation", None)
    if table is None:
        return None
    start, stop, _ = (inserted or slice(0, 0)).indices(rows)
    placed, known = rows - (stop - start), table.shape[-2]
    if placed > known or (is_whole and placed != known):
        raise ShapeError(
            f"a block with rotary positions has places for {known} tokens, got {placed} (and "
            f"{stop - start} without a place); say where prompts stand with `inserted`."
        )
    if start == stop:
        return table[..., :rows, :]
    width = table.shape[-1] // 2
    still = table.new_zeros(*table.shape[:-2], stop - start, 2 * width)
    still[..., width:] = 1.0  # by an angle of 0
    return torch.cat([table[..., :start, :], still, table[..., start:placed, :]], dim=-2)


def project(block: Block, o_NHRE: Tensor) -> Tensor:
    """Output projection of the attention branch (N, R, D), layer scale included."""
    attn = block.attn
    o_NRA = attn.norm(o_NHRE.transpose(1, 2).flatten(2))
    return scaled(block, 1, attn.proj_drop(attn.proj(o_NRA)))


def scaled(block: Block, branch: Literal[1, 2], x: Tensor) -> Tensor:
    """What a branch adds to the residual sum: behind its layer scale and drop path.

    Args:
        branch: 1: the self-attention; 2: the MLP.
    """
    parts: Any = block
    if hasattr(block, "ls1"):
        scale = parts.ls1 if branch == 1 else parts.ls2
        x = scale(x)
    else:
        gamma = parts.gamma_1 if branch == 1 else parts.gamma_2
        x = x if gamma is None else gamma * x
    drop_path = parts.drop_path1 if branch == 1 else parts.drop_path2
    return cast("Tensor", drop_path(x))


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(..., S, A) to (..., H, S, E)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def _format(block: Block) -> torch.dtype:
    """Number format of a block's matrices."""
    return cast("torch.dtype", block.attn.proj.weight.dtype)
