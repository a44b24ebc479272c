"""One optimiser for all members of a pack, over one flat block of memory.

Each member keeps its own learning rate, weight decay, clipping, moments and step count, so that its
trajectory is the one it would have alone.
"""

# Axes: S steps, M members, N columns of the flat block.

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from tcpa_core.methods.base import MemberState, ParamSpec
from tcpa_core.model.head import HEADS
from tcpa_core.settings import OptimConfig

Moments = dict[str, Tensor]
"""Optimiser state of one member: "exp_avg/head.weight" -> tensor of the unpadded shape."""

_SLOTS = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum",)}
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8
_ALIGNMENT = 16
"""Columns that a tensor begins at a multiple of, so that kernels read it in whole cache lines."""


def lr_at(config: OptimConfig, step: int, num_steps: int) -> float:
    """Learning rate of one step: linear warm-up, then cosine to 0, constant or poly.

    Args:
        step: 0-based step of the trial.
        num_steps: Steps of the whole trial; the warm-up is a share of it.

    Source:
        poly: mmcv 1.3, runner/hooks/lr_updater.py, PolyLrUpdaterHook.
    """
    warmup = round(config.warmup_fraction * num_steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "poly":
        return config.lr * _poly(config, step, num_steps) + floor_at(config, step, num_steps)
    progress = (step - warmup) / max(1, num_steps - warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def floor_at(config: OptimConfig, step: int, num_steps: int) -> float:
    """The part of `lr_at` that a tensor's own factor does not scale: what poly's end adds.

    A tensor with factor f falls from f lr to min_lr itself, so its rate is f (lr_at - floor_at) +
    floor_at.
    """
    if config.schedule != "poly" or step < round(config.warmup_fraction * num_steps):
        return 0.0
    return config.min_lr * (1 - _poly(config, step, num_steps))


def _poly(config: OptimConfig, step: int, num_steps: int) -> float:
    """Share of the peak behind the warm-up."""
    warmup = round(config.warmup_fraction * num_steps)
    progress = (step - warmup) / max(1, num_steps - warmup)
    return float((1 - progress) ** config.poly_power)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What tensors have in common that are updated as one, a number per member each."""

    lr_scale: tuple[float, ...]
    decay: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Span:
    """Neighbouring tensors of one kind, all with a gradient or all without."""

    kind: int
    names: Sequence[str]
    values: Tensor
    """Their part of `PackOptimizer.values`."""


class PackOptimizer:
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101) or SGD with momentum over stacked tensors.

    Numbers equal `torch.optim.AdamW` and `torch.optim.SGD` run per member. Zero padding stays zero.
    The rates of an epoch are copied to the device at once (`schedule`); a step then reads and
    copies nothing, and starts a dozen kernels per kind of tensor, however many tensors there are.

    Args:
        params: Stacked trainable tensors [M, ...] by name, of one number format; from now on they
            are views of `values`.
        configs: Settings of the M members; all have the same `name`.
        moments: Saved state of each member; {} starts a member fresh.
        specs: Unpadded shape, learning-rate factor and decay of each tensor, per member.
        steps: Optimiser steps each member has already made.
    """

    values: Tensor
    """(1 + slots, M, N): the parameters, then the moments (`slots`), of all members. A member is
    one row of each; `member_of` reads a copy of it."""
    slots: tuple[str, ...]
    """Names of the moments, in order: "exp_avg" and "exp_avg_sq", or "momentum"."""
    columns: Mapping[str, slice]
    """Which columns a tensor has, in the order of its stacked shape [M, ...] without M; between two
    tensors there may be columns of zeros."""

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        configs: Sequence[OptimConfig],
        moments: Sequence[Moments],
        specs: Sequence[Mapping[str, ParamSpec]],
        steps: Sequence[int],
    ) -> None:
        self._configs = list(configs)
        self._specs = list(specs)
        self._steps = list(steps)
        self._rule = configs[0].rule
        self.slots = _SLOTS[self._rule]
        kinds = {name: self._kind_of(name) for name in params}
        self._kinds = list(dict.fromkeys(kinds.values()))
        self._kind = {name: self._kinds.index(kind) for name, kind in kinds.items()}
        # Tensors of a kind side by side, so that one update takes them all.
        self._params = {name: params[name] for name in sorted(params, key=self._kind.__getitem__)}
        self.columns, width = _columns(self._params)
        like = next(iter(self._params.values()))
        self.values = like.new_zeros(1 + len(self.slots), len(configs), width, requires_grad=False)
        for name, param in self._params.items():
            param.data = self.values[0, :, self.columns[name]].view_as(param).copy_(param.detach())
        # Members at different steps may share a pack; a fresh one has the zeros from above.
        for m, saved in enumerate(moments):
            _, stored = self.member_of(self.values[:, m], m)
            for key, value in saved.items():
                stored[key].copy_(value)
        self._clip = like.new_tensor([[c.clip_norm or math.inf] for c in configs])
        self._clips = any(c.clip_norm for c in configs)
        self._gap = like.new_zeros(len(configs), _ALIGNMENT)
        self._found: dict[tuple[bool, ...], list[_Span]] = {}
        self._scheduled: Sequence[Tensor] = ()
        self._now = like.new_empty(1 + 2 * len(self._kinds), len(configs), 1)

    def member_of(self, rows: Iterable[Tensor], m: int) -> tuple[MemberState, Moments]:
        """Parameters and moments of one member, without padding, as views.

        Args:
            rows: `values[:, m]` or a copy of it, 1 + slots of (N,).
            m: The member.
        """
        found = []
        for row in rows:
            tensors = {}
            for name, columns in self.columns.items():
                stacked = row[columns].view(self._params[name].shape[1:])
                tensors[name] = stacked[tuple(slice(0, n) for n in self._specs[m][name].shape)]
            found.append(tensors)
        state, *rest = found
        slots = zip(self.slots, rest, strict=True)
        return state, {f"{slot}/{name}": t for slot, part in slots for name, t in part.items()}

    def schedule(
        self, rates: Sequence[Sequence[float]], floors: Sequence[Sequence[float]] = ()
    ) -> None:
        """Bring to the device, in one copy, all numbers of the next steps.

        Args:
            rates: Learning rate of each member in each of these steps, [S][M].
            floors: The part of each that the factor of a tensor does not scale; (): none.
        """
        lr_SM = torch.tensor(rates)
        rows_SM = self._numbers(lr_SM, torch.tensor(floors) if floors else lr_SM.new_zeros(()))
        rows_SRM1 = torch.stack(rows_SM, dim=1).to(self.values.dtype).unsqueeze(-1)
        self._scheduled = rows_SRM1.to(self.values.device).unbind()
        self._next = 0

    def step(self) -> None:
        """Make the next scheduled step: `advance`, then `update`."""
        self.advance()
        self.update()

    def advance(self) -> None:
        """Go on to the next scheduled step, which `update` then makes.

        Raises:
            IndexError: There was one step more than `schedule` was told of.
        """
        # Each step reads its numbers at the same place.
        self._now.copy_(self._scheduled[self._next])
        self._next += 1
        self._steps = [n + 1 for n in self._steps]

    @torch.no_grad()
    def update(self) -> None:
        """Update every member at the rate of the present step, and use the gradients up.

        A tensor without gradient stays as it is, not decayed either. Nothing here depends on the
        step's number but what `advance` has put into its place, so that it can be recorded.
        """
        spans = self._spans(tuple(p.grad is not None for p in self._params.values()))
        grads = [self._take_gradient(span) for span in spans]
        self._clip_gradients(grads)
        update = self._adamw if self._rule == "adamw" else self._sgd
        for span, grad in zip(spans, grads, strict=True):
            update(span, grad)

    def _numbers(self, lr_SM: Tensor, floor_SM: Tensor) -> list[Tensor]:
        """What the updates multiply with, each (S, M): one for all kinds, then two of each kind."""
        dtype = self.values.dtype
        rates = [
            (lr_SM - floor_SM) * torch.tensor(kind.lr_scale) + floor_SM for kind in self._kinds
        ]
        decays = [torch.tensor(kind.decay) for kind in self._kinds]
        if self._rule == "sgd":
            momentum = torch.tensor([c.momentum for c in self._configs]).expand_as(lr_SM)
            pairs = zip(decays, rates, strict=True)
            return [momentum, *(x.expand_as(lr_SM) for pair in pairs for x in pair)]
        # In float64: in float32, 1 - 0.999^t has lost three of its seven digits in the first steps.
        bias1, bias2 = (
            torch.tensor(
                [[1 - beta ** (n + s + 1) for n in self._steps] for s in range(len(lr_SM))],
                dtype=torch.float64,
            )
            for beta in (_BETA1, _BETA2)
        )
        found = [bias2.sqrt().to(dtype)]
        for lr, decay in zip(rates, decays, strict=True):
            found += [1 - (lr * decay).to(dtype), lr.to(dtype) / bias1.to(dtype)]
        return found

    def _adamw(self, span: _Span, grad_MN: Tensor) -> None:
        param, mean, square = span.values
        root, keep, rate = self._numbers_of(span)
        param.mul_(keep)
        mean.lerp_(grad_MN, 1 - _BETA1)
        square.mul_(_BETA2).addcmul_(grad_MN, grad_MN, value=1 - _BETA2)
        # In the gradient's own memory, which nobody reads any more.
        denominator = torch.sqrt(square, out=grad_MN).div_(root).add_(_EPS)
        param.sub_((rate * mean).div_(denominator))

    def _sgd(self, span: _Span, grad_MN: Tensor) -> None:
        param, buffer = span.values
        momentum, decay, rate = self._numbers_of(span)
        buffer.mul_(momentum).add_(grad_MN.add_(decay * param))
        param.sub_(rate * buffer)

    def _numbers_of(self, span: _Span) -> tuple[Tensor, Tensor, Tensor]:
        """Those of `_numbers` that a span needs in this step, each (M, 1)."""
        place = 1 + 2 * span.kind
        return self._now[0], self._now[place], self._now[place + 1]

    def _clip_gradients(self, grads: Sequence[Tensor]) -> None:
        """Scale each member's gradients so that their joint norm is at most its `clip_norm`."""
        if not self._clips:
            return
        norms = torch.stack([torch.linalg.vector_norm(g, dim=1, keepdim=True) for g in grads])
        # 1e-6 is that of torch.nn.utils.clip_grad_norm_.
        scale_M1 = (self._clip / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(scale_M1)

    def _take_gradient(self, span: _Span) -> Tensor:
        """The gradients of a span in the columns of its values, (M, n)."""
        parts = []
        for name in span.names:
            param = self._params[name]
            assert param.grad is not None
            parts.append(param.grad.flatten(1))
            if gap := -parts[-1].shape[1] % _ALIGNMENT:
                parts.append(self._gap[:, :gap])
            param.grad = None
        return torch.cat(parts, dim=1)

    def _spans(self, has_grad: tuple[bool, ...]) -> list[_Span]:
        """The tensors with a gradient in as few spans as possible."""
        if has_grad not in self._found:
            self._found[has_grad] = []
            keys = zip(self._params, has_grad, strict=True)
            for (kind, has), group in groupby(keys, lambda k: (self._kind[k[0]], k[1])):
                if has:
                    names = [name for name, _ in group]
                    start, stop = self.columns[names[0]].start, self.columns[names[-1]].stop
                    part = self.values[:, :, start : stop + -stop % _ALIGNMENT]
                    self._found[has_grad].append(_Span(kind, names, part))
        return self._found[has_grad]

    def _kind_of(self, name: str) -> _Kind:
        members = [(c, specs[name]) for c, specs in zip(self._configs, self._specs, strict=True)]
        is_of_head = name.partition(".")[0] in HEADS
        scales = (s.lr_scale * (c.head_lr if is_of_head else 1.0) for c, s in members)
        decays = (c.weight_decay if s.decay else 0.0 for c, s in members)
        return _Kind(tuple(scales), tuple(decays))


def _columns(params: Mapping[str, Tensor]) -> tuple[dict[str, slice], int]:
    """Columns of each tensor [M, ...], and of the block."""
    columns, width = {}, 0
    for name, param in params.items():
        columns[name] = slice(width, width + param[0].numel())
        width += param[0].numel() + -param[0].numel() % _ALIGNMENT
    return columns, width
