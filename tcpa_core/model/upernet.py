"""UPerNet over the blocks of a vision transformer: pyramid pooling and a feature pyramid.

Four blocks of equal resolution become the four levels of a pyramid, with 4, 2, 1 and 1/2 times the
rows and columns of the tokens. The logits have those of the finest level.

Source:
    UPerNet, arXiv:1807.10221, as in segmentation-models-pytorch (decoders/upernet/decoder.py),
    which gives the same logits with the same weights; the levels as in BEiT and MAE
    (microsoft/unilm, beit/semantic_segmentation/backbone/beit.py: fpn1 to fpn4).
"""

# Axes: M members, B samples, X = M * channels, D width, H rows and W columns of a map.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from tcpa_core.methods.base import ParamSpec
from tcpa_core.model.map_layers import (
    BatchNorm,
    ConvNormReLU,
    Doubling,
    LayerNorm,
    Tensors,
    beside,
)
from tcpa_core.model.map_sizes import averaged, bilinear

LEVELS = 4
POOLED = (1, 2, 3, 6)
"""Rows and columns to which the coarsest level is averaged."""


class _HasSpecs(Protocol):
    def specs(self) -> dict[str, ParamSpec]:
        """Tensors of one member by full name."""


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The body of a UPerNet."""

    name: str
    width: int
    channels: int
    enlarges: int = 1

    def specs(self) -> dict[str, ParamSpec]:
        """Tensors of all layers."""
        layers: Iterable[_HasSpecs] = (
            *self._doublings,
            self._finest_norm,
            *self._norms,
            *self._pools,
            self._pooled,
            *self._laterals,
            *self._outputs,
            self._fusion,
        )
        return {key: spec for layer in layers for key, spec in layer.specs().items()}

    @property
    def _doublings(self) -> list[Doubling]:
        return [Doubling(f"{self.name}.double{i}", self.width) for i in range(3)]

    @property
    def _finest_norm(self) -> BatchNorm:
        return BatchNorm(f"{self.name}.double_norm", self.width)

    @property
    def _norms(self) -> list[LayerNorm]:
        return [LayerNorm(f"{self.name}.norm{i}", self.width) for i in range(LEVELS)]

    @property
    def _pools(self) -> list[ConvNormReLU]:
        return [
            ConvNormReLU(f"{self.name}.pool{size}", self.width, self.channels, 1) for size in POOLED
        ]

    @property
    def _pooled(self) -> ConvNormReLU:
        inputs = self.width + len(POOLED) * self.channels
        return ConvNormReLU(f"{self.name}.pooled", inputs, self.channels, 3)

    @property
    def _laterals(self) -> list[ConvNormReLU]:
        """Of the levels from the finest on; the coarsest is pooled."""
        return [
            ConvNormReLU(f"{self.name}.lateral{i}", self.width, self.channels, 1)
            for i in range(LEVELS - 1)
        ]

    @property
    def _outputs(self) -> list[ConvNormReLU]:
        return [
            ConvNormReLU(f"{self.name}.output{i}", self.channels, self.channels, 3)
            for i in range(LEVELS - 1)
        ]

    @property
    def _fusion(self) -> ConvNormReLU:
        return ConvNormReLU(f"{self.name}.fusion", LEVELS * self.channels, self.channels, 3)

    def flops(self, grid: tuple[int, int]) -> tuple[float, int]:
        """See `Body`."""
        places = [grid[0] * grid[1] * 16 // 4**i for i in range(LEVELS)]
        doubled = zip(self._doublings, (places[2], places[1], places[2]), strict=True)
        total = sum(layer.flops(count) for layer, count in doubled)
        total += sum(pool.flops(size**2) for pool, size in zip(self._pools, POOLED, strict=True))
        total += self._pooled.flops(places[3]) + self._fusion.flops(places[0])
        for layers in (self._laterals, self._outputs):
            total += sum(layer.flops(n) for layer, n in zip(layers, places[:-1], strict=True))
        return total, places[0]

    def __call__(self, maps: Sequence[Tensor], tensors: Tensors, training: bool) -> Tensor:
        """See `Body`."""
        levels = self.levels(maps, tensors, training)
        return self.decoded(levels, tensors, training)

    def levels(self, maps: Sequence[Tensor], tensors: Tensors, training: bool) -> list[Tensor]:
        """The pyramid (B, X, rows, columns), the finest level first."""
        finest, fine, plain, coarse = (one.permute(1, 0, 4, 2, 3).flatten(1, 2) for one in maps)
        first, second, third = self._doublings
        finest = self._finest_norm(first(finest, tensors), tensors, training)
        finest = second(F.gelu(finest), tensors)
        # A single row of tokens cannot be halved, and stays.
        is_thin = min(coarse.shape[-2:]) == 1
        # Its windows do not overlap: no place gets a sum of gradients, whose order could differ.
        halved = F.max_pool2d(coarse, 2, ceil_mode=is_thin)
        return [finest, third(fine, tensors), plain, halved]

    def decoded(self, levels: Sequence[Tensor], tensors: Tensors, training: bool) -> Tensor:
        """Features (B, X, rows, columns) of a pyramid."""
        *fine, coarsest = (
            norm(_as_map(level, self.width), tensors)
            for norm, level in zip(self._norms, levels, strict=True)
        )
        members = levels[0].shape[1] // self.width
        pooled = [coarsest]
        for pool, size in zip(self._pools, POOLED, strict=True):
            small = pool(averaged(coarsest, (size, size)), tensors, training)
            pooled.append(_resized(small, coarsest))
        state = self._pooled(beside(pooled, members), tensors, training)
        found = [state]
        for level, lateral, output in list(zip(fine, self._laterals, self._outputs, strict=True))[
            ::-1
        ]:
            side = lateral(level, tensors, training)
            # What goes down to the next level is not what the level gives out.
            state = _resized(state, side) + side
            found.insert(0, output(state, tensors, training))
        finest = [_resized(one, found[0]) for one in found]
        return self._fusion(beside(finest, members), tensors, training)


def _as_map(x_BXHW: Tensor, width: int) -> Tensor:
    """(M, B, H, W, D)."""
    return x_BXHW.unflatten(1, (-1, width)).permute(1, 0, 3, 4, 2)


def _resized(x_BXHW: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the rows and columns of another map."""
    rows, columns = like.shape[-2:]
    return bilinear(x_BXHW, (rows, columns))
