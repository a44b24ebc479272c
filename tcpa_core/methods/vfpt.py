"""VFPT: VPT in which a share of each block's prompts is replaced by its Fourier transform.

The first floor(fraction * P) prompts become the real part of their unnormalised two-dimensional
discrete Fourier transform over (prompt, channel), after dropout, in training and evaluation alike.
No parameters of its own: trainable as VPT. Row k of the result is row P - k with its channels
reversed, so about half of the transformed parameters have no effect.

Under TCPA the method has no prompts: it transforms TCPA's (`tcpa.fourier_scope`), and num_prompts
and prompt_dropout mean nothing.

Source:
    Zeng et al., Visual Fourier Prompt Tuning, NeurIPS 2024 (runtsang/VFPT, vit_fourier.py). The
    authors draw the rows of `location` "random" anew in evaluation, too; here they are fixed there.
"""

# Axes: M members, P prompt tokens, D width.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods import base
from tcpa_core.methods._prompt_tokens import PromptTokens, SequenceSettings
from tcpa_core.methods.base import Step
from tcpa_core.streams import Stream

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone


class Config(SequenceSettings):
    """Settings of VFPT."""

    shared: ClassVar[tuple[str, ...]] = (*SequenceSettings.shared, "dims", "location", "layers")

    fraction: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of the prompts that is transformed, rounded down; 0 is VPT. None: 0.5, or 1 under
    TCPA, as the authors of each train."""
    dims: Literal["all", "hidden", "sequence"] = "all"
    """Transform over channels and prompts, over channels only, or over prompts only."""
    location: Literal["prepend", "append", "random"] = "prepend"
    """Transformed prompts stand before or behind the others, which changes nothing but rounding
    (except under TCPA: which prompts have which role). random: rows drawn anew in every step, each
    transformed alone; in evaluation always the same rows."""
    layers: Literal["all", "former", "later", "mixed"] = "all"
    """Blocks whose prompts are transformed: all, the first half, the second half, every other one
    from the first on. Shallow prompts are those of the first block."""

    @model_validator(mode="after")
    def _check_random(self) -> Config:
        if self.location == "random" and self.dims == "sequence":
            raise ValueError(
                "vfpt.dims must be 'all' or 'hidden' with vfpt.location='random', got 'sequence': "
                "each prompt is transformed alone there; set vfpt.location=prepend or vfpt.dims=all"
            )
        return self


class Method(PromptTokens):
    """VFPT for a pack."""

    replaced_by = ("tcpa",)

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        default = 1.0 if self.is_replaced(configs[0]) else 0.5
        self._fractions = [default if s.fraction is None else s.fraction for s in self.settings]
        self._transformed = _layers(self._config.layers, self.layout.depth)
        self._mixers: dict[Any, Tensor] = {}

    def on_prompts(self, prompts: Tensor, sizes: Sequence[int], index: int, step: Step) -> Tensor:
        """Transform a block's prompts (M, ..., P, D), in float32 at least."""
        counts = [int(f * size) for f, size in zip(self._fractions, sizes, strict=True)]
        if index not in self._transformed or not any(counts):
            return prompts
        # Fast Fourier transforms in half precision exist for powers of two only.
        with torch.autocast(prompts.device.type, enabled=False):
            wide = prompts.to(torch.promote_types(prompts.dtype, torch.float32))
            parts = [wide]
            if self._config.dims != "sequence":
                spectrum = torch.fft.fft(wide, dim=-1)
                parts = [spectrum.real, spectrum.imag, wide]
            mixer = self._mixer(sizes, counts, index, step, wide)
            mixer = mixer.view(len(sizes), *[1] * (prompts.ndim - 3), *mixer.shape[1:])
            return mixer @ torch.cat(parts, dim=-2)

    def _mixer(
        self, sizes: Sequence[int], counts: Sequence[int], index: int, step: Step, like: Tensor
    ) -> Tensor:
        """What to sum over the prompt axis of the parts: (M, P, parts * P), 0 at padding."""
        dims, location = self._config.dims, self._config.location
        if location == "random" and step.training:
            return self._drawn(sizes, counts, index, step, like)
        block = index if location == "random" else None
        key = (tuple(sizes), block, like.dtype, like.device)
        # Constant for given sizes: built once, then kept on the device.
        if key not in self._mixers:
            mixers = [
                _together(n, count, dims, location == "append")
                if block is None
                else _rows_alone(n, _evaluation_rows(n, count, Stream(seed), block))
                for n, count, seed in zip(sizes, counts, self.seeds, strict=True)
            ]
            self._mixers[key] = _pad(mixers, like)
        return self._mixers[key]

    def _drawn(
        self, sizes: Sequence[int], counts: Sequence[int], index: int, step: Step, like: Tensor
    ) -> Tensor:
        """Mixer of rows that are drawn anew in every step: those with the smallest numbers."""
        length, device = like.shape[-2], like.device
        key = (tuple(sizes), "counts", device)
        if key not in self._mixers:
            with torch.inference_mode(False):
                self._mixers[key] = torch.tensor(counts, device=device)[:, None]
        row, depth = base.member_row(device), self.layout.depth
        numbers = step.draws.uniform("vfpt.rows", row, length, layers=depth, layer=index)
        exists = base.padding(sizes, device)
        numbers = numbers if exists is None else torch.where(exists, numbers, numbers + 1)
        rank = numbers.argsort(dim=-1, stable=True).argsort(dim=-1)
        chosen = rank < self._mixers[key]
        rest = ~chosen if exists is None else exists & ~chosen
        alone = torch.stack([chosen, torch.zeros_like(chosen), rest], dim=1).to(like.dtype)
        return alone.diag_embed().transpose(1, 2).flatten(2)


def _layers(name: str, depth: int) -> range:
    """Indices of the blocks whose prompts are transformed."""
    middle = (depth + 1) // 2
    return {
        "all": range(depth),
        "former": range(middle),
        "later": range(middle, depth),
        "mixed": range(0, depth, 2),
    }[name]


def _together(size: int, count: int, dims: str, append: bool) -> Tensor:
    """Mixer (parts, size, size) that transforms the first `count` rows over the prompt axis.

    The real part of the transform over prompts of a spectrum is cos @ real + sin @ imaginary.
    """
    order = torch.arange(count, dtype=torch.float64)
    angles = 2 * math.pi * (torch.outer(order, order) % max(count, 1)) / max(count, 1)
    start = size - count if append else 0
    mixed, cosine, sine = (torch.zeros(size, size, dtype=torch.float64) for _ in range(3))
    rest = torch.arange(count, size)
    mixed[rest - count if append else rest, rest] = 1
    rows = slice(start, start + count)
    if dims == "sequence":
        mixed[rows, :count] = angles.cos()
        return mixed[None]
    cosine[rows, :count] = angles.cos() if dims == "all" else torch.eye(count).double()
    if dims == "all":
        sine[rows, :count] = angles.sin()
    return torch.stack([cosine, sine, mixed])


def _rows_alone(size: int, rows: Tensor) -> Tensor:
    """Mixer (3, size, size) that takes some rows from the real spectrum, the others as they are."""
    chosen = torch.zeros(size, dtype=torch.float64).index_fill(0, rows, 1)
    return torch.stack([chosen.diag(), torch.zeros(size, size).double(), (1 - chosen).diag()])


def _evaluation_rows(size: int, count: int, stream: Stream, index: int) -> Tensor:
    """`count` of `size` rows, always the same."""
    generator = stream.generator("vfpt.evaluation_rows", index)
    return torch.randperm(size, generator=generator)[:count]


def _pad(mixers: Sequence[Tensor], like: Tensor) -> Tensor:
    """Stack the members' mixers (parts, n, n) to (M, P, parts * P) for prompts (M, ..., P, D)."""
    size = like.shape[-2]
    with torch.inference_mode(False):  # else one first made there could never be trained with
        full = torch.zeros(len(mixers), size, len(mixers[0]), size, dtype=torch.float64)
        for m, mixer in enumerate(mixers):
            n = mixer.shape[-1]
            full[m, :n, :, :n] = mixer.transpose(0, 1)
        return full.flatten(2).to(like.device, like.dtype)
