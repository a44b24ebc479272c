"""Maps of other sizes whose gradients are the same each time, on a GPU as well.

PyTorch's gradients of bilinear resizing and of adaptive pooling add up on a GPU in whatever order
its threads come, so that a trial that is taken up again would not be the one that ran through (its
list of such operations: `torch.use_deterministic_algorithms`). Both are linear in the rows and in
the columns: forward they are PyTorch's own, backward they are two matrix products.
"""

# Axes: N pictures, C channels, H rows and W columns of a map.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tcpa_core.made_once import made_once

Size = tuple[int, int]
"""Rows and columns."""


def bilinear(x_NCHW: Tensor, size: Size) -> Tensor:
    """A map with so many rows and columns, each place a mixture of the four nearest, pixels taken
    as areas: `F.interpolate` with `align_corners=False`."""
    return x_NCHW if tuple(x_NCHW.shape[-2:]) == size else _Resized.apply(x_NCHW, size, _mixed)


def averaged(x_NCHW: Tensor, size: Size) -> Tensor:
    """Means over so many rows and columns of areas: `F.adaptive_avg_pool2d`."""
    return _Resized.apply(x_NCHW, size, F.adaptive_avg_pool2d)


def _mixed(x_NCHW: Tensor, size: Size) -> Tensor:
    return F.interpolate(x_NCHW, size, mode="bilinear", align_corners=False)


class _Resized(torch.autograd.Function):
    @staticmethod
    def forward(x_NCHW: Tensor, size: Size, resize: Callable[[Tensor, Size], Tensor]) -> Tensor:
        return resize(x_NCHW, size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x_NCHW, ctx.size, ctx.resize = inputs
        ctx.before = x_NCHW.shape[-2:]

    @staticmethod
    def backward(ctx: Any, grad_NCHW: Tensor) -> tuple[Tensor, None, None]:
        (rows, columns), (to_rows, to_columns) = ctx.before, ctx.size
        like = grad_NCHW.dtype, grad_NCHW.device
        by_row = weights(ctx.resize is _mixed, rows, to_rows, *like)
        by_column = weights(ctx.resize is _mixed, columns, to_columns, *like)
        # A gradient in float32 is not rounded where the pass around it is in half precision.
        with torch.autocast(grad_NCHW.device.type, enabled=False):
            return by_row.T @ (grad_NCHW @ by_column), None, None


@made_once
def weights(
    is_mixed: bool, places: int, to: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """How much of each place of a line is in each of the resized one, (to, places).

    Args:
        is_mixed: Mixtures of neighbours (`bilinear`), else means (`averaged`).
        places: Of the line before.
        to: Places behind.
        dtype: Of the weights.
        device: Where they are.
    """
    with torch.inference_mode(False):
        line, index = torch.arange(places), torch.arange(to)[:, None]
        if is_mixed:
            centre = ((index.double() + 0.5) * places / to - 0.5).clamp(0, places - 1)
            found = (1 - (centre - line).abs()).clamp(min=0)
        else:
            first, end = index * places // to, -(-(index + 1) * places // to)
            found = ((line >= first) & (line < end)).double() / (end - first)
        return found.to(dtype).to(device)
