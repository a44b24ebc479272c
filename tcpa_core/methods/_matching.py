"""Matching tokens to prompt groups by cosine similarity with the groups' keys (TCPA).

The sequence is cut into stretches of tokens with one role; a `Rule` says which pools a stretch may
use and how many of their groups. `Matcher` chooses the groups of all stretches of a block.
"""

# Axes: M members, B samples, S tokens, T tokens of one stretch, G groups, K chosen groups,
# P prompt tokens, R stretches with a loss, D width.

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tcpa_core.methods._layers import padding
from tcpa_core.methods._passes import Pass, Step
from tcpa_core.methods._pools import Pool
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


def count_choices(ranked_MBTK: Tensor, groups: int) -> Tensor:
    """How often each group was chosen, (M, G).

    Args:
        ranked_MBTK: Indices of groups, -1 where there is no choice.
        groups: G.
    """
    places = ranked_MBTK.flatten(1) + 1  # -1, which is no choice, goes to a column of its own
    counts = places.new_zeros(len(places), groups + 1)
    return counts.scatter_add_(1, places, torch.ones_like(places))[:, 1:]


@torch.no_grad()
def products(tokens_MBSD: Tensor, keys_MGD: Tensor) -> Tensor:
    """Products (M, B, S, G) of all tokens with the unit keys of all pools."""
    # Half precision would decide between close groups by rounding.
    with torch.autocast(tokens_MBSD.device.type, enabled=False):
        dots = torch.bmm(tokens_MBSD.flatten(1, 2), keys_MGD.mT)
    return dots.unflatten(1, tokens_MBSD.shape[1:3])


class _Compared(torch.autograd.Function):
    """What the matching loss of a block needs of every token, beside the tokens themselves.

    Of a token x these are the sum of its products with the keys of its groups, and |x|^2: with
    gradients g and h the token gets g sum_chosen key + 2 h x, a key sum_tokens g x.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens_MBSD: Tensor, keys_MGD: Tensor, dots_MBSG: Tensor, chosen_MBSG: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens, and sums and squares (M, B, S).

        Args:
            tokens_MBSD: What was matched, in the keys' type.
            keys_MGD: Unit keys of all pools.
            dots_MBSG: Their products.
            chosen_MBSG: Boolean.
        """
        ctx.save_for_backward(tokens_MBSD, keys_MGD, chosen_MBSG)
        ctx.set_materialize_grads(False)
        sums = (dots_MBSG * chosen_MBSG).sum(-1)
        squares = torch.linalg.vector_norm(tokens_MBSD, dim=-1).square_()
        # The block goes on with these tokens: what it sends back and what the loss sends back are
        # added up in the same kernel, where autograd would take one of its own.
        return tokens_MBSD.view_as(tokens_MBSD), sums, squares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        # The backward pass runs outside of the forward pass's autocast context.
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            return _Compared._backward(ctx, *grads)

    @staticmethod
    def _backward(
        ctx: Any, grad_MBSD: Tensor | None, sums_MBS: Tensor | None, squares_MBS: Tensor | None
    ) -> Any:
        tokens, keys, chosen = ctx.saved_tensors
        if sums_MBS is None or squares_MBS is None:  # no loss: lambda is 0 for all
            return grad_MBSD, None, None, None
        weights = (chosen * sums_MBS.unsqueeze(-1)).flatten(1, 2)
        # Tokens need no gradient in the first block, nor with `detach_tokens`.
        grad_keys = grad_tokens = None
        if ctx.needs_input_grad[0]:
            slope = squares_MBS.unsqueeze(-1)
            if grad_MBSD is None:
                grad_tokens = (tokens * slope).mul_(2)
            else:
                grad_tokens = torch.addcmul(grad_MBSD, tokens, slope, value=2)
            grad_tokens.flatten(1, 2).baddbmm_(weights, keys)
        if ctx.needs_input_grad[1]:
            grad_keys = weights.mT @ tokens.flatten(1, 2)
        return grad_tokens, grad_keys, None, None


@dataclass(slots=True)
class Matches:
    """What the tokens of one pass have chosen so far."""

    run: Pass
    compared: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Per block, of every token (M, B, S): products with the keys of its groups, summed, and the
    square of its length."""
    groups: dict[str, list[Tensor]] = field(default_factory=dict)
    """Inspection only: chosen groups (M, B, T, K) per block, by role; best first, -1 behind a
    member's own K."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """How tokens of a sequence choose; None: nothing is to be hidden."""

    hidden: Tensor | None
    """(M, 1, S, G): -inf where a token may not use a group, else 0."""
    taken: Tensor | None
    """(M, 1, S, K): whether a token takes its group of this rank."""
    ranks: int
    """K, the most groups that a token takes."""


@dataclass(frozen=True, slots=True)
class _Sums:
    """What makes losses of cosines summed over samples."""

    stretches_SR: Tensor
    """1 where a token belongs to a stretch, else 0."""
    offset_MR: Tensor
    slope_MR: Tensor


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
        # Made once: each of their tensors is a transfer to the device.
        self._choice_of: dict[Hashable, _Choice] = {}
        self._sums_of: dict[Hashable, _Sums] = {}

    @property
    def judged_roles(self) -> list[str]:
        """Roles of the stretches with a matching loss, in the order of R."""
        return [rule.role for rule in self._judged]

    def random_members(self, step: Step) -> tuple[int, ...]:
        """Members in the first epochs of their training, which choose at random."""
        limits = enumerate(zip(step.epochs, self._random_epochs, strict=True))
        return tuple(m for m, (epoch, limit) in limits if epoch < limit)

    def match(
        self, index: int, tokens_MBSD: Tensor, keys_MGD: Tensor, matches: Matches
    ) -> tuple[Tensor, Tensor]:
        """Choose groups for every token.

        Args:
            index: The block.
            keys_MGD: Unit keys of all pools.

        Returns:
            Chosen groups, boolean (M, B, S, G), and the tokens to go on with.
        """
        given = tokens_MBSD.to(keys_MGD.dtype)
        dots = products(given, keys_MGD)
        choice = self._choice(dots)
        scores = self._randomised(index, dots if self._take_nearest else -dots, matches.run.step)
        if choice.hidden is not None:
            scores = scores + choice.hidden
        # All tokens rank as many groups as one of them takes; the surplus of the others is dropped.
        ranked = scores.topk(choice.ranks, dim=-1).indices
        taken = True if choice.taken is None else choice.taken.expand_as(ranked)
        chosen = torch.zeros_like(dots, dtype=torch.bool).scatter_(-1, ranked, taken)
        if matches.run.inspect:
            self._note(ranked, matches)
        if not (self._judged and matches.run.penalised):
            return chosen, tokens_MBSD
        passed, sums, squares = _Compared.apply(given, keys_MGD, dots, chosen)
        matches.compared.append((sums, squares))
        # Tokens that need no gradient must not seem to need one: what is done to them would keep a
        # graph.
        goes_on = given is tokens_MBSD and tokens_MBSD.requires_grad
        return chosen, passed if goes_on else tokens_MBSD

    def losses(self, matches: Matches) -> Tensor | None:
        """Distance 1 - cosine between tokens and the keys of their groups: unweighted losses
        (L, M, R) of all blocks; None: nothing was matched."""
        if not matches.compared:
            return None
        sums, squares = (torch.stack(parts) for parts in zip(*matches.compared, strict=True))
        cosines_LMS = (sums / squares.clamp_min(1e-24).sqrt()).sum(2)
        of = self._sums(sums)
        with torch.autocast(sums.device.type, enabled=False):
            return torch.addcmul(of.offset_MR, cosines_LMS @ of.stretches_SR, of.slope_MR)

    def _groups(self, rule: Rule) -> tuple[int, list[Pool]]:
        """The pools that a stretch uses, and the place of their first group among all."""
        first = 0 if rule.pools[0] else max(self._pools[0].groups)
        return first, [pool for pool, used in zip(self._pools, rule.pools, strict=True) if used]

    def _columns(self, rule: Rule) -> slice:
        """Where the groups that a stretch uses stand among all."""
        first, pools = self._groups(rule)
        return slice(first, first + sum(max(pool.groups) for pool in pools))

    def _note(self, ranked_MBSK: Tensor, matches: Matches) -> None:
        """Keep which groups of its own pools a stretch has chosen."""
        for rule in self._rules:
            first, _ = self._groups(rule)
            part = ranked_MBSK[:, :, rule.start : rule.stop, : max(rule.top_k)] - first
            within = padding(rule.top_k, part.device)
            if within is not None:
                part = part.masked_fill(~within[:, None, None], -1)
            matches.groups.setdefault(rule.role, []).append(part)

    def _choice(self, dots_MBSG: Tensor) -> _Choice:
        """How the tokens of a sequence choose."""
        members, _, length, groups = dots_MBSG.shape
        key = (length, dots_MBSG.device, dots_MBSG.dtype)
        if key not in self._choice_of:
            ranks = max(max(rule.top_k) for rule in self._rules)
            usable = np.zeros((members, 1, length, groups), np.bool_)
            taken = np.zeros((members, 1, length, ranks), np.bool_)
            for rule in self._rules:
                first, pools = self._groups(rule)
                stretch = slice(rule.start, rule.stop)
                for m, count in enumerate(rule.top_k):
                    taken[m, :, stretch, :count] = True
                    start = first
                    for pool in pools:
                        usable[m, :, stretch, start : start + pool.groups[m]] = True
                        start += max(pool.groups)
            hidden = np.where(usable, 0.0, -np.inf)
            with torch.inference_mode(False):
                self._choice_of[key] = _Choice(
                    None if usable.all() else torch.from_numpy(hidden).to(dots_MBSG),
                    None if taken.all() else torch.from_numpy(taken).to(dots_MBSG.device),
                    ranks,
                )
        return self._choice_of[key]

    def _sums(self, sums_LMBS: Tensor) -> _Sums:
        """Stretches, and offset and slope of their losses."""
        _, _, samples, length = sums_LMBS.shape
        key = (samples, length, sums_LMBS.device, sums_LMBS.dtype)
        if key not in self._sums_of:
            stretches, offsets, slopes = [], [], []
            for rule in self._judged:
                inside = range(length)[rule.start : rule.stop]
                stretches.append([float(t in inside) for t in range(length)])
                counts = [len(inside) * k for k in rule.top_k]  # chosen pairs of one sample
                offsets.append([1.0 if self._mean_loss else float(count) for count in counts])
                slopes.append(
                    [-1.0 / (samples * (count if self._mean_loss else 1)) for count in counts]
                )
            with torch.inference_mode(False):
                made = [sums_LMBS.new_tensor(rows).mT for rows in (stretches, offsets, slopes)]
            self._sums_of[key] = _Sums(*made)
        return self._sums_of[key]

    def _randomised(self, index: int, scores: Tensor, step: Step) -> Tensor:
        """Random scores for members in their first epochs."""
        random = self.random_members(step) if step.training else ()
        if not random:
            return scores
        scores = scores.clone()
        everyone = len(random) == len(self._random_epochs)
        for rule in self._rules:
            part = scores[:, :, rule.start : rule.stop, self._columns(rule)]
            drawn = self._drawn(index, part, rule, step)
            if not everyone:
                drawn = torch.where(self._members(random, scores.device), drawn, part)
            part.copy_(drawn)
        return scores

    def _drawn(self, index: int, scores_MBTG: Tensor, rule: Rule, step: Step) -> Tensor:
        """Random scores of the tokens of a stretch."""
        # Drawn pool by pool: with a pool's padding, which also stands in the middle, neighbours
        # would change the numbers of what is behind it.
        _, samples, count, _ = scores_MBTG.shape
        rows = token_rows(step, samples, count, scores_MBTG.device)
        drawn = [
            step.draws.uniform(
                f"tcpa.random_{rule.role}_groups.{pool.role}",
                rows,
                max(pool.groups),
                layers=self._depth,
                layer=index,
            )
            for pool in self._groups(rule)[1]
        ]
        return torch.cat(drawn, dim=-1).to(scores_MBTG.dtype)

    def _members(self, numbers: tuple[int, ...], device: torch.device) -> Tensor:
        """True for some members, (M, 1, 1, 1); copied to the device once in an epoch."""
        if self._marked is None or self._marked[0] != (numbers, device):
            with torch.inference_mode(False):
                marks = [[[[m in numbers]]] for m in range(len(self._random_epochs))]
                self._marked = (numbers, device), torch.tensor(marks, device=device)
        return self._marked[1]
