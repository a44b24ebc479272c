"""Pools of prompt groups: how many prompts each member has, and which are padding (TCPA)."""

# Axes: M members, B samples, S tokens, G groups, J prompt tokens per group, P prompt tokens,
# D width.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tcpa_core.made_once import made_once


@dataclass(frozen=True, slots=True)
class Pool:
    """Sizes of one pool, per member."""

    role: str
    groups: tuple[int, ...]
    lengths: tuple[int, ...]
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
    back_MP: Tensor | None
    """The order that undoes it."""

    @classmethod
    def of(cls, pools: Sequence[Pool], start: int, device: torch.device) -> "Scope":
        """The scope of some pools whose first prompt has the place `start`."""
        sizes, stop = num_prompts(pools), start + sum(pool.width for pool in pools)
        exists = prompt_padding(pools, device)
        if exists is None:
            return cls(start, stop, sizes, None, None)
        # Stable, so that real prompts keep their order; it matters to a Fourier transform.
        order = exists.int().argsort(dim=-1, descending=True, stable=True)
        return cls(start, stop, sizes, order, order.argsort(dim=-1))

    def gather(self, prompts_MBPD: Tensor) -> Tensor:
        """Bring each member's real prompts to the front."""
        return prompts_MBPD if self.order_MP is None else _take(prompts_MBPD, self.order_MP)

    def spread(self, prompts_MBPD: Tensor) -> Tensor:
        """Undo `gather`."""
        return prompts_MBPD if self.back_MP is None else _take(prompts_MBPD, self.back_MP)


def _take(prompts_MBPD: Tensor, places_MP: Tensor) -> Tensor:
    return prompts_MBPD.gather(2, places_MP[:, None, :, None].expand_as(prompts_MBPD))


def make_scopes(pools: Sequence[Pool], device: torch.device, *, joint: bool) -> Sequence[Scope]:
    """All pools together, or one by one."""
    return _make_scopes(tuple(pools), device, joint)


@made_once
def _make_scopes(pools: tuple[Pool, ...], device: torch.device, joint: bool) -> Sequence[Scope]:
    scopes: list[Scope] = []
    start = 0
    with torch.inference_mode(False):
        for group in [pools] if joint else [(pool,) for pool in pools]:
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
    full = sum(pool.width for pool in pools)
    return None if set(num_prompts(pools)) == {full} else _prompt_padding(tuple(pools), device)


@made_once
def _prompt_padding(pools: tuple[Pool, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.cat([pool.exists(device) for pool in pools], dim=-1)


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
