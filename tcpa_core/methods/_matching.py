"""Matching tokens to prompt groups by cosine similarity with the groups' keys (TCPA).

The sequence is cut into stretches of tokens with one role; a `Rule` says which pools a stretch may
use and how many of their groups. `Matcher` chooses the groups of all stretches of a block.
"""

# Axes: M members, B samples, S tokens, T tokens of one stretch, G groups, K chosen groups,
# P prompt tokens, R stretches with a loss, D width.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tcpa_core.methods._layers import padding
from tcpa_core.methods._passes import Pass, Step
from tcpa_core.methods._pools import Pool, group_padding
from tcpa_core.methods._random import token_rows


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


def make_rules(
    roles: Sequence[str],
    pools: Sequence[Pool],
    top_k: Mapping[str, list[int]],
    *,
    split_roles: bool,
) -> list[Rule]:
    """Cut the sequence into stretches: prefix tokens in CLS role, without role, in image role.

    Args:
        roles: "cls", "none" or "image" of every prefix token, in order; image tokens follow.
        top_k: Groups per member that tokens of a role choose; empty: nothing is matched. Without
            `split_roles` all tokens choose as image tokens do, from both pools.
    """
    num_cls, num_image = roles.count("cls"), roles.count("image")
    stretches = {
        "cls": (0, num_cls),
        "none": (num_cls, len(roles) - num_image),
        "image": (len(roles) - num_image, None),
    }
    rules = []
    for role, (start, stop) in stretches.items():
        if start != stop:
            used = tuple(not split_roles or pool.role == role for pool in pools)
            choice = top_k.get(role if split_roles else "image", []) if any(used) else []
            rules.append(Rule(role, start, stop, used, choice))
    return rules


def prompts_by_role(
    rules: Sequence[Rule], pools: Sequence[Pool], length: int, device: torch.device
) -> Tensor:
    """Prompts (1, 1, S, P) that tokens use by their role alone.

    Args:
        length: S.
    """
    widths = [pool.width for pool in pools]
    visible = torch.zeros(1, 1, length, sum(widths), dtype=torch.bool, device=device)
    for rule in rules:
        for columns, used in zip(visible.split(widths, dim=-1), rule.pools, strict=True):
            columns[:, :, rule.start : rule.stop] = used
    return visible


@dataclass(frozen=True, slots=True)
class Similarity:
    """Products of tokens with unit keys; divided by the token's length they are cosines."""

    dots_MBSG: Tensor
    norms_MBS: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, tokens_MBSD: Tensor, keys_MGD: Tensor) -> "Similarity":
        """Compare all tokens with the keys of all pools."""
        # Half precision would decide between close groups by rounding.
        with torch.autocast(tokens_MBSD.device.type, enabled=False):
            dots = torch.bmm(tokens_MBSD.flatten(1, 2), keys_MGD.mT)
            norms = torch.linalg.vector_norm(tokens_MBSD, dim=-1).clamp_min_(1e-12)
        return cls(dots.unflatten(1, tokens_MBSD.shape[1:3]), norms)


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
    # All members take as many as the largest needs; the surplus of the others is dropped below.
    ranked = scores_MBTG.topk(max(top_k), dim=-1).indices
    within = padding(top_k, scores_MBTG.device)
    if within is None:
        chosen_MBTG.scatter_(-1, ranked, True)
        return ranked
    taken = within[:, None, None].expand_as(ranked)
    chosen_MBTG.scatter_(-1, ranked, taken)
    return ranked.masked_fill(~taken, -1)


def count_choices(ranked_MBTK: Tensor, groups: int) -> Tensor:
    """How often each group was chosen, (M, G).

    Args:
        ranked_MBTK: What `choose` returns.
        groups: G.
    """
    places = ranked_MBTK.flatten(1) + 1  # -1, which is no choice, goes to a column of its own
    counts = places.new_zeros(len(places), groups + 1)
    return counts.scatter_add_(1, places, torch.ones_like(places))[:, 1:]


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
        # The backward pass runs outside of the forward pass's autocast context.
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            return MatchingLoss._backward(ctx, *grads)

    @staticmethod
    def _backward(ctx: Any, grad_MR: Tensor) -> Any:
        tokens, keys, norms, chosen, cosines, stretches, slope = ctx.saved_tensors
        per_token = ((grad_MR * slope) @ stretches.mT)[:, None] / norms
        weights = (chosen * per_token.unsqueeze(-1)).flatten(1, 2)
        # Tokens need no gradient in the first block, nor with `detach_tokens`.
        grad_keys = grad_tokens = None
        if ctx.needs_input_grad[0]:
            along = per_token.mul_(cosines).div_(norms).unsqueeze(-1)
            grad_tokens = torch.baddbmm(
                (tokens * along).flatten(1, 2), weights, keys, beta=-1
            ).view_as(tokens)
        if ctx.needs_input_grad[1]:
            grad_keys = weights.mT @ tokens.flatten(1, 2)
        return grad_tokens, grad_keys, *[None] * 5


@dataclass(slots=True)
class Matches:
    """What the tokens of one pass have chosen so far."""

    run: Pass
    losses: list[Tensor] = field(default_factory=list)
    """Unweighted (M, R) per block."""
    groups: dict[str, list[Tensor]] = field(default_factory=dict)
    """Inspection only: chosen groups (M, B, T, K) per block, by role."""
    sums: Sequence[Tensor] = ()
    """What makes losses of summed cosines, see `MatchingLoss`; made in the first block."""


class Matcher:
    """Chooses the groups of every token of a block, for all members of a pack.

    Args:
        pools: The pools of a block, in the order of their keys.
        rules: Which of them the stretches of the sequence use.
        take_nearest: The most similar groups, else the least similar.
        mean_loss: Losses are means over tokens and chosen groups, else sums.
        random_epochs: First epochs in which groups are chosen at random, per member.
        depth: How many blocks choose.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        rules: Sequence[Rule],
        *,
        take_nearest: bool,
        mean_loss: bool,
        random_epochs: Sequence[int],
        depth: int,
    ) -> None:
        self._pools = pools
        self._rules = [rule for rule in rules if rule.top_k]
        self._judged = [rule for rule in self._rules if rule.role != "none"]
        self._take_nearest = take_nearest
        self._mean_loss = mean_loss
        self._random_epochs = random_epochs
        self._depth = depth
        self._marked: tuple[object, Tensor] | None = None

    @property
    def judged_roles(self) -> list[str]:
        """Roles of the stretches with a matching loss, in the order of R."""
        return [rule.role for rule in self._judged]

    def match(self, index: int, tokens_MBSD: Tensor, keys_MGD: Tensor, matches: Matches) -> Tensor:
        """Choose groups for every token, boolean (M, B, S, G), and note the matching losses.

        Args:
            index: The block.
            keys_MGD: Unit keys of all pools.
        """
        tokens_MBSD = tokens_MBSD.to(keys_MGD.dtype)
        similarity = Similarity.of(tokens_MBSD, keys_MGD)
        dots = similarity.dots_MBSG
        chosen = torch.zeros_like(dots, dtype=torch.bool)
        for rule in self._rules:
            first, pools = self._groups(rule)
            last = first + sum(max(pool.groups) for pool in pools)
            part = (..., slice(rule.start, rule.stop), slice(first, last))
            scores = dots[part] if self._take_nearest else -dots[part]
            exists = group_padding(pools, scores.device)
            scores = self._randomised(index, scores, rule, matches.run.step)
            ranked = choose(scores, exists, rule.top_k, chosen[part])
            if matches.run.inspect:
                matches.groups.setdefault(rule.role, []).append(ranked)
        if self._judged:
            # Made once per pass: each of these small tensors is a transfer to the device.
            if not matches.sums:
                matches.sums = self._sums(dots)
            with torch.autocast(dots.device.type, enabled=False):
                loss = MatchingLoss.apply(tokens_MBSD, keys_MGD, similarity, chosen, *matches.sums)
            matches.losses.append(loss)
        return chosen

    def _groups(self, rule: Rule) -> tuple[int, list[Pool]]:
        """The pools that a stretch uses, and the place of their first group among all."""
        first = 0 if rule.pools[0] else max(self._pools[0].groups)
        return first, [pool for pool, used in zip(self._pools, rule.pools, strict=True) if used]

    def _sums(self, dots_MBSG: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stretches (S, R), and offset and slope (M, R) of their losses."""
        _, samples, length, _ = dots_MBSG.shape
        stretches, offsets, slopes = [], [], []
        for rule in self._judged:
            inside = range(length)[rule.start : rule.stop]
            stretches.append([float(t in inside) for t in range(length)])
            counts = [len(inside) * k for k in rule.top_k]  # chosen pairs of one sample
            offsets.append([1.0 if self._mean_loss else float(count) for count in counts])
            slopes.append(
                [-1.0 / (samples * (count if self._mean_loss else 1)) for count in counts]
            )
        made = [dots_MBSG.new_tensor(rows).mT for rows in (stretches, offsets, slopes)]
        return made[0], made[1], made[2]

    def _randomised(self, index: int, scores: Tensor, rule: Rule, step: Step) -> Tensor:
        """Random scores for members in their first epochs."""
        random = [
            m
            for m, (epoch, limit) in enumerate(zip(step.epochs, self._random_epochs, strict=True))
            if step.training and epoch < limit
        ]
        if not random:
            return scores
        # Drawn pool by pool: with a pool's padding, which also stands in the middle, neighbours
        # would change the numbers of what is behind it.
        _, samples, count, _ = scores.shape
        rows = token_rows(step, samples, count, scores.device)
        drawn = [
            step.draws.uniform(
                f"tcpa.random_{rule.role}_groups.{pool.role}",
                rows,
                max(pool.groups),
                layers=self._depth,
                layer=index,
            )
            for pool, used in zip(self._pools, rule.pools, strict=True)
            if used
        ]
        draws = torch.cat(drawn, dim=-1).to(scores.dtype)
        if len(random) == len(self._random_epochs):
            return draws
        return torch.where(self._members(tuple(random), scores.device), draws, scores)

    def _members(self, numbers: tuple[int, ...], device: torch.device) -> Tensor:
        """True for some members, (M, 1, 1, 1); copied to the device once in an epoch."""
        if self._marked is None or self._marked[0] != (numbers, device):
            with torch.inference_mode(False):
                marks = [[[[m in numbers]]] for m in range(len(self._random_epochs))]
                self._marked = (numbers, device), torch.tensor(marks, device=device)
        return self._marked[1]
