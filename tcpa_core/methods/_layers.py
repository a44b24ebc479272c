"""Layers that each member of a pack has with weights of its own, and where its padding is."""

# Axes: M members, B samples, S tokens, I inputs, O outputs, F features.

from collections.abc import Sequence

import torch
from torch import Tensor

from tcpa_core.made_once import made_once


def member_linear(x_M_I: Tensor, weight_MOI: Tensor, bias_MO: Tensor | None = None) -> Tensor:
    """Apply each member's own linear layer to its own samples (M, ..., I)."""
    # One batched product for the pack, where a loop would start a kernel per member.
    flat = x_M_I.flatten(1, -2)
    if bias_MO is None:
        out = torch.bmm(flat, weight_MOI.mT)
    else:
        out = torch.baddbmm(bias_MO[:, None], flat, weight_MOI.mT)
    return out.view(*x_M_I.shape[:-1], -1)


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
        # Running statistics are state of the trial, not part of the graph.
        with torch.no_grad():
            mean_MF.lerp_(mean, 0.1)
            var_MF.lerp_(var * (samples / (samples - 1)), 0.1)
    else:
        mean, var = mean_MF, var_MF
    return (x_MBF - mean.unsqueeze(-2)) * (var.unsqueeze(-2) + eps).rsqrt()


def padding(sizes: Sequence[int], device: torch.device) -> Tensor | None:
    """Boolean (M, max size), False behind each member's size; None if all sizes are equal."""
    return None if len(set(sizes)) == 1 else _padding(tuple(sizes), device)


@made_once
def _padding(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # else a mask first made there could never be trained with
        ends = torch.tensor(sizes, device=device)
        return torch.arange(max(sizes), device=device) < ends[:, None]
