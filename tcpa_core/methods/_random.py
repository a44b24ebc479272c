"""Dropout whose draws belong to a member alone, whatever pack and padding it stands in."""

# Axes: M members, B samples, P prompt tokens, D width, F entries of the last axis.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tcpa_core.methods._passes import Step


@dataclass(frozen=True, slots=True)
class Dropout:
    """Dropout in training, drawn from each member's own stream and for its real entries only."""

    purpose: str
    """Name of the random stream; the number of the layer is its last counter."""
    rates: Sequence[float]
    """Share of elements set to 0, per member, to the nearest of 65,536 steps."""
    sizes: Sequence[int] | None = None
    """Real entries per member, prompts or channels; None: nothing is padded."""

    def is_on(self, step: Step) -> bool:
        """Whether any member drops anything in this pass."""
        return step.training and any(rate > 0 for rate in self.rates)

    def prompts(
        self, prompts_MPD: Tensor, exists_MP: Tensor | None, samples: int, step: Step, layer: int
    ) -> Tensor:
        """Drop prompts (M, P, D) for each of B samples anew.

        Args:
            exists_MP: False for padding; None: no padding.
            samples: B.

        Returns:
            (M, B, P, D).
        """
        members, length, width = prompts_MPD.shape
        device = prompts_MPD.device
        # Drawn member by member, applied to the pack in one operation.
        bits = torch.zeros(members, samples, length, width, dtype=torch.int16, device=device)
        for m, rate in enumerate(self.rates):
            if rate > 0:
                shape = (samples, self._size(m, length), width)
                drawn = self._draw(shape, m, step, layer, device)
                bits[m, :, slice(None) if exists_MP is None else exists_MP[m]] = drawn
        return _keep(prompts_MPD[:, None], bits, self.rates)

    def activations(self, x: Tensor, step: Step, layer: int) -> Tensor:
        """Drop activations (M, B, ..., F), padded at the end of F; outside training nothing."""
        if not self.is_on(step):
            return x
        bits = torch.zeros(x.shape, dtype=torch.int16, device=x.device)
        for m, rate in enumerate(self.rates):
            if rate > 0:
                size = self._size(m, x.shape[-1])
                shape = (*x.shape[1:-1], size)
                bits[m, ..., :size] = self._draw(shape, m, step, layer, x.device)
        return _keep(x, bits, self.rates)

    def factors(self, shape: Sequence[int], step: Step, layer: int, like: Tensor) -> Tensor:
        """What dropout multiplies with: 0, or 1 over the share kept.

        Args:
            shape: Of one member's tensor (B, ..., F), padding included; padding keeps factor 1.
            like: Gives device and number format.

        Returns:
            (M, *shape).
        """
        factors = torch.ones(len(self.rates), *shape, dtype=like.dtype, device=like.device)
        for m, rate in enumerate(self.rates):
            if rate > 0:
                size = self._size(m, shape[-1])
                kept = round((1 - rate) * 65536)
                bits = self._draw((*shape[:-1], size), m, step, layer, like.device)
                factors[m, ..., :size] = (bits <= kept - 32769).to(like.dtype) * (65536 / kept)
        return factors

    def _size(self, m: int, full: int) -> int:
        return full if self.sizes is None else self.sizes[m]

    def _draw(
        self, shape: tuple[int, ...], m: int, step: Step, layer: int, device: torch.device
    ) -> Tensor:
        """Random int16 numbers (B, ...) of one member: those of this pass's samples."""
        generator = step.streams[m].generator(self.purpose, step.steps[m], layer, device=device)
        if step.part is None:
            return random_bits(shape, generator)
        # a batch that is trained in parts draws as a whole, so that its parts change no number
        return random_bits((step.part.batch, *shape[1:]), generator)[step.part.rows]


def random_bits(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform int16 numbers, four to a draw, which is several times faster than `bernoulli_`."""
    count = torch.Size(shape).numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device)
    draws.random_(-(2**63), None, generator=generator)
    return draws.view(torch.int16)[:count].view(shape)


def _keep(x: Tensor, bits: Tensor, rates: Sequence[float]) -> Tensor:
    """Scale up where random int16 numbers (M, ...) are small enough, 0 elsewhere."""
    # The scale follows the rounded rate, so that the mean stays exact; int16 ends at 32767.
    kept = [round((1 - rate) * 65536) for rate in rates]
    limits = torch.tensor([min(k - 32769, 32767) for k in kept], dtype=torch.int16, device=x.device)
    scale = torch.tensor([65536 / k for k in kept], dtype=x.dtype, device=x.device)
    column = (-1, *[1] * (x.ndim - 1))
    scaled = x * scale.view(column)
    return torch.where(bits <= limits.view(column), scaled, scaled.new_zeros(()))
