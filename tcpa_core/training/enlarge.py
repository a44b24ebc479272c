"""Windows of pictures that are enlarged on the device, equal to Pillow's to the bit.

Pillow (13, `src/libImaging/Resample.c`, 8 bits per channel) resizes rows, then columns. A pixel of
the result is a sum of a few neighbours in whole numbers: weights have 22 bits after the point, and
each pass is rounded and cut to 0..255. Whole numbers give the same on every device.
"""

# Axes: n images of a batch, S side of the window, R rows of the source under it, K taps.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BITS = 22
"""Of a weight, after the point."""
BLOCK = 2**24
"""Values that are enlarged at a time: a GPU is busy, and what lies between takes 0.5 GiB."""
REACH = {"bilinear": 1, "bicubic": 2}
"""Pixels on each side that a pixel of the result is made of."""


def taps(
    size: int, to: int, interpolation: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Which pixels of a line make each pixel of the enlarged one, and how much of them.

    Args:
        size: Length of the line, >= 1.
        to: Length after the resize, >= size.
        interpolation: A name in `REACH`.

    Returns:
        The first pixel [to], and the weights of it and those that follow [to, K] in units of
        2^-BITS; 0 beyond the line. K is 2 * REACH.
    """
    assert size <= to, "a line that becomes shorter has other taps"
    reach = REACH[interpolation]
    if size == to:  # Pillow leaves out such a pass
        weights = np.zeros((to, 2 * reach), np.int32)
        weights[:, 0] = 1 << BITS
        return np.arange(to), weights
    center = (np.arange(to) + 0.5) * (size / to)
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((center + reach + 0.5).astype(np.int64), size)
    places = first[:, None] + np.arange(2 * reach)
    parts = _filter((places - center[:, None] + 0.5), reach)
    parts[places >= last[:, None]] = 0
    total = np.zeros(to)
    for k in range(2 * reach):  # in Pillow's order: floats do not add up alike in another one
        total += parts[:, k]
    scaled = parts / total[:, None] * (1 << BITS)
    return first, np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)).astype(np.int32)


def _filter(x: npt.NDArray[np.float64], reach: int) -> npt.NDArray[np.float64]:
    """Bilinear (1) or bicubic (2) with a = -0.5, in the order of Pillow's operations."""
    x = np.abs(x)
    if reach == 1:
        return np.where(x < 1, 1 - x, 0.0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """Taps of one axis for all sizes of a split, one after the other, on the device."""

    first: Tensor
    """First pixel of each line of a result, int64."""
    weights: Tensor
    """Of K pixels from there, int32 [lines, K]."""
    start: Tensor
    """Where the taps of each image begin, int64 [images]."""
    longest: int
    """Most source pixels under a window."""

    @classmethod
    def of(
        cls,
        sizes: npt.NDArray[np.int64],
        to: npt.NDArray[np.int64],
        window: int,
        interpolation: str,
        device: torch.device,
    ) -> "_Lines":
        """Taps for images of some sizes that are resized to others."""
        pairs, which = np.unique((sizes << 32) | to, return_inverse=True)
        made = [taps(int(pair >> 32), int(pair & 0xFFFFFFFF), interpolation) for pair in pairs]
        lengths = [len(first) for first, _ in made]
        starts = np.cumsum([0, *lengths[:-1]])
        spans = [int((f[window - 1 :] - f[: len(f) - window + 1]).max()) for f, _ in made]
        return cls(
            torch.from_numpy(np.concatenate([first for first, _ in made])).to(device),
            torch.from_numpy(np.concatenate([weights for _, weights in made])).to(device),
            torch.from_numpy(starts[which]).to(device),
            max(spans) + 2 * REACH[interpolation],
        )

    def window(self, images: Tensor, corner: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """First pixels [n, S] and weights [n, S, K] of a window of each image."""
        lines = (self.start[images] + corner)[:, None] + torch.arange(side, device=images.device)
        return self.first[lines], self.weights[lines]


class Enlarger:
    """Cuts windows out of enlarged pictures, without making the rest of them.

    Args:
        pixels: All images as they are stored, uint8, one after the other as three planes.
        first: Position of each image's first byte, int64 [images], on the same device.
        sizes: Height and width of each image as it is stored.
        seen: Same, as trials see it; at least `side` and not less than `sizes`.
        side: S.
        interpolation: A name in `REACH`.
    """

    def __init__(
        self,
        pixels: Tensor,
        first: Tensor,
        sizes: Sequence[npt.NDArray[np.int64]],
        seen: Sequence[npt.NDArray[np.int64]],
        side: int,
        interpolation: str,
    ) -> None:
        self._pixels = pixels
        self._first = first
        self._side = side
        self.at_a_time = max(1, BLOCK // (3 * side**2))
        """Images that are best cut together."""
        device = pixels.device
        self._heights, self._widths = (torch.from_numpy(size).to(device) for size in sizes)
        self._rows, self._columns = (
            _Lines.of(size, to, side, interpolation, device)
            for size, to in zip(sizes, seen, strict=True)
        )

    def cut(self, images: Tensor, corner: Tensor | None) -> Tensor:
        """Windows of images.

        Args:
            images: Which, int64 [n].
            corner: Row and column of the upper left corner in the enlarged image, int64 [2, n];
                None: it is as large as the window.

        Returns:
            uint8 [n, 3, S, S].
        """
        if corner is None:
            corner = torch.zeros((2, 1), dtype=torch.int64, device=images.device)
        top, by_row = self._rows.window(images, corner[0], self._side)
        left, by_column = self._columns.window(images, corner[1], self._side)
        lines = self._enlarged_rows(images, top[:, 0], left, by_column)
        # Rows of `lines` from which each row of the result is made; beyond the last, weights are 0.
        begin, end = top - top[:, :1], lines.shape[2] - 1
        total = self._zero(len(images), self._side)
        for k in range(by_row.shape[-1]):
            rows = (begin + k).clamp_(max=end)[:, None, :, None].expand_as(total)
            total.addcmul_(lines.gather(2, rows), by_row[:, None, :, k, None])
        return _pixel_values(total).to(torch.uint8)

    def _enlarged_rows(
        self, images: Tensor, top: Tensor, left: Tensor, by_column: Tensor
    ) -> Tensor:
        """The source's rows under a window, as wide as the window: int32 [n, 3, R, S]."""
        height, width = self._heights[images], self._widths[images]
        rows = top[:, None] + torch.arange(self._rows.longest, device=images.device)
        rows = torch.minimum(rows, height[:, None] - 1) * width[:, None]
        planes = torch.arange(3, device=images.device) * (height * width)[:, None]
        start = (self._first[images][:, None] + planes)[:, :, None] + rows[:, None]
        total = self._zero(len(images), self._rows.longest)
        for k in range(by_column.shape[-1]):
            columns = torch.minimum(left + k, width[:, None] - 1)[:, None, None]
            found = self._pixels[start[..., None] + columns]
            total.addcmul_(found.to(torch.int32), by_column[:, None, None, :, k])
        return _pixel_values(total)

    def _zero(self, count: int, rows: int) -> Tensor:
        shape = (count, 3, rows, self._side)
        return torch.full(shape, 1 << (BITS - 1), dtype=torch.int32, device=self._pixels.device)


def _pixel_values(total: Tensor) -> Tensor:
    """Sums of weighted pixels and a half, as pixels; in their place."""
    return total.bitwise_right_shift_(BITS).clamp_(0, 255)
