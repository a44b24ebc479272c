"""Layers over maps of tokens, each member of a pack with weights of its own.

Members stand side by side as groups of channels: a convolution with a group per member, and a batch
norm, which knows channels only, leave each with the numbers that it has alone.
"""

# Axes: M members, B samples, C channels of a member, X = M * C, D width, H rows and W columns of a
# map.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tcpa_core.methods.base import ParamSpec, constant, normal, uniform
from tcpa_core.model.map_sizes import bilinear

EPS = 1e-5
MOMENTUM = 0.1
"""PyTorch's of batch norm, which mmsegmentation keeps."""

Tensors = Mapping[str, Tensor]
"""Stacks (M, ...) by full name."""


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """A trained layer norm of the tokens of a map, before anything else reads them."""

    name: str
    width: int

    def specs(self) -> dict[str, ParamSpec]:
        """The identity at first; no decay."""
        return {
            f"{self.name}.weight": ParamSpec((self.width,), constant(1.0), decay=False),
            f"{self.name}.bias": ParamSpec((self.width,), constant(0.0), decay=False),
        }

    def __call__(self, map_MBHWD: Tensor, tensors: Tensors) -> Tensor:
        """Normalised tokens as channels (B, X, H, W)."""
        weight, bias = (tensors[f"{self.name}.{part}"] for part in ("weight", "bias"))
        normed = F.layer_norm(map_MBHWD, (self.width,), eps=1e-6)
        places = (slice(None), None, None, None)
        scaled = torch.addcmul(bias[places], normed, weight[places])
        return scaled.permute(1, 0, 4, 2, 3).flatten(1, 2)


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Batch norm of each channel. Its running statistics belong to the trial's state."""

    name: str
    channels: int

    def specs(self) -> dict[str, ParamSpec]:
        """Scale, shift and running statistics; no decay."""
        shape = (self.channels,)
        return {
            f"{self.name}.weight": ParamSpec(shape, constant(1.0), decay=False),
            f"{self.name}.bias": ParamSpec(shape, constant(0.0), decay=False),
            f"{self.name}.running_mean": ParamSpec(shape, constant(0.0), trainable=False),
            f"{self.name}.running_var": ParamSpec(shape, constant(1.0), trainable=False),
        }

    def __call__(self, x_BXHW: Tensor, tensors: Tensors, training: bool) -> Tensor:
        """Normalise by the batch in training, which moves the running statistics by a tenth, else
        by these. A single value has no variance: it is always normalised by these."""
        mean, var, weight, bias = (
            tensors[f"{self.name}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        has_variance = x_BXHW.shape[0] * x_BXHW.shape[2] * x_BXHW.shape[3] > 1
        return F.batch_norm(
            x_BXHW,
            mean.view(-1),  # not a copy: the statistics of the stack itself have to move
            var.view(-1),
            weight.flatten(),
            bias.flatten(),
            training=training and has_variance,
            momentum=MOMENTUM,
            eps=EPS,
        )


@dataclass(frozen=True, slots=True)
class ConvNormReLU:
    """Convolution without a bias, batch norm, ReLU: mmsegmentation's ConvModule.

    Source:
        mmcv, mmcv/cnn/bricks/conv_module.py: Kaiming normal by fan-out.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int

    @property
    def _norm(self) -> BatchNorm:
        return BatchNorm(f"{self.name}.norm", self.outputs)

    def specs(self) -> dict[str, ParamSpec]:
        """The kernel and its norm."""
        std = (2 / (self.outputs * self.kernel**2)) ** 0.5
        shape = (self.outputs, self.inputs, self.kernel, self.kernel)
        return {f"{self.name}.weight": ParamSpec(shape, normal(0.0, std)), **self._norm.specs()}

    def __call__(self, x_BXHW: Tensor, tensors: Tensors, training: bool) -> Tensor:
        """(B, M * outputs, H, W)."""
        out = convolved(x_BXHW, tensors[f"{self.name}.weight"])
        return self._norm(out, tensors, training).relu_()

    def flops(self, places: int) -> float:
        """Of a map of so many places."""
        return 2.0 * places * self.inputs * self.outputs * self.kernel**2


@dataclass(frozen=True, slots=True)
class Doubling:
    """A transposed convolution that makes a map twice as high and wide."""

    name: str
    width: int

    def specs(self) -> dict[str, ParamSpec]:
        """As PyTorch's ConvTranspose2d."""
        init = uniform((4 * self.width) ** -0.5)
        return {
            f"{self.name}.weight": ParamSpec((self.width, self.width, 2, 2), init),
            f"{self.name}.bias": ParamSpec((self.width,), init),
        }

    def __call__(self, x_BXHW: Tensor, tensors: Tensors) -> Tensor:
        """(B, X, 2 H, 2 W)."""
        weight, bias = tensors[f"{self.name}.weight"], tensors[f"{self.name}.bias"]
        return F.conv_transpose2d(
            x_BXHW, weight.flatten(0, 1), bias.flatten(), stride=2, groups=len(weight)
        )

    def flops(self, places: int) -> float:
        """Of a map that has so many places before."""
        return 8.0 * places * self.width**2


def convolved(x_BXHW: Tensor, weight_MOIKK: Tensor, bias_MO: Tensor | None = None) -> Tensor:
    """Convolve each member's channels with its own kernels; the map keeps its size."""
    return F.conv2d(
        x_BXHW,
        weight_MOIKK.flatten(0, 1),
        None if bias_MO is None else bias_MO.flatten(),
        padding=weight_MOIKK.shape[-1] // 2,
        groups=len(weight_MOIKK),
    )


def enlarged(x_BXHW: Tensor, factor: int) -> Tensor:
    """A map with so many times the rows and columns, bilinear."""
    rows, columns = x_BXHW.shape[-2:]
    return bilinear(x_BXHW, (factor * rows, factor * columns))


def beside(maps: Sequence[Tensor], members: int) -> Tensor:
    """Channels of several maps (B, X, H, W), those of a member together."""
    if len(maps) == 1:
        return maps[0]
    return torch.cat([one.unflatten(1, (members, -1)) for one in maps], dim=2).flatten(1, 2)
