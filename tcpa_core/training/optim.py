"""One optimiser for all members of a pack: vectorised over the leading member axis.

Each member keeps its own learning rate, weight decay, clipping, moments and step count, so that its
trajectory is the one it would have alone.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tcpa_core.methods.base import ParamSpec
from tcpa_core.settings import OptimConfig

Moments = dict[str, Tensor]
"""Optimiser state of one member: "exp_avg/head.weight" -> tensor of the unpadded shape."""

_SLOTS = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum",)}


def lr_at(config: OptimConfig, step: int, num_steps: int) -> float:
    """Learning rate of one step: linear warm-up, then cosine to 0 or constant.

    Args:
        step: 0-based step of the trial.
        num_steps: Steps of the whole trial; the warm-up is a share of it.
    """
    warmup = round(config.warmup_fraction * num_steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    progress = (step - warmup) / max(1, num_steps - warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


class PackOptimizer:
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101) or SGD with momentum over stacked tensors.

    Numbers equal `torch.optim.AdamW` and `torch.optim.SGD` run per member. Zero padding stays zero.

    Args:
        params: Stacked trainable tensors [M, ...] by name.
        configs: Settings of the M members; all have the same `name`.
        moments: Saved state of each member; {} starts a member fresh.
        specs: Unpadded shape, learning-rate factor and decay of each tensor, per member.
        steps: Optimiser steps each member has already made.
    """

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        configs: Sequence[OptimConfig],
        moments: Sequence[Moments],
        specs: Sequence[Mapping[str, ParamSpec]],
        steps: Sequence[int],
    ) -> None:
        self._params = dict(params)
        self._configs = list(configs)
        self._specs = list(specs)
        self._steps = list(steps)
        device = next(iter(self._params.values())).device
        self._decay = {
            name: torch.tensor(
                [
                    c.weight_decay if s[name].decay else 0.0
                    for c, s in zip(configs, specs, strict=True)
                ],
                device=device,
            )
            for name in self._params
        }
        self._lr_scale = {
            name: torch.tensor([s[name].lr_scale for s in specs], device=device)
            for name in self._params
        }
        self._clip = torch.tensor([c.clip_norm or math.inf for c in configs], device=device)
        self._clips = any(c.clip_norm for c in configs)
        self._name = configs[0].rule
        self._slots = {
            f"{slot}/{name}": torch.zeros_like(param, requires_grad=False)
            for slot in _SLOTS[self._name]
            for name, param in self._params.items()
        }
        # Members at different steps may share a pack; a fresh one has the zeros from above.
        for m, saved in enumerate(moments):
            for key, value in saved.items():
                self._region(key, m).copy_(value)

    def moments(self, m: int) -> Moments:
        """Copy of one member's state, without padding, on the CPU."""
        return {key: self._region(key, m).to("cpu", copy=True) for key in self._slots}

    @torch.no_grad()
    def step(self, lrs: Sequence[float]) -> None:
        """Update every member with its own learning rate from the gradients of `params`."""
        lr = torch.tensor(lrs, device=self._clip.device)
        self._clip_gradients()
        self._steps = [s + 1 for s in self._steps]
        update = self._adamw if self._name == "adamw" else self._sgd
        for name, param in self._params.items():
            if param.grad is not None:
                update(name, param, param.grad, lr * self._lr_scale[name])

    def zero_grad(self) -> None:
        """Drop all gradients; a tensor that the next step does not use is then not decayed."""
        for param in self._params.values():
            param.grad = None

    def _adamw(self, name: str, param: Tensor, grad: Tensor, lr: Tensor) -> None:
        beta1, beta2, eps = 0.9, 0.999, 1e-8
        mean, square = self._slots[f"exp_avg/{name}"], self._slots[f"exp_avg_sq/{name}"]
        # In float64, as torch computes it with Python's numbers: in float32, 1 - 0.999^t has lost
        # three of its seven digits in the first steps.
        done = torch.tensor(self._steps, device=param.device, dtype=torch.float64)
        correction1 = _column((1 - beta1**done).to(param.dtype), param)
        correction2 = _column((1 - beta2**done).sqrt().to(param.dtype), param)
        param.mul_(1 - _column(lr * self._decay[name], param))
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        denominator = (square.sqrt() / correction2).add_(eps)
        param.sub_(_column(lr, param) / correction1 * mean / denominator)

    def _sgd(self, name: str, param: Tensor, grad: Tensor, lr: Tensor) -> None:
        momentum = _column(
            torch.tensor([c.momentum for c in self._configs], device=param.device), param
        )
        buffer = self._slots[f"momentum/{name}"]
        buffer.mul_(momentum).add_(grad + _column(self._decay[name], param) * param)
        param.sub_(_column(lr, param) * buffer)

    def _clip_gradients(self) -> None:
        """Scale each member's gradients so that their joint norm is at most its `clip_norm`."""
        if not self._clips:
            return
        grads = [p.grad for p in self._params.values() if p.grad is not None]
        square = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0)
        # 1e-6 is that of torch.nn.utils.clip_grad_norm_.
        scale = (self._clip / (square.sqrt() + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(_column(scale, grad))

    def _region(self, key: str, m: int) -> Tensor:
        shape = self._specs[m][key.split("/", 1)[1]].shape
        return self._slots[key][m][tuple(slice(0, n) for n in shape)]


def _column(values: Tensor, like: Tensor) -> Tensor:
    """[M] -> [M, 1, ...] that broadcasts against a stacked tensor."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
