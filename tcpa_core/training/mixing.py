"""What is done to a batch as a whole: mixup, CutMix, and rectangles that are erased.

Where and how much is drawn on the CPU from each member's own stream, for all steps of an epoch at
once; pixels are changed on the device that trains. The order is that of timm's training script:
images are mixed, then erased.

Source:
    mixup, arXiv:1710.09412; CutMix, arXiv:1905.04899; random erasing, arXiv:1708.04896;
    timm.data.mixup (mode "batch"), timm.data.random_erasing. Partners are the batch in reverse
    order, as in timm.
"""

# Axes: M members, B batch, C classes, H = W = image size.

import math
from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Mixing, Step, token_rows
from tcpa_core.philox import RESOLUTION
from tcpa_core.streams import Draws, Stream
from tcpa_core.training.timm_draws import drawing_from, timm_module

AREA = (0.02, 1 / 3)
"""Share of an image that is erased: timm's."""
LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))
"""Of its height over its width: timm's."""
ATTEMPTS = 10
"""Rectangles that are drawn until one fits into the image."""
_DRAWS = 1 + 4 * ATTEMPTS
"""Whether an image is erased; then, for each attempt, area, aspect, top and left."""

Box = tuple[int, int, int, int]
"""Top, bottom, left, right; bottom and right are the first rows and columns behind it."""
EMPTY: Box = (0, 0, 0, 0)


def mixings(
    configs: Sequence[TrialConfig],
    streams: Sequence[Stream],
    steps: Sequence[Sequence[int]],
    *,
    batch: int,
    side: int,
    device: torch.device,
) -> Sequence[Mixing]:
    """What is drawn for the batches of some steps, one copy to the device for each kind.

    Args:
        configs: Of the members.
        streams: Of the members.
        steps: What the members make one after the other, each (M,).
        batch: B; a smaller batch takes the first.
        side: H.
        device: That trains.
    """
    members = list(zip(configs, streams, strict=True))
    shares: Iterable[Tensor | None] = repeat(None)
    cuts: Iterable[Tensor | None] = repeat(None)
    erased: Iterable[Tensor | None] = repeat(None)
    if any(config.train.mixes for config in configs):
        drawn = [
            [_mixed(c, s, t, side) for (c, s), t in zip(members, at, strict=True)] for at in steps
        ]
        kept = torch.tensor([[share for share, _ in row] for row in drawn], dtype=torch.float64)
        shares = torch.stack([kept, 1 - kept], dim=-1).float().to(device)
        if any(config.train.cutmix_alpha for config in configs):
            cuts = torch.tensor([[box for _, box in row] for row in drawn]).to(device)
    prob = configs[0].data.erase_prob  # equal within a pack
    if prob > 0:
        erased = torch.stack([_erased(streams, at, prob, batch, side) for at in steps]).to(device)
    return [Mixing(*parts) for _, *parts in zip(steps, shares, cuts, erased, strict=False)]


def _mixed(config: TrialConfig, stream: Stream, step: int, side: int) -> tuple[float, Box]:
    """What a batch keeps of its own images and what of them is cut out; 1 where it is not mixed."""
    train = config.train
    if not train.mixes:
        return 1.0, EMPTY
    if not train.cutmix_alpha:
        return _share(train.mixup_alpha, train.mixup_prob, stream, step), EMPTY
    with drawing_from(stream.key("cutmix", step)) as place:
        switch = place.random()  # drawn where it decides nothing too: the rest stays the same
        if train.mixup_alpha and switch >= train.mixup_switch_prob:
            return _share(train.mixup_alpha, train.mixup_prob, stream, step), EMPTY
        share = _share(train.cutmix_alpha, train.mixup_prob, stream, step)
        find = timm_module("timm.data.mixup").cutmix_bbox_and_lam
        (top, bottom, left, right), share = find((3, side, side), share)
    # A rectangle of no area leaves a batch as it is, as it does in timm.
    return float(share), (int(top), int(bottom), int(left), int(right))


def _share(alpha: float, prob: float, stream: Stream, step: int) -> float:
    """What a batch keeps of its own images: Beta(alpha, alpha), or 1 where it is not mixed."""
    # torch has no beta distribution that takes a generator; its seed is enough for numpy's.
    random = np.random.default_rng(stream.key("mixup", step))
    share: float = random.beta(alpha, alpha)
    return share if random.random() < prob else 1.0


def _erased(
    streams: Sequence[Stream], steps: Sequence[int], prob: float, batch: int, side: int
) -> Tensor:
    """Rectangles that are erased in a step, int64 (M, B, 4); `EMPTY` where none is."""
    step = Step(training=True, epochs=(0,) * len(streams), steps=steps, streams=streams)
    rows = token_rows(step, batch, 1, torch.device("cpu"))
    drawn = Draws(streams, steps).uniform("erase", rows, _DRAWS)[:, :, 0].double().numpy()
    return torch.from_numpy(erased_boxes(drawn, prob, side))


def erased_boxes(drawn: npt.NDArray[np.float64], prob: float, side: int) -> npt.NDArray[np.int64]:
    """timm's rectangles (..., 4) for numbers in [0, 1) (..., 41) as its `random` draws them."""
    area, aspect, top, left = np.moveaxis(
        drawn[..., 1:].reshape(*drawn.shape[:-1], ATTEMPTS, 4), -1, 0
    )
    area = (AREA[0] + (AREA[1] - AREA[0]) * area) * side**2
    aspect = np.exp(LOG_ASPECT[0] + (LOG_ASPECT[1] - LOG_ASPECT[0]) * aspect)
    height = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    width = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (height < side) & (width < side)
    top, left = (
        np.floor(at * (side - size + 1)).astype(np.int64)
        for at, size in ((top, height), (left, width))
    )
    boxes = np.stack([top, top + height, left, left + width], axis=-1)
    first = fits.argmax(axis=-1)[..., None, None]
    found = np.take_along_axis(boxes, first, axis=-2)[..., 0, :]
    is_erased = (drawn[..., 0] <= prob) & fits.any(axis=-1)
    return np.where(is_erased[..., None], found, 0)


def mix(
    configs: Sequence[TrialConfig], images: Tensor, targets: Tensor, step: Step
) -> tuple[Tensor, Tensor]:
    """Images [M, B, 3, H, W] and targets [M, B, C], mixed and erased where members ask for it."""
    mixing = step.mixing
    if mixing is None:
        batch, side = images.shape[1], images.shape[-1]
        (mixing,) = mixings(
            configs, step.streams, [step.steps], batch=batch, side=side, device=images.device
        )
    if mixing.shares is not None:
        targets = _blend(targets, *_pair(mixing.shares, targets))
        images = _blend(images, *_shares_of_pixels(mixing, mixing.shares, images))
    if mixing.erased is not None:
        images = _erase(images, mixing.erased, configs[0].data.erase_mode, step)
    return images, targets


def _pair(shares_M2: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of an image and of its partner, each (M, 1, ...) with as many axes as x."""
    own, partner = shares_M2.view(-1, 2, *[1] * (x.ndim - 1)).unbind(1)
    return own, partner


def _shares_of_pixels(mixing: Mixing, shares: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """The same for every pixel: in what is cut out all is the partner's, around it nothing is."""
    own, partner = _pair(shares, images)
    if mixing.cut is None:
        return own, partner
    inside = _inside(mixing.cut.unsqueeze(1), images.shape[-1])
    cuts = (mixing.cut[:, 1] > mixing.cut[:, 0]).view(-1, 1, 1, 1, 1)
    own = torch.where(cuts, (~inside).to(own.dtype), own)
    return own, torch.where(cuts, inside.to(own.dtype), partner)


def _blend(x: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    return own * x + partner * x.flip(1)


def _erase(images: Tensor, boxes: Tensor, mode: str, step: Step) -> Tensor:
    """Rectangles [M, B, 4] of images filled with 0 or normal noise."""
    inside = _inside(boxes[:, : images.shape[1]], images.shape[-1])
    if mode == "const":
        return images.masked_fill(inside, 0.0)
    batch, channels, height, width = images.shape[1:]
    lines, count = (channels * height, width) if mode == "pixel" else (channels, 1)
    rows = token_rows(step, batch, lines, images.device)
    drawn = step.draws.uniform("erase noise", rows, count)
    # In the middle of a step of the numbers, so that none becomes infinite.
    noise = torch.special.ndtri(drawn + RESOLUTION / 2)
    shape = (channels, height, width) if mode == "pixel" else (channels, 1, 1)
    return torch.where(inside, noise.view(-1, batch, *shape), images)


def _inside(boxes: Tensor, side: int) -> Tensor:
    """Which pixels lie in rectangles (..., 4): boolean (..., 1, H, W)."""
    line = torch.arange(side, device=boxes.device)
    top, bottom, left, right = boxes.unsqueeze(-1).unbind(-2)
    rows = (line >= top) & (line < bottom)
    columns = (line >= left) & (line < right)
    return (rows.unsqueeze(-1) & columns.unsqueeze(-2)).unsqueeze(-3)
