"""Layers that each member of a pack has with weights of its own, and their randomness."""

# Axes: M members, B samples, S tokens, I inputs, O outputs, R rank, F features.

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from tcpa_core.methods.base import Step, sample_bits

Init = Callable[[Tensor, Generator], object]
"""Fills a tensor in place."""


def constant(value: float) -> Init:
    """Initialise with one number."""
    return lambda tensor, generator: tensor.fill_(value)


def normal(mean: float, std: float) -> Init:
    """Initialise with N(mean, std^2)."""
    return lambda tensor, generator: tensor.normal_(mean, std, generator=generator)


def member_linear(x_M_I: Tensor, weight_MOI: Tensor, bias_MO: Tensor | None = None) -> Tensor:
    """Apply each member's own linear layer to its own samples (M, ..., I)."""
    flat = x_M_I.flatten(1, -2)
    if bias_MO is None:
        out = torch.bmm(flat, weight_MOI.mT)
    else:
        out = torch.baddbmm(bias_MO[:, None], flat, weight_MOI.mT)
    return out.view(*x_M_I.shape[:-1], -1)


def drop_factors(
    shape: Sequence[int],
    sizes: Sequence[int],
    rates: Sequence[float],
    step: Step,
    purpose: str,
    layer: int,
    like: Tensor,
) -> Tensor:
    """What dropout multiplies with: 0, or 1 over the share kept; from the members' own streams.

    Args:
        shape: Of one member's tensor, padding included.
        sizes: Real length of the last axis per member; padding gets factor 0 where it is dropped.
        rates: Share of elements set to 0, per member, to the nearest of 65,536 steps.
        purpose: Name of the random stream; `layer` is its last counter.
        like: Gives device and number format.

    Returns:
        (M, *shape).
    """
    factors = torch.ones(len(rates), *shape, dtype=like.dtype, device=like.device)
    for m, rate in enumerate(rates):
        if rate > 0:
            generator = step.streams[m].generator(purpose, step.steps[m], layer, device=like.device)
            kept = round((1 - rate) * 65536)
            bits = sample_bits((*shape[:-1], sizes[m]), generator, step)
            factors[m, ..., : sizes[m]] = (bits <= kept - 32769).to(like.dtype) * (65536 / kept)
    return factors


def batch_norm(
    x_MBF: Tensor, mean_MF: Tensor, var_MF: Tensor, *, eps: float, training: bool
) -> Tensor:
    """Normalise each feature, without scale and shift.

    In training by the batch's own statistics, which move the running ones in place by a tenth; the
    variance is then the unbiased one, as in PyTorch. A batch of one sample has no variance: it is
    normalised by the running statistics and does not move them.

    Args:
        x_MBF: (..., B, F).
        mean_MF: Running mean (..., F).
        var_MF: Running variance (..., F).
    """
    samples = x_MBF.shape[-2]
    if training and samples > 1:
        var, mean = torch.var_mean(x_MBF, dim=-2, correction=0)
        with torch.no_grad():
            mean_MF.lerp_(mean, 0.1)
            var_MF.lerp_(var * (samples / (samples - 1)), 0.1)
    else:
        mean, var = mean_MF, var_MF
    return (x_MBF - mean.unsqueeze(-2)) * (var.unsqueeze(-2) + eps).rsqrt()


def copy_of(source: Tensor | None) -> Callable[[Tensor, Generator], object]:
    """Fill with what was fitted; before that, with running numbers that are never used."""

    def fill(tensor: Tensor, generator: Generator) -> Tensor:
        known = torch.arange(tensor.numel()).view(tensor.shape) if source is None else source
        return tensor.copy_(known.to(tensor.dtype))

    return fill
