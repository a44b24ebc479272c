"""Blocks of a frozen ViT taken apart, and attention over tokens and prompts.

Prompts that are replaced in every block need no query, projection or MLP of their own: what they
would compute is thrown away. They are keys and values only, which leaves results unchanged.

A token may be kept from using a prompt. "post" hides the prompt after the softmax without
rescaling: it still weighs in the denominator. "pre" hides it before. Three backends give the same
numbers: `dense` spells the formula out, `twin` and `lse` keep no attention map.
"""

# Axes: M members, B samples (1 where all samples share), H heads, S real tokens, R rows (leading
# real tokens that are computed), P prompt tokens, E head width, D width.
# A flat batch axis of length M * B is written N.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor

MaskMode = Literal["post", "pre"]
Backend = Literal["dense", "twin", "lse"]
Visible = bool | Tensor
"""Which prompts of a pool some rows use: all, none, or a boolean (M, B, R, P) tensor."""

FEW_ROWS = 8
"""Up to this many rows the plain formula is the fastest."""

BACKENDS: dict[str, Backend] = {"cpu": "lse", "cuda": "twin"}
"""Fastest backend by kind of device; others take "twin"."""


@dataclass(frozen=True, slots=True)
class PromptPool:
    """Prompts of one pool in one block, projected to keys and values."""

    k_MBHPE: Tensor
    v_MBHPE: Tensor
    exists_MP: Tensor | None
    """False where a member's pool is padded; None: nothing is padded."""


def default_backend(device: torch.device) -> Backend:
    """The fastest exact backend on a kind of device."""
    return BACKENDS.get(device.type, "twin")


def prompt_pools(
    block: Block, prompts_MBPD: Tensor, sizes: Sequence[int], exists_MP: Tensor | None
) -> list[PromptPool]:
    """Normalise and project prompts as the block would, and split them into pools.

    Args:
        block: Whose norm1 and key and value projections to use.
        prompts_MBPD: Prompts of all pools, one after the other.
        sizes: Prompts per pool; their sum is P.
        exists_MP: False for padding; None: no padding.
    """
    members, samples = prompts_MBPD.shape[:2]
    k, v = keys_values(block, block.norm1(prompts_MBPD.flatten(0, 1)))
    keys = k.unflatten(0, (members, samples)).split(list(sizes), dim=-2)
    values = v.unflatten(0, (members, samples)).split(list(sizes), dim=-2)
    exists = [None] * len(sizes) if exists_MP is None else exists_MP.split(list(sizes), dim=-1)
    return [PromptPool(*parts) for parts in zip(keys, values, exists, strict=True)]


def prompted_block(
    block: Block,
    tokens_MBSD: Tensor,
    pools: Sequence[PromptPool],
    visible: Sequence[Visible],
    *,
    mode: MaskMode = "post",
    backend: Backend,
    rows: int | None = None,
) -> Tensor:
    """Run one block with prompts as extra keys and values.

    Args:
        tokens_MBSD: Residual stream that enters the block.
        pools: Prompts of this block.
        visible: Which prompts of each pool the S tokens use.
        mode: When hidden prompts are hidden.
        rows: Compute only this many leading tokens; None: all.

    Returns:
        Residual stream after the block, (M, B, rows or S, D).

    Source:
        TCPA, arXiv:2505.02406: "post" is Eq. 13, "pre" is Eq. 6-7. The authors' code is "post"
        (ICML2025-TCPA, models/VFPT_TCPA.py).
    """
    batch = tokens_MBSD.shape[:2]
    x_NSD = tokens_MBSD.flatten(0, 1)
    h_NSD = block.norm1(x_NSD)
    q = queries(block, h_NSD[:, :rows]).unflatten(0, batch)
    k, v = (t.unflatten(0, batch) for t in keys_values(block, h_NSD))
    seen = [entry if isinstance(entry, bool) else entry[:, :, :rows] for entry in visible]
    o_MBHRE = attend(q, k, v, pools, seen, mode=mode, backend=backend)
    x_NRD = x_NSD[:, :rows] + project(block, o_MBHRE.flatten(0, 1))
    return mlp_residual(block, x_NRD).unflatten(0, batch)


def plain_block(
    block: Block, tokens_MBSD: Tensor, *, exists_MS: Tensor | None = None, rows: int | None = None
) -> Tensor:
    """Run one block on real tokens only.

    Args:
        exists_MS: False for padding tokens, which nothing may attend to.
        rows: Compute only this many leading tokens; None: all.
    """
    x_NSD = tokens_MBSD.flatten(0, 1)
    if exists_MS is None and rows is None:
        return block(x_NSD).view_as(tokens_MBSD)
    mask = None
    if exists_MS is not None:
        mask = exists_MS.repeat_interleave(tokens_MBSD.shape[1], 0)[:, None, None]
    x_NRD = x_NSD[:, :rows] + self_attention(block, block.norm1(x_NSD), mask=mask, rows=rows)
    return mlp_residual(block, x_NRD).unflatten(0, tokens_MBSD.shape[:2])


def self_attention(
    block: Block, h_NSD: Tensor, *, mask: Tensor | None = None, rows: int | None = None
) -> Tensor:
    """Self-attention branch of a block for the first `rows` tokens, layer scale included."""
    q = queries(block, h_NSD[:, :rows])
    k, v = keys_values(block, h_NSD)
    return project(block, F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def mlp_residual(block: Block, x_NRD: Tensor) -> Tensor:
    """Second half of a block: the MLP and its residual."""
    return x_NRD + block.drop_path2(block.ls2(block.mlp(block.norm2(x_NRD))))


def queries(block: Block, h_NRD: Tensor) -> Tensor:
    """Queries (N, H, R, E) of normalised tokens; the norm of the model's queries included."""
    attn = block.attn
    width = attn.qkv.weight.shape[0] // 3
    bias = None if attn.qkv.bias is None else attn.qkv.bias[:width]
    return attn.q_norm(heads(F.linear(h_NRD, attn.qkv.weight[:width], bias), attn.num_heads))


def keys_values(block: Block, h_NSD: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (N, H, S, E) of normalised tokens or prompts."""
    attn = block.attn
    width = attn.qkv.weight.shape[0] // 3
    bias = None if attn.qkv.bias is None else attn.qkv.bias[width:]
    k, v = F.linear(h_NSD, attn.qkv.weight[width:], bias).chunk(2, dim=-1)
    return attn.k_norm(heads(k, attn.num_heads)), heads(v, attn.num_heads)


def project(block: Block, o_NHRE: Tensor) -> Tensor:
    """Output projection of the attention branch (N, R, D), layer scale included."""
    attn = block.attn
    o_NRA = attn.norm(o_NHRE.transpose(1, 2).flatten(2))
    return block.drop_path1(block.ls1(attn.proj_drop(attn.proj(o_NRA))))


def heads(x: Tensor, num_heads: int) -> Tensor:
    """(..., S, A) to (..., H, S, E)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def attend(
    q_MBHRE: Tensor,
    k_MBHSE: Tensor,
    v_MBHSE: Tensor,
    pools: Sequence[PromptPool],
    visible: Sequence[Visible],
    *,
    mode: MaskMode,
    backend: Backend,
) -> Tensor:
    """Mix values of tokens and prompts; every row sees all tokens and the prompts it may use.

    Args:
        visible: One entry per pool. A member's padding is hidden whatever stands here.

    Returns:
        (M, B, H, R, E).
    """
    if mode == "pre":
        keep = [i for i, entry in enumerate(visible) if entry is not False]
        pools, visible = [pools[i] for i in keep], [visible[i] for i in keep]
    if not pools:
        q, k, v = (t.flatten(0, 1) for t in (q_MBHRE, k_MBHSE, v_MBHSE))
        return F.scaled_dot_product_attention(q, k, v).view_as(q_MBHRE)
    unmasked = all(entry is True for entry in visible)
    if backend == "lse" and (unmasked or v_MBHSE.dtype in (torch.bfloat16, torch.float16)):
        backend = "twin"
    if backend == "twin":
        return _attend_twin(q_MBHRE, k_MBHSE, v_MBHSE, pools, visible, mode)
    counted, used = _masks(pools, visible, mode)
    pk = torch.cat([pool.k_MBHPE for pool in pools], dim=-2)
    pv = torch.cat([pool.v_MBHPE for pool in pools], dim=-2)
    if backend == "dense" or q_MBHRE.shape[-2] <= FEW_ROWS:
        return _attend_dense(q_MBHRE, k_MBHSE, v_MBHSE, pk, pv, counted, used)
    out: Tensor = _LseAttention.apply(q_MBHRE, k_MBHSE, v_MBHSE, pk, pv, counted, used)
    return out


def _masks(
    pools: Sequence[PromptPool], visible: Sequence[Visible], mode: MaskMode
) -> tuple[Tensor | None, Tensor | None]:
    """Columns (M, B, R, P) that enter the denominator, and those whose value is used."""
    if all(pool.exists_MP is None for pool in pools):
        exists = None
    else:
        exists = torch.cat([_exists(pool) for pool in pools], dim=-1)
    if all(entry is True for entry in visible):
        return exists, None
    shape = torch.broadcast_shapes(
        *[e.shape[:3] for e in visible if isinstance(e, Tensor)], (1,) * 3
    )
    seen = torch.cat(
        [
            _column(entry, pool).expand(*shape, -1)
            for entry, pool in zip(visible, pools, strict=True)
        ],
        dim=-1,
    )
    return (exists, seen) if mode == "post" else (seen if exists is None else seen & exists, None)


def _exists(pool: PromptPool) -> Tensor:
    if pool.exists_MP is None:
        members, size = pool.k_MBHPE.shape[0], pool.k_MBHPE.shape[-2]
        return torch.ones(members, 1, 1, size, dtype=torch.bool, device=pool.k_MBHPE.device)
    return pool.exists_MP[:, None, None]


def _column(entry: Visible, pool: PromptPool) -> Tensor:
    if isinstance(entry, Tensor):
        return entry
    size = (1, 1, 1, pool.k_MBHPE.shape[-2])
    return torch.full(size, entry, dtype=torch.bool, device=pool.k_MBHPE.device)


def _attend_dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pk: Tensor,
    pv: Tensor,
    counted: Tensor | None,
    used: Tensor | None,
) -> Tensor:
    """Spell out softmax over tokens and prompts, then switch off the columns not used."""
    scale = q.shape[-1] ** -0.5
    token_scores, prompt_scores = (q @ k.mT) * scale, _times(q, pk.mT) * scale
    if counted is not None:
        prompt_scores = prompt_scores.masked_fill(~counted.unsqueeze(2), float("-inf"))
    weights = torch.cat([token_scores, prompt_scores], dim=-1).softmax(-1)
    on_tokens, on_prompts = weights.split([k.shape[-2], pk.shape[-2]], dim=-1)
    if used is not None:
        on_prompts = on_prompts.masked_fill(~used.unsqueeze(2), 0.0)
    return on_tokens.to(v.dtype) @ v + _times(on_prompts.to(v.dtype), pv)


def _attend_twin(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pools: Sequence[PromptPool],
    visible: Sequence[Visible],
    mode: MaskMode,
) -> Tensor:
    """Fused attention in which a hidden prompt is replaced by a twin with the same key, value 0.

    A row sees either the prompt or its twin, so the denominator is that of all prompts while the
    hidden ones add nothing.
    """
    keys, values = [k], [v]
    masks: list[Tensor | None] = [None]
    for pool, entry in zip(pools, visible, strict=True):
        exists = None if pool.exists_MP is None else pool.exists_MP[:, None, None]
        if entry is not False:
            keys.append(pool.k_MBHPE)
            values.append(pool.v_MBHPE)
            masks.append(_both(exists, None if entry is True else entry))
        if entry is not True and mode == "post":
            keys.append(pool.k_MBHPE)
            values.append(torch.zeros_like(pool.v_MBHPE))
            masks.append(_both(exists, None if entry is False else ~entry))
    batch = q.shape[:2]
    k_all, v_all = (
        torch.cat([part.expand(*batch, -1, -1, -1) for part in parts], dim=-2).flatten(0, 1)
        for parts in (keys, values)
    )
    mask = _join(masks, [part.shape[-2] for part in keys], (*batch, q.shape[-2]), q.device)
    out = F.scaled_dot_product_attention(q.flatten(0, 1), k_all, v_all, attn_mask=mask)
    return out.view_as(q)


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a & b


def _join(
    masks: Sequence[Tensor | None],
    sizes: Sequence[int],
    shape: tuple[int, ...],
    device: torch.device,
) -> Tensor | None:
    """One boolean mask (N, 1, R, U) over all columns, or None when nothing is masked."""
    if all(mask is None for mask in masks):
        return None
    full = [
        torch.ones(1, 1, 1, size, dtype=torch.bool, device=device) if mask is None else mask
        for mask, size in zip(masks, sizes, strict=True)
    ]
    return torch.cat([mask.expand(*shape, -1) for mask in full], dim=-1).flatten(0, 1).unsqueeze(1)


class _LseAttention(torch.autograd.Function):
    """Flash attention over the tokens, corrected for prompts through its log-sum-exp (CPU).

    With l the log-sum-exp of the token scores and s_p the prompt scores, Lam = log(e^l + sum e^s_p)
    normalises both: o = e^(l - Lam) o_tokens + sum_p m_p e^(s_p - Lam) v_p. The token part of the
    gradient is the flash kernel's own backward, given the final o and Lam.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pk: Tensor,
        pv: Tensor,
        counted: Tensor | None,
        used: Tensor | None,
    ) -> Tensor:
        flat = [t.flatten(0, 1) for t in (q, k, v)]
        token_out, token_lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*flat)
        token_lse = token_lse.view(q.shape[:-1])
        scores = _prompt_scores(q, pk, counted)
        lse = torch.logaddexp(token_lse, scores.logsumexp(-1))
        weights = (scores - lse.unsqueeze(-1)).exp_()
        if used is not None:
            weights.mul_(used.unsqueeze(2))
        out = token_out.view_as(q) * (token_lse - lse).exp_().unsqueeze(-1)
        out += _times(weights, pv)
        ctx.save_for_backward(q, k, v, pk, pv, counted, used, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        q, k, v, pk, pv, counted, used, out, lse = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        weights = (_prompt_scores(q, pk, counted) - lse.unsqueeze(-1)).exp_()
        kept = weights if used is None else weights * used.unsqueeze(2)
        grad_scores = _times(grad, pv.mT)
        grad_scores *= kept
        grad_scores -= weights * (grad * out).sum(-1, keepdim=True)
        grad_scores *= scale
        grad_pv, grad_pk = _summed(kept, grad, pv), _summed(grad_scores, q, pk)
        if not any(ctx.needs_input_grad[:3]):
            return None, None, None, grad_pk, grad_pv, None, None
        token_grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *(t.flatten(0, 1) for t in (grad, q, k, v, out, lse)), 0.0, False
        )
        grad_q, grad_k, grad_v = (
            t.view_as(like) for t, like in zip(token_grads, (q, k, v), strict=True)
        )
        grad_q = grad_q + _times(grad_scores, pk)
        return grad_q, grad_k, grad_v, grad_pk, grad_pv, None, None


def _prompt_scores(q: Tensor, pk: Tensor, counted: Tensor | None) -> Tensor:
    scores = _times(q, pk.mT).mul_(q.shape[-1] ** -0.5)
    if counted is not None:
        scores.masked_fill_(~counted.unsqueeze(2), float("-inf"))
    return scores


def _times(x_MBHRA: Tensor, y_MBHAC: Tensor) -> Tensor:
    """x @ y; where all samples share y, as one product per head instead of one per sample."""
    samples, rows = x_MBHRA.shape[1], x_MBHRA.shape[3]
    if y_MBHAC.shape[1] == samples:
        return x_MBHRA @ y_MBHAC
    product = _by_head(x_MBHRA) @ y_MBHAC[:, 0]
    return product.unflatten(2, (samples, rows)).transpose(1, 2)


def _summed(x_MBHRA: Tensor, y_MBHRC: Tensor, like: Tensor) -> Tensor:
    """x^T @ y in the shape of `like`: summed over the samples where they share it."""
    if like.shape[1] == x_MBHRA.shape[1]:
        return x_MBHRA.mT @ y_MBHRC
    return (_by_head(x_MBHRA).mT @ _by_head(y_MBHRC)).unsqueeze(1)


def _by_head(x_MBHRA: Tensor) -> Tensor:
    """(M, B, H, R, A) to (M, H, B * R, A)."""
    return x_MBHRA.transpose(1, 2).flatten(2, 3)
