"""Matching tokens to prompt groups by cosine similarity with the groups' keys (TCPA)."""

# Axes: M members, B samples, S tokens, T tokens of one stretch, G groups, K chosen groups,
# J prompt tokens per group, D width.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
class Choice:
    """Groups chosen by the tokens of one stretch."""

    chosen: Tensor
    """Boolean (M, B, T, G)."""
    ranked: Tensor
    """Indices (M, B, T, K), best first; -1 behind a member's own K."""


class Similarity:
    """Products of tokens with unit keys; divided by the token's length they are cosines.

    Computed in float32 at least.

    Args:
        tokens_MBSD: What is matched.
        keys_MGD: Unit keys of all pools.
    """

    def __init__(self, tokens_MBSD: Tensor, keys_MGD: Tensor) -> None:
        with torch.autocast(tokens_MBSD.device.type, enabled=False):
            tokens = tokens_MBSD.to(keys_MGD.dtype)
            dots = torch.bmm(tokens.flatten(1, 2), keys_MGD.mT)
            self._dots = dots.unflatten(1, tokens.shape[1:3])
            self._norms = tokens.norm(dim=-1).clamp_min(1e-12)

    def part(self, start: int, stop: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Products (M, B, T, G) and token lengths (M, B, T) of some tokens and groups."""
        dots = self._dots[:, :, start:stop, first : first + count]
        return dots, self._norms[:, :, start:stop]


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


def choose(scores_MBTG: Tensor, exists_MG: Tensor | None, top_k: Sequence[int]) -> Choice:
    """Take the groups with the highest scores, per token; member m takes top_k[m] of them."""
    if exists_MG is not None:
        scores_MBTG = scores_MBTG.masked_fill(~exists_MG[:, None, None], float("-inf"))
    ranked = scores_MBTG.topk(max(top_k), dim=-1).indices
    chosen = torch.zeros_like(scores_MBTG, dtype=torch.bool)
    within = padding(top_k, scores_MBTG.device)
    if within is None:
        return Choice(chosen.scatter_(-1, ranked, True), ranked)
    taken = within[:, None, None].expand_as(ranked)
    return Choice(chosen.scatter_(-1, ranked, taken), ranked.masked_fill(~taken, -1))


def matching_loss(
    dots_MBTG: Tensor,
    norms_MBT: Tensor,
    chosen_MBTG: Tensor,
    top_k: Sequence[int],
    *,
    mean: bool,
) -> Tensor:
    """Distance 1 - cosine between tokens and the keys of their groups, per member (M,).

    Args:
        mean: Average over tokens and groups, else sum; over the batch always the mean.
    """
    picked = torch.where(chosen_MBTG, dots_MBTG, dots_MBTG.new_zeros(())).sum(-1)
    counts = dots_MBTG.new_tensor(list(top_k))
    distance = counts[:, None, None] - picked / norms_MBT
    per_token = distance.mean(dim=(1, 2))
    return per_token / counts if mean else per_token * dots_MBTG.shape[2]
