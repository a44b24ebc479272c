"""Dropout whose draws belong to a member alone, whatever pack and padding it stands in."""

# Axes: M members, L layers, B samples, P prompt tokens, D width, F entries of the last axis.

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tcpa_core import philox
from tcpa_core.made_once import made_once
from tcpa_core.methods._passes import Step
from tcpa_core.streams import row_keys


class Dropout:
    """Dropout in training, made once for the members of a pack.

    Every sample, prompt or token has a row of numbers, one for each channel. Padding is drawn for,
    too, which changes no number of a member's own.

    Args:
        purpose: Name of the random stream.
        rates: Share of elements set to 0, per member, to the nearest multiple of 2^-24.
        layers: How many places draw numbers of their own.
    """

    def __init__(self, purpose: str, rates: Sequence[float], layers: int = 1) -> None:
        self._purpose = purpose
        self._layers = layers
        self._kept = _Kept(torch.tensor(rates, dtype=torch.float64))
        self._rows: dict[Hashable, Tensor] = {}

    def is_on(self, step: Step) -> bool:
        """Whether any member drops anything in this pass."""
        return step.training and self._kept.is_on

    def prompts(
        self, prompts_LMPD: Tensor, exists_MP: Tensor | None, samples: int, step: Step
    ) -> Tensor:
        """Drop the prompts of all layers for each of B samples anew.

        Args:
            exists_MP: False for padding, which may stand anywhere; None: no padding.
            samples: B.

        Returns:
            (L, M, B, P, D); B is 1 where nothing is dropped, as outside training.
        """
        if not self.is_on(step):
            return prompts_LMPD[:, :, None]
        rows = self._prompt_rows(prompts_LMPD, exists_MP, samples, step)
        width = prompts_LMPD.shape[-1]
        drawn = step.draws.uniform(self._purpose, rows, width, layers=self._layers, layer=None)
        return self._kept.apply(prompts_LMPD[:, :, None], self._kept.choose(drawn, axes=3), axes=3)

    def activations(self, x: Tensor, step: Step, layer: int, length: int | None = None) -> Tensor:
        """Drop activations (M, B, S, F), which may be padded at the end of F.

        Outside training nothing is dropped.

        Args:
            length: Tokens of a sample, of which x may have the first only; None: it has all.
        """
        if not self.is_on(step):
            return x
        rows = token_rows(step, x.shape[1], x.shape[2], x.device, length)
        drawn = step.draws.uniform(
            self._purpose, rows, x.shape[-1], layers=self._layers, layer=layer
        )
        axes = x.ndim - 1
        return self._kept.apply(x, self._kept.choose(drawn, axes), axes)

    def _prompt_rows(
        self, prompts_LMPD: Tensor, exists_MP: Tensor | None, samples: int, step: Step
    ) -> Tensor:
        """Keys (M or 1, B, P, 2), counted by the member's own prompts."""
        first, batch = _place(step, samples)
        length, device = prompts_LMPD.shape[2], prompts_LMPD.device
        key = (first, samples, batch, length, device)
        if key not in self._rows:
            own = torch.arange(length, device=device)[None]
            own = own if exists_MP is None else exists_MP.cumsum(1) - 1
            sample = torch.arange(first, first + samples, device=device)
            index = own[:, None] * batch + sample[:, None]
            self._rows[key] = row_keys(index.clamp(min=0), length * batch)
        return self._rows[key]


class DropPath:
    """Samples that skip a branch of a block (stochastic depth), made once for a pack's members.

    Args:
        purpose: Name of the random stream.
        rates: Share of samples that skip, per layer and member, rounded as in `Dropout`.
    """

    def __init__(self, purpose: str, rates: Sequence[Sequence[float]]) -> None:
        self._purpose = purpose
        self._layers = len(rates)
        self._kept = _Kept(torch.tensor(rates, dtype=torch.float64))

    @property
    def is_on(self) -> bool:
        """Whether any sample of any member may skip a branch."""
        return self._kept.is_on

    def apply(self, branch: Tensor, step: Step, layer: int) -> Tensor:
        """What samples add of a branch (M, B, S, D): scaled up, or 0 where they skip it.

        The same samples skip it whenever a pass runs it, so that what stands beside it skips, too.
        """

        def draw() -> Tensor:
            rows = token_rows(step, branch.shape[1], 1, branch.device)
            drawn = step.draws.uniform(self._purpose, rows, 1, layers=self._layers, layer=None)
            return self._kept.factors(drawn, branch.dtype, axes=3)

        factors_LMB11 = step.draws.once(f"{self._purpose} {branch.dtype}", draw)
        return branch * factors_LMB11[layer]


def token_rows(
    step: Step, samples: int, tokens: int, device: torch.device, length: int | None = None
) -> Tensor:
    """Keys (1, B, S, 2) of the tokens of a pass, for `Draws.uniform`.

    Args:
        step: A batch that is trained in parts counts as a whole.
        samples: B.
        tokens: S.
        device: Where to draw.
        length: Of a sample's sequence, of which S are the first; None: S.
    """
    return _token_rows(*_place(step, samples), samples, tokens, length or tokens, device)


@made_once
def _token_rows(
    first: int, batch: int, samples: int, tokens: int, length: int, device: torch.device
) -> Tensor:
    index = torch.arange(batch * length, device=device).view(1, batch, length)
    return row_keys(index[:, first : first + samples, :tokens], batch * length)


@made_once
def member_row(device: torch.device) -> Tensor:
    """Keys (1, 2) of one row for each member, for what is drawn for a batch as a whole."""
    return row_keys(torch.zeros(1, dtype=torch.int64, device=device), 1)


def _place(step: Step, samples: int) -> tuple[int, int]:
    """Number of a pass's first sample in its batch, and the samples of that batch."""
    return (0, samples) if step.part is None else (step.part.rows.start, step.part.batch)


def share_kept(rates: Tensor) -> Tensor:
    """What dropout keeps, to the step in which numbers are drawn; never nothing."""
    return ((1 - rates) / philox.RESOLUTION).round().clamp(min=1) * philox.RESOLUTION


class _Vectors(NamedTuple):
    """On a device: where numbers keep an element, what it is multiplied with, and 0."""

    limit: Tensor
    scale: Tensor
    zero: Tensor


class _Kept:
    """Which elements random numbers keep, and how those are scaled up to leave the mean as it is.

    Args:
        rates: float64, ending in the members: (M,) or (L, M).
    """

    def __init__(self, rates: Tensor) -> None:
        self.is_on = bool((rates > 0).any())
        self._rates = rates
        self._vectors: dict[Hashable, _Vectors] = {}

    def choose(self, drawn: Tensor, axes: int) -> Tensor:
        """Whether numbers (..., M, and so many axes) keep an element, boolean."""
        return drawn < self._on(drawn.device, drawn.dtype, axes).limit

    def apply(self, x: Tensor, kept: Tensor, axes: int) -> Tensor:
        """Elements of x (..., M, and so many axes) that are kept, scaled up, else 0; x expands to
        `kept`."""
        # Half precision would round the scale, and shift the mean.
        exact = torch.promote_types(x.dtype, torch.float32)
        scale = self._on(x.device, exact, axes).scale
        zero = self._on(x.device, x.dtype, 0).zero
        found: Tensor = _Keep.apply(x, kept, scale, zero)
        return found

    def factors(self, drawn: Tensor, dtype: torch.dtype, axes: int) -> Tensor:
        """What to multiply with: 1 over the share that is kept, or 0."""
        _, scale, zero = self._on(drawn.device, dtype, axes)
        return torch.where(self.choose(drawn, axes), scale, zero)

    def _on(self, device: torch.device, dtype: torch.dtype, axes: int) -> _Vectors:
        """The vectors with so many axes behind the members, copied to a device once."""
        key = (device, dtype, axes)
        if key not in self._vectors:
            with torch.inference_mode(False):  # else made first there, they could not be saved
                shares = share_kept(self._rates).view(*self._rates.shape, *[1] * axes)
                limit = shares.to(device, torch.float32)
                scale = (1 / shares).to(device, dtype)
                zero = torch.zeros((), dtype=dtype, device=device)
                self._vectors[key] = _Vectors(limit, scale, zero)
        return self._vectors[key]


class _Keep(torch.autograd.Function):
    """`where(kept, x * scale, 0)` that saves `kept` alone and makes no constant on the way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        ctx.save_for_backward(kept, scale, zero)
        ctx.shape = x.shape
        return torch.where(kept, _scaled(x, scale), zero)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        kept, scale, zero = ctx.saved_tensors
        grad = torch.where(kept, grad, zero).sum_to_size(ctx.shape)
        return _scaled(grad, scale), None, None, None


def _scaled(x: Tensor, scale: Tensor) -> Tensor:
    """The product in the number format of x, whatever that of the scale is."""
    return torch.mul(x, scale, out=torch.empty_like(x))
