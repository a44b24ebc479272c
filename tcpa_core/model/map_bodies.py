"""What heads over maps of tokens are made of before their classifier: a linear head, SETR-PUP."""

# Axes: M members, B samples, X = M * channels, D width, H rows and W columns of a map.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tcpa_core.methods.base import ParamSpec
from tcpa_core.model.map_layers import ConvNormReLU, LayerNorm, Tensors, beside, enlarged


@dataclass(frozen=True, slots=True)
class Tokens:
    """Normalised tokens of the blocks, side by side: the body of a linear head."""

    name: str
    width: int
    blocks: int
    enlarges: int = 1

    @property
    def channels(self) -> int:
        """Of the features."""
        return self.blocks * self.width

    @property
    def _norms(self) -> list[LayerNorm]:
        return [LayerNorm(f"{self.name}.norm{k}", self.width) for k in range(self.blocks)]

    def specs(self) -> dict[str, ParamSpec]:
        """A layer norm for each block."""
        return {key: spec for norm in self._norms for key, spec in norm.specs().items()}

    def flops(self, grid: tuple[int, int]) -> tuple[float, int]:
        """No products."""
        return 0.0, grid[0] * grid[1]

    def __call__(self, maps: Sequence[Tensor], tensors: Tensors, training: bool) -> Tensor:
        """See `Body`."""
        normed = [norm(one, tensors) for norm, one in zip(self._norms, maps, strict=True)]
        return beside(normed, members=maps[0].shape[0])


@dataclass(frozen=True, slots=True)
class Progressive:
    """A layer norm, then 3 x 3 convolutions, each with upsampling behind it.

    The last upsampling, which is the largest, is that of the logits: the classifier of each place
    in front of it gives the same numbers for a fraction of the memory, as both are linear and what
    a place is made of adds up to 1.

    Source:
        SETR-PUP, arXiv:2012.15840; mmsegmentation, mmseg/models/decode_heads/setr_up_head.py and
        configs/setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py: four convolutions with a factor of
        2; auxiliary heads have two, with a factor of 4.
    """

    name: str
    width: int
    channels: int
    convolutions: int
    enlarges: int
    """By what factor each upsampling enlarges."""

    @property
    def _norm(self) -> LayerNorm:
        return LayerNorm(f"{self.name}.norm", self.width)

    @property
    def _convolutions(self) -> list[ConvNormReLU]:
        inputs = [self.width] + [self.channels] * (self.convolutions - 1)
        return [
            ConvNormReLU(f"{self.name}.conv{i}", width, self.channels, 3)
            for i, width in enumerate(inputs)
        ]

    def specs(self) -> dict[str, ParamSpec]:
        """The norm and the convolutions."""
        found = self._norm.specs()
        for one in self._convolutions:
            found |= one.specs()
        return found

    def flops(self, grid: tuple[int, int]) -> tuple[float, int]:
        """Each convolution works on the enlarged map of the one before it."""
        places = [grid[0] * grid[1] * self.enlarges ** (2 * i) for i in range(self.convolutions)]
        layers = zip(self._convolutions, places, strict=True)
        return sum(layer.flops(count) for layer, count in layers), places[-1]

    def __call__(self, maps: Sequence[Tensor], tensors: Tensors, training: bool) -> Tensor:
        """See `Body`."""
        (only,) = maps
        first, *others = self._convolutions
        x = first(self._norm(only, tensors), tensors, training)
        for one in others:
            x = one(enlarged(x, self.enlarges), tensors, training)
        return x
