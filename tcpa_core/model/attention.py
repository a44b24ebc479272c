"""Attention of a row over real tokens and prompts, in three backends that give the same numbers.

A token may be kept from using a prompt. "post" hides the prompt after the softmax without
rescaling: it still weighs in the denominator. "pre" hides it before. `dense` spells the formula
out and keeps the attention map, `twin` and `lse` keep none.
"""

# Axes: M members, B samples (1 where all samples share), H heads, S real tokens, R rows (leading
# real tokens that are computed), P prompt tokens of all pools, E head width.
# A flat batch axis of length M * B is written N.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tcpa_core.made_once import made_once

MaskMode = Literal["post", "pre"]
Backend = Literal["dense", "twin", "lse"]
FEW_ROWS = 8
FEW_KEYS = 192
"""On a CPU the spelled-out formula is the fastest up to this many rows, and up to this many keys of
tokens and prompts together: the attention map is then small."""


@dataclass(frozen=True, slots=True)
class PromptKeys:
    """Prompts of one block, projected to keys and values."""

    k_MBHPE: Tensor
    v_MBHPE: Tensor
    exists_MP: Tensor | None
    """False where a member's prompts are padded; None: nothing is padded."""


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which prompts each row may use, and when the others are hidden from it."""

    used_MBRP: Tensor
    """Boolean; M and B may be 1."""
    mode: MaskMode = "post"
    """post: after the softmax, whose denominator hidden prompts stay in; pre: before it."""


def join_prompts(first: PromptKeys, second: PromptKeys) -> PromptKeys:
    """Prompts of two origins in one block."""
    samples = max(first.k_MBHPE.shape[1], second.k_MBHPE.shape[1])
    k, v = (
        torch.cat([t.expand(-1, samples, -1, -1, -1) for t in pair], dim=-2)
        for pair in ((first.k_MBHPE, second.k_MBHPE), (first.v_MBHPE, second.v_MBHPE))
    )
    if first.exists_MP is None and second.exists_MP is None:
        return PromptKeys(k, v, None)
    return PromptKeys(k, v, torch.cat([_exists(first), _exists(second)], dim=-1))


def attend(
    q_MBHRE: Tensor,
    k_MBHSE: Tensor,
    v_MBHSE: Tensor,
    prompts: PromptKeys | None,
    visibility: Visibility | None,
    *,
    backend: Backend | None,
) -> Tensor:
    """Mix values of tokens and prompts; every row sees all tokens and the prompts it may use.

    Args:
        q_MBHRE: Queries, not yet scaled by 1/sqrt(E).
        k_MBHSE: Keys of the tokens.
        v_MBHSE: Values of the tokens.
        prompts: Keys and values of the prompts, B may be 1; None: no prompts.
        visibility: None: every row uses all prompts. Padding is hidden in any case.
        backend: None: the fastest for the device and the shapes.

    Returns:
        (M, B, H, R, E).

    Source:
        TCPA, arXiv:2505.02406: "post" is Eq. 13, "pre" is Eq. 6-7.
    """
    if prompts is None:
        return mix(*(t.flatten(0, 1) for t in (q_MBHRE, k_MBHSE, v_MBHSE))).view_as(q_MBHRE)
    # `counted` prompts are in the softmax, `used` ones keep their weight behind it.
    counted = None if prompts.exists_MP is None else prompts.exists_MP[:, None, None]
    used = None if visibility is None else visibility.used_MBRP
    if visibility is not None and visibility.mode == "pre":
        counted, used = _both(counted, used), None
    keys = k_MBHSE.shape[-2] + prompts.k_MBHPE.shape[-2]
    if backend is None and _is_small(q_MBHRE, v_MBHSE, keys):
        backend = "dense"
    if backend == "dense":
        return _attend_dense(q_MBHRE, k_MBHSE, v_MBHSE, prompts, counted, used)
    # Where every row sees all prompts there are no twins, only torch's fused attention over tokens
    # and prompts together, which is the fastest.
    if backend != "twin" and _is_plain(v_MBHSE) and visibility is not None:
        pk, pv = prompts.k_MBHPE, prompts.v_MBHPE
        out: Tensor = _LseAttention.apply(q_MBHRE, k_MBHSE, v_MBHSE, pk, pv, counted, used)
        return out
    return _attend_twin(q_MBHRE, k_MBHSE, v_MBHSE, prompts, counted, used)


def mix(q_NHRE: Tensor, k_NHSE: Tensor, v_NHSE: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention (N, H, R, E) without prompts.

    Args:
        q_NHRE: Queries, not yet scaled.
        k_NHSE: Keys.
        v_NHSE: Values.
        mask: Boolean, broadcast to (N, H, R, S), False for keys that a row does not see.
    """
    if not _is_small(q_NHRE, v_NHSE, k_NHSE.shape[-2]):
        return F.scaled_dot_product_attention(q_NHRE, k_NHSE, v_NHSE, attn_mask=mask)
    out: Tensor = _DenseAttention.apply(q_NHRE, k_NHSE, v_NHSE, mask, None)
    return out


def _is_small(q: Tensor, v: Tensor, keys: int) -> bool:
    """Whether spelling the formula out is the fastest."""
    return _is_plain(v) and (q.shape[-2] <= FEW_ROWS or keys <= FEW_KEYS)


def _is_plain(v: Tensor) -> bool:
    """Whether a pass is on a CPU and in full precision. Autocast may leave normalised queries and
    keys in float32, but never values, so they tell."""
    return v.device.type == "cpu" and v.dtype in (torch.float32, torch.float64)


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Both masks at once; None stands for True everywhere."""
    if a is None or b is None:
        return b if a is None else a
    return a & b


def _exists(prompts: PromptKeys) -> Tensor:
    """The mask of padding, spelled out where nothing is padded."""
    if prompts.exists_MP is not None:
        return prompts.exists_MP
    members, size = prompts.k_MBHPE.shape[0], prompts.k_MBHPE.shape[-2]
    return torch.ones(members, size, dtype=torch.bool, device=prompts.k_MBHPE.device)


def _attend_dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prompts: PromptKeys,
    counted: Tensor | None,
    used: Tensor | None,
) -> Tensor:
    """Softmax over tokens and prompts, then the columns not used are switched off."""
    k_all, v_all = _joined([k, prompts.k_MBHPE], q), _joined([v, prompts.v_MBHPE], q)
    masks = [None if mask is None else mask.unsqueeze(2) for mask in (counted, used)]
    out: Tensor = _DenseAttention.apply(q.to(v_all.dtype), k_all.to(v_all.dtype), v_all, *masks)
    return out


def _joined(parts: Sequence[Tensor], q_MBHRE: Tensor) -> Tensor:
    """Keys or values of tokens and prompts, one after the other, for every sample."""
    batch = q_MBHRE.shape[:2]
    return torch.cat([part.expand(*batch, -1, -1, -1) for part in parts], dim=-2)


def _attend_twin(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prompts: PromptKeys,
    counted: Tensor | None,
    used: Tensor | None,
) -> Tensor:
    """Fused attention in which a prompt not used is replaced by a twin: the same key, value 0.

    A row sees either the prompt or its twin, so the denominator is that of all prompts while those
    not used add nothing.
    """
    pk, pv = prompts.k_MBHPE, prompts.v_MBHPE
    keys, values = [k, pk], [v, pv]
    if used is not None:
        keys.append(pk)
        values.append(_constants(v.dtype, v.device)[0].expand_as(pv))
    k_all, v_all = (_joined(parts, q).flatten(0, 1) for parts in (keys, values))
    bias = _twin_bias(q, k.shape[-2], counted, used)
    out = F.scaled_dot_product_attention(q.flatten(0, 1), k_all, v_all, attn_mask=bias)
    return out.view_as(q)


def _twin_bias(
    q_MBHRE: Tensor, tokens: int, counted: Tensor | None, used: Tensor | None
) -> Tensor | None:
    """What is added to the scores (N, 1, R, S + P, or + 2 P with twins): 0, or -inf where a row
    does not see a column; None: every row sees all.

    Args:
        tokens: S.
        counted: As in `_DenseAttention`.
        used: Same; None: there are no twins.
    """
    zero, shown, hidden = _constants(q_MBHRE.dtype, q_MBHRE.device)
    batch, rows = q_MBHRE.shape[:2], q_MBHRE.shape[-2]
    bias = None
    if used is not None:  # a prompt beside its twin, of which a row sees one
        bias = torch.where(used.unsqueeze(-2), shown, hidden)
    if counted is not None:
        there = torch.where(counted.unsqueeze(-2), zero, hidden[0])
        bias = there if bias is None else bias + there
    if bias is None:
        return None
    seen = bias.flatten(-2).expand(*batch, rows, -1)
    return torch.cat([zero.expand(*batch, rows, tokens), seen], dim=-1).flatten(0, 1).unsqueeze(1)


@made_once
def _constants(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Zero (), and what is added to the scores of a prompt that is used and of its twin, and of one
    that is not: (0, -inf) and (-inf, 0), both (2, 1)."""
    with torch.inference_mode(False):  # else constants first made there could never be trained with
        pair = torch.tensor([[0.0], [float("-inf")]], dtype=dtype, device=device)
        return pair[0, 0], pair, pair.flip(0)


class _Context(Protocol):
    """What autograd carries from a forward to its backward pass."""

    saved_tensors: tuple[Any, ...]
    needs_input_grad: Sequence[bool]

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors; None stays None."""


class _DenseAttention(torch.autograd.Function):
    """The formula with its gradient, on batched products without a copy too many.

    q is (..., R, E), k and v are (..., S, E). The masks hold for the last columns and broadcast
    over the rest: `counted` is False for those not in the softmax, `used` for those switched off
    behind it.
    """

    @staticmethod
    def forward(
        ctx: _Context, q: Tensor, k: Tensor, v: Tensor, counted: Tensor | None, used: Tensor | None
    ) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):  # as the backward pass, which has none
            flat_q, flat_k, flat_v = (t.reshape(-1, *t.shape[-2:]) for t in (q, k, v))
            scores = _product(flat_q, flat_k.mT, q.shape[-1] ** -0.5)
            if counted is not None:  # the masks cover the last columns, those of the prompts
                columns = scores.view(*q.shape[:-1], -1)[..., -counted.shape[-1] :]
                columns.masked_fill_(~counted, float("-inf"))
            # In float32 at least, as torch's own softmax under autocast.
            weights = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))
            ctx.save_for_backward(flat_q, flat_k, flat_v, weights, used)
            kept = _switched(weights, used, q.shape).to(v.dtype)
            return torch.bmm(kept, flat_v).view(*q.shape[:-1], v.shape[-1])

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        q, k, v, weights, used = ctx.saved_tensors
        shape, scale = grad.shape, q.shape[-1] ** -0.5
        flat = grad.reshape(-1, *shape[-2:])
        grad_v = torch.bmm(_switched(weights, used, shape).to(v.dtype).mT, flat)
        # What is switched off behind the softmax gets no gradient, but its score still takes part
        # in the denominator.
        grad_kept = _switched(torch.bmm(flat, v.mT).to(weights.dtype), used, shape)
        grad_scores = torch.ops.aten._softmax_backward_data(
            grad_kept, weights, -1, weights.dtype
        ).to(q.dtype)
        grad_q = _product(grad_scores, k, scale) if ctx.needs_input_grad[0] else None
        grad_k = _product(grad_scores.mT, q, scale)
        return (
            None if grad_q is None else grad_q.view(*shape[:-1], -1),
            grad_k.view(*shape[:-2], *grad_k.shape[-2:]),
            grad_v.view(*shape[:-2], *grad_v.shape[-2:]),
            None,
            None,
        )


def _switched(weights: Tensor, used: Tensor | None, shape: Sequence[int]) -> Tensor:
    """Weights (N, R, S) with 0 in the last columns where these are not used."""
    if used is None:
        return weights
    kept = weights.clone()
    kept.view(*shape[:-1], -1)[..., -used.shape[-1] :].mul_(used)
    return kept


def _product(x: Tensor, y: Tensor, scale: float) -> Tensor:
    """scale * x @ y of batches of matrices, with the factor inside the product: no second pass over
    the attention map."""
    ignored = x.new_empty(()).expand(x.shape[0], x.shape[1], y.shape[2])
    return torch.baddbmm(ignored, x, y, beta=0, alpha=scale)


class _LseAttention(torch.autograd.Function):
    """Flash attention over the tokens, corrected for prompts through its log-sum-exp (CPU).

    With l the log-sum-exp of the token scores and s_p the prompt scores, Lam = log(e^l + sum e^s_p)
    normalises both: o = e^(l - Lam) o_tokens + sum_p m_p e^(s_p - Lam) v_p. The token part of the
    gradient is the flash kernel's own backward, given the final o and Lam.
    """

    @staticmethod
    def forward(
        ctx: _Context,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pk: Tensor,
        pv: Tensor,
        counted: Tensor | None,
        used: Tensor | None,
    ) -> Tensor:
        flat = [t.flatten(0, 1) for t in (q, k, v)]
        # The kernel behind torch's attention on a CPU, by its inner name: only that returns the
        # log-sum-exp.
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
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
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
        # Nothing before the first prompted block is trained: half of its backward pass is saved.
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
