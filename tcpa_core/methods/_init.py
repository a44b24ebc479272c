"""How trained tensors start: each initialiser fills a tensor in place from a generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone

Init = Callable[[Tensor, Generator], object]
"""Fills a tensor in place."""


def constant(value: float) -> Init:
    """Initialise with one number."""
    return lambda tensor, generator: tensor.fill_(value)


def normal(mean: float, std: float) -> Init:
    """Initialise with N(mean, std^2)."""
    return lambda tensor, generator: tensor.normal_(mean, std, generator=generator)


def trunc02(tensor: Tensor, generator: Generator) -> Tensor:
    """Initialise with N(0, 0.02^2), cut off at -2 and 2."""
    return nn.init.trunc_normal_(tensor, std=0.02, generator=generator)


def uniform(bound: float) -> Init:
    """Initialise with U(-bound, bound)."""
    return lambda tensor, generator: tensor.uniform_(-bound, bound, generator=generator)


def vpt_bound(backbone: Backbone, width: int | None = None) -> float:
    """VPT's bound of the uniform prompt initialisation (Xavier over one image patch).

    Args:
        width: Of the prompts; None: the backbone's.
    """
    height, length = backbone.layout.patch_size
    return float((6 / (3 * height * length + (width or backbone.layout.embed_dim))) ** 0.5)


def copy_of(source: Tensor | None) -> Init:
    """Fill with what was fitted; before that, with running numbers that are never used."""

    def fill(tensor: Tensor, generator: Generator) -> Tensor:
        known = torch.arange(tensor.numel()).view(tensor.shape) if source is None else source
        return tensor.copy_(known.to(tensor.dtype))

    return fill
