"""Prompts in pixels: borders and patches as whole images, and features of images without any."""

# Axes: M members, K prompts of a member, H image side, F features.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from tcpa_core.made_once import made_once
from tcpa_core.methods.base import ParamSpec
from tcpa_core.model.blocks import plain_block

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone

COLOURS = 3
SIDES = ("top", "bottom", "left", "right")


def default_size(side: int) -> int:
    """Width of a prompt that covers the same share of an image as the authors' 30 of 224 pixels."""
    return round(side * 30 / 224)


def border_specs(
    side: int, size: int, count: int | None = None, **kind: float
) -> dict[str, ParamSpec]:
    """Tensors of a border of width `size`: 12 * size * (side - size) numbers per prompt.

    Args:
        count: Prompts; None: one, without an axis of its own.
        kind: Further fields of the specs.
    """
    lead = () if count is None else (count,)
    wide, tall = (*lead, COLOURS, size, side), (*lead, COLOURS, side - 2 * size, size)
    shapes = {"top": wide, "bottom": wide, "left": tall, "right": tall}
    return {name: ParamSpec(shape, standard_normal, **kind) for name, shape in shapes.items()}  # type: ignore[arg-type]


def borders(parts: Mapping[str, Tensor], sizes: Sequence[int], side: int) -> Tensor:
    """Whole images (M, ..., 3, H, H) that are 0 inside, from padded parts (M, ..., 3, _, _)."""
    # Widths differ between members, so each picture is put together by itself.
    images = []
    for m, size in enumerate(sizes):
        inner = side - 2 * size
        top, bottom = parts["top"][m][..., :size, :], parts["bottom"][m][..., :size, :]
        left, right = (parts[name][m][..., :inner, :size] for name in ("left", "right"))
        centre = left.new_zeros(*left.shape[:-1], inner)
        images.append(torch.cat([top, torch.cat([left, centre, right], dim=-1), bottom], dim=-2))
    return torch.stack(images)


def patches(patch: Tensor, sizes: Sequence[int], corners: Tensor, side: int) -> Tensor:
    """Whole images (M, 3, H, H) with each member's patch at its corner (row, column).

    Args:
        patch: (M, 3, _, _), padded.
        sizes: Side of each member's patch.
        corners: int64 (M, 2), on the device: no value of it is read by the host.
        side: H.
    """
    # Line of the patch that stands in each line of the image; outside of it, none does.
    lines = torch.arange(side, device=patch.device) - corners[..., None]
    ends = _ends(tuple(sizes), patch.device)
    inside = (lines >= 0) & (lines < ends)
    lines = torch.where(inside, lines, 0)
    rows, columns = lines[:, 0, None, :, None], lines[:, 1, None, None, :]
    tall = patch.gather(2, rows.expand(-1, COLOURS, -1, patch.shape[-1]))
    whole = tall.gather(3, columns.expand(-1, COLOURS, side, -1))
    seen = inside[:, 0, None, :, None] & inside[:, 1, None, None, :]
    return whole * seen


@made_once
def _ends(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(sizes, device=device).view(-1, 1, 1)


def standard_normal(tensor: Tensor, generator: Generator) -> Tensor:
    """Initialise with N(0, 1), as the authors do."""
    return tensor.normal_(generator=generator)


@torch.no_grad()
def frozen_features(backbone: Backbone, images: Tensor) -> Tensor:
    """Features (n, F) of unprompted images (n, 3, H, H), never in reduced precision.

    Clusters are found outside of autocast and images assigned to them inside; the two must agree.
    """
    backbone = backbone.full
    with torch.autocast(images.device.type, enabled=False):
        tokens = backbone.embed(images.to(backbone.dtype))[None]
        for block in backbone.blocks:
            tokens = plain_block(block, tokens)
        return backbone.read(tokens[0])
