"""Matching tokens to prompt groups by cosine similarity with the groups' keys (TCPA)."""

# Axes: M members, B samples, S tokens, T tokens of one stretch, G groups, K chosen groups,
# J prompt tokens per group, P prompt tokens, R stretches, D width.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tcpa_core.methods.base import padding


@dataclass(frozen=True, slots=True)
class Pool:
    """Sizes of one pool, per member."""

    role: str
    groups: list[int]
    lengths: list[int]
    """Prompt tokens per group."""

    @property
    def width(self) -> int:
        """Prompt tokens with padding."""
        return max(self.groups) * max(self.lengths)

    def exists(self, device: torch.device) -> Tensor:
        """Boolean (M, padded G * J), False at padding of either axis."""
        groups, lengths = (
            torch.arange(max(sizes), device=device) < torch.tensor(sizes, device=device)[:, None]
            for sizes in (self.groups, self.lengths)
        )
        return (groups[:, :, None] & lengths[:, None, :]).flatten(1)


@dataclass(frozen=True, slots=True)
class Scope:
    """Neighbouring pools whose prompts are changed as one matrix."""

    start: int
    stop: int
    """Place of their prompts among those of all pools."""
    sizes: list[int]
    """Real prompts per member."""
    order_MP: Tensor | None
    """Places of each member's real prompts, then of the padding; None: no padding."""

    @classmethod
    def of(cls, pools: Sequence[Pool], start: int, device: torch.device) -> "Scope":
        """The scope of some pools whose first prompt has the place `start`."""
        exists = torch.cat([pool.exists(device) for pool in pools], dim=-1)
        sizes = [
            sum(pool.groups[m] * pool.lengths[m] for pool in pools)
            for m in range(len(pools[0].groups))
        ]
        padded = sizes != [exists.shape[1]] * len(sizes)
        order = exists.int().argsort(dim=-1, descending=True, stable=True) if padded else None
        return cls(start, start + exists.shape[1], sizes, order)

    def gather(self, prompts_MBPD: Tensor) -> Tensor:
        """Bring each member's real prompts to the front."""
        return prompts_MBPD if self.order_MP is None else _take(prompts_MBPD, self.order_MP)

    def spread(self, prompts_MBPD: Tensor) -> Tensor:
        """Undo `gather`."""
        if self.order_MP is None:
            return prompts_MBPD
        return _take(prompts_MBPD, self.order_MP.argsort(dim=-1))


def _take(prompts_MBPD: Tensor, places_MP: Tensor) -> Tensor:
    return prompts_MBPD.gather(2, places_MP[:, None, :, None].expand_as(prompts_MBPD))


@dataclass(frozen=True, slots=True)
class Rule:
    """How the tokens of one stretch of the sequence choose prompts."""

    role: str
    start: int
    stop: int | None
    """None: to the end."""
    pools: tuple[bool, ...]
    """Which pools they use."""
    top_k: list[int]
    """Groups per member; empty: all groups of these pools."""


@dataclass(frozen=True, slots=True)
class Similarity:
    """Products of tokens with unit keys; divided by the token's length they are cosines."""

    dots_MBSG: Tensor
    norms_MBS: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, tokens_MBSD: Tensor, keys_MGD: Tensor) -> "Similarity":
        """Compare all tokens with the keys of all pools."""
        with torch.autocast(tokens_MBSD.device.type, enabled=False):
            dots = torch.bmm(tokens_MBSD.flatten(1, 2), keys_MGD.mT)
            norms = torch.linalg.vector_norm(tokens_MBSD, dim=-1).clamp_min_(1e-12)
        return cls(dots.unflatten(1, tokens_MBSD.shape[1:3]), norms)


def group_padding(pools: Sequence[Pool], device: torch.device) -> Tensor | None:
    """Boolean (M, G of all pools), False at padding; None if there is none."""
    parts = [padding(pool.groups, device) for pool in pools]
    if all(part is None for part in parts):
        return None
    full = [
        torch.ones(len(pool.groups), max(pool.groups), dtype=torch.bool, device=device)
        if part is None
        else part
        for pool, part in zip(pools, parts, strict=True)
    ]
    return torch.cat(full, dim=-1)


def choose(
    scores_MBTG: Tensor, exists_MG: Tensor | None, top_k: Sequence[int], chosen_MBTG: Tensor
) -> Tensor:
    """Take the groups with the highest scores, per token; member m takes top_k[m] of them.

    Args:
        chosen_MBTG: All False; set to True where a token takes a group.

    Returns:
        Indices (M, B, T, K), best first; -1 behind a member's own K.
    """
    if exists_MG is not None:
        scores_MBTG = scores_MBTG.masked_fill(~exists_MG[:, None, None], float("-inf"))
    ranked = scores_MBTG.topk(max(top_k), dim=-1).indices
    within = padding(top_k, scores_MBTG.device)
    if within is None:
        chosen_MBTG.scatter_(-1, ranked, True)
        return ranked
    taken = within[:, None, None].expand_as(ranked)
    chosen_MBTG.scatter_(-1, ranked, taken)
    return ranked.masked_fill(~taken, -1)


class MatchingLoss(torch.autograd.Function):
    """Distance 1 - cosine between tokens and the keys of their groups, per member and stretch.

    With g the slope of a stretch times the loss's own gradient, a token x of length |x| gets
    g (sum_chosen key - x sum_chosen cos / |x|) / |x|, and a key g sum_chosen x / |x|.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tokens_MBSD: Tensor,
        keys_MGD: Tensor,
        similarity: Similarity,
        chosen_MBSG: Tensor,
        stretches_SR: Tensor,
        offset_MR: Tensor,
        slope_MR: Tensor,
    ) -> Tensor:
        """Loss (M, R): offset + slope * (sum of the cosines of all chosen pairs).

        Args:
            tokens_MBSD: What was matched, in the keys' type.
            keys_MGD: Unit keys of all pools.
            chosen_MBSG: Boolean.
            stretches_SR: 1 where a token belongs to a stretch, else 0.
        """
        cosines = (similarity.dots_MBSG * chosen_MBSG).sum(-1).div_(similarity.norms_MBS)
        ctx.save_for_backward(
            tokens_MBSD,
            keys_MGD,
            similarity.norms_MBS,
            chosen_MBSG,
            cosines,
            stretches_SR,
            slope_MR,
        )
        return torch.addcmul(offset_MR, cosines.sum(1) @ stretches_SR, slope_MR)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            return MatchingLoss._backward(ctx, *grads)

    @staticmethod
    def _backward(ctx: Any, grad_MR: Tensor) -> Any:
        tokens, keys, norms, chosen, cosines, stretches, slope = ctx.saved_tensors
        per_token = ((grad_MR * slope) @ stretches.mT)[:, None] / norms
        weights = (chosen * per_token.unsqueeze(-1)).flatten(1, 2)
        grad_keys = grad_tokens = None
        if ctx.needs_input_grad[0]:
            along = per_token.mul_(cosines).div_(norms).unsqueeze(-1)
            grad_tokens = torch.baddbmm(
                (tokens * along).flatten(1, 2), weights, keys, beta=-1
            ).view_as(tokens)
        if ctx.needs_input_grad[1]:
            grad_keys = weights.mT @ tokens.flatten(1, 2)
        return grad_tokens, grad_keys, *[None] * 5
