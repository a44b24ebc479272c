"""Windows of pictures that are scaled by a factor of their own in every batch, on the device."""

# Axes: n images of a batch, S side of the window, H, W of the largest picture as it is stored.

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tcpa_core.data.base import Images

BLOCK = {"cpu": 2**20, "cuda": 2**25}
"""Values that are gathered at a time: they stay in the caches of a CPU, or keep a GPU busy."""
LARGEST = 255
"""Value of a pixel."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where windows lie in pictures that were scaled; all int64 [2, n], rows and columns."""

    stored: Tensor
    """Size of the picture as it is stored."""
    seen: Tensor
    """After scaling."""
    corner: Tensor
    """Of the window, in the scaled picture; >= 0."""

    def lines(self, side: int, step: int = 1) -> Tensor:
        """Every `step`-th row and column of the windows, in the scaled pictures [2, n, S]."""
        return self.corner[..., None] + torch.arange(0, side, step, device=self.corner.device)

    def inside(self, side: int, step: int = 1) -> Tensor:
        """Where a window shows the picture, and not what is beyond its end: bool [n, S, S]."""
        rows, columns = self.lines(side, step) < self.seen[..., None]
        return rows[:, :, None] & columns[:, None, :]

    def nearest(self, side: int, step: int = 1) -> Tensor:
        """Stored rows and columns whose pixels have the centres of the windows' [2, n, S]."""
        # In whole numbers, which are the same on every device.
        found = (
            (2 * self.lines(side, step) + 1) * self.stored[..., None] // (2 * self.seen[..., None])
        )
        return torch.minimum(found, self.stored[..., None] - 1)

    def weights(self, side: int, axis: int, longest: int, filter_: str, antialias: bool) -> Tensor:
        """How much of each stored line is in each line of the windows, float32 [n, S, longest].

        As Pillow resizes: a filter around the line's centre, wide enough to cover all that a line
        of a smaller picture stands for, or always two (four) lines without `antialias`. Lines
        beyond the picture have none.
        """
        stored, seen = (size[axis][:, None, None] for size in (self.stored, self.seen))
        lines = self.lines(side)[axis][..., None]
        taps = torch.arange(longest, device=stored.device)
        width = torch.maximum(stored, seen) if antialias else seen
        away = (2 * taps + 1) * seen - (2 * lines + 1) * stored
        found = _FILTERS[filter_]((away / (2 * width)).float().abs())
        found = torch.where((taps < stored) & (lines < seen), found, 0.0)
        # Beyond the picture all are 0, and stay so.
        return found / found.sum(-1, keepdim=True).clamp(min=1e-6)


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    """With a = -0.5, as Pillow's."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


_FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic}


class Scaler:
    """Cuts windows out of scaled pictures, without making the rest of them.

    Args:
        images: As they are stored.
        side: S.
        device: Where their pixels are to lie.
        filter_: bilinear or bicubic.
        antialias: As of `Places.weights`.
    """

    def __init__(
        self, images: Images, side: int, device: torch.device, filter_: str, antialias: bool
    ) -> None:
        self._pixels = flat_pixels(images, device)
        self._first = torch.from_numpy(images.offsets).to(device)
        self.stored = sizes(images, device)
        """Of each picture, int64 [2, images]."""
        self._seen = torch.from_numpy(np.stack(images.sizes())).to(device)
        self._side = side
        self._filter = filter_
        self._antialias = antialias
        self._longest = int(images.heights.max()), int(images.widths.max())
        values = 3 * self._longest[0] * self._longest[1]
        self.at_a_time: int | None = max(1, BLOCK[device.type] // values)
        """Images that are best cut together."""

    def cut(self, images: Tensor, corner: Tensor | None) -> Tensor:
        """Windows of pictures that are not scaled, see `Windows`."""
        seen = self._seen[:, images]
        corner = torch.zeros_like(seen) if corner is None else corner
        return self.cut_scaled(images, Places(self.stored[:, images], seen, corner))

    def cut_scaled(self, images: Tensor, places: Places) -> Tensor:
        """Windows of images [n], uint8 [n, 3, S, S]; of no meaning beyond a picture's end."""
        by_row, by_column = (
            places.weights(self._side, axis, self._longest[axis], self._filter, self._antialias)
            for axis in (0, 1)
        )
        pictures = self._padded(images, places.stored).float()
        # Columns first and whole values between, as Pillow does.
        found = (pictures @ by_column[:, None].mT).round_().clamp_(0, LARGEST)
        return (by_row[:, None] @ found).round_().clamp_(0, LARGEST).to(torch.uint8)

    def _padded(self, images: Tensor, stored: Tensor) -> Tensor:
        """Whole pictures, their last row and column repeated up to one size: [n, 3, H, W]."""
        height, width = stored[:, :, None]
        rows, columns = (torch.arange(size, device=images.device) for size in self._longest)
        rows = torch.minimum(rows, height - 1) * width
        columns = torch.minimum(columns, width - 1)
        planes = torch.arange(3, device=images.device) * (height * width)
        start = (self._first[images][:, None] + planes)[..., None, None]
        return self._pixels[start + (rows[:, :, None] + columns[:, None, :])[:, None]]


def flat_pixels(images: Images, device: torch.device) -> Tensor:
    """Pixels of all images one after another on a device; on the CPU those of the cache itself."""
    entries = [torch.from_numpy(entry.pixels) for entry in images.entries]
    if len(entries) == 1:
        return entries[0].to(device)
    pixels = torch.empty(sum(map(len, entries)), dtype=torch.uint8, device=device)
    for part, entry in zip(pixels.split([len(e) for e in entries]), entries, strict=True):
        part.copy_(entry)
    return pixels


def sizes(images: Images, device: torch.device) -> Tensor:
    """Heights and widths as they are stored, int64 [2, images]."""
    return torch.from_numpy(np.stack([images.heights, images.widths])).to(device)
