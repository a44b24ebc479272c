"""Pools of prompt groups: how many prompts each member has, and which are padding (TCPA)."""

# Axes: M members, B samples, S tokens, G groups, J prompt tokens per group, P prompt tokens,
# D width.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tcpa_core.methods._layers import padding


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
        sizes = num_prompts(pools)
        # Stable, so that real prompts keep their order; it matters to a Fourier transform.
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


def make_scopes(pools: Sequence[Pool], device: torch.device, *, joint: bool) -> list[Scope]:
    """All pools together, or one by one."""
    scopes: list[Scope] = []
    start = 0
    for group in [pools] if joint else [[pool] for pool in pools]:
        scopes.append(Scope.of(group, start, device))
        start = scopes[-1].stop
    return scopes


def num_prompts(pools: Sequence[Pool]) -> list[int]:
    """Real prompt tokens of some pools, per member."""
    return [
        sum(pool.groups[m] * pool.lengths[m] for pool in pools) for m in range(len(pools[0].groups))
    ]


def prompt_padding(pools: Sequence[Pool], device: torch.device) -> Tensor | None:
    """Boolean (M, P of all pools), False at padding; None if there is none."""
    exists = torch.cat([pool.exists(device) for pool in pools], dim=-1)
    return None if set(num_prompts(pools)) == {exists.shape[1]} else exists


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


def prompts_of_groups(pools: Sequence[Pool], chosen_MBSG: Tensor) -> Tensor:
    """Prompts (M, B, S, P) of chosen groups (M, B, S, G of all pools)."""
    lengths = [max(pool.lengths) for pool in pools]
    # A group of one prompt token is its prompt.
    if max(lengths) == 1:
        return chosen_MBSG
    parts = chosen_MBSG.split([max(pool.groups) for pool in pools], dim=-1)
    return torch.cat(
        [p.repeat_interleave(n, dim=-1) for p, n in zip(parts, lengths, strict=True)], dim=-1
    )
