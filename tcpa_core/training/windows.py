"""Windows of a split's images, cut where the pixels lie: copied, gathered, or enlarged first."""

# Axes: n images of a batch, S side of the window.

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tcpa_core.data.base import Images, Pixels
from tcpa_core.training.enlarge import Enlarger

BLOCK = 2**18
"""Values that the CPU handles at a time, so that they stay in its cache from byte to result."""


class Windows(Protocol):
    """Cuts windows out of images."""

    @property
    def at_a_time(self) -> int | None:
        """Images that are best cut together; None: any number."""
        ...

    def cut(self, images: Tensor, corner: Tensor | None) -> Tensor:
        """Windows of images, as trials see them.

        Args:
            images: Which, int64 [n].
            corner: Row and column of the upper left corner, int64 [2, n]; None: images are as
                large as the window.

        Returns:
            uint8 [n, 3, S, S] where the pixels lie.
        """
        ...


def windows(images: Images, side: int, device: torch.device, room: float) -> Windows:
    """What cuts windows out of a split on a device.

    Args:
        images: At least `side` on both sides, as trials see them.
        side: S, in pixels.
        device: Where the pixels are to lie.
        room: Bytes that they may take there after they are enlarged. Where that is enough for a
            split of one size, it is enlarged once, otherwise whenever a batch is made.
    """
    found = _of_stored(images, side, device)
    heights, widths = images.sizes()
    seen = int(heights[0])
    is_square = bool((heights == seen).all() and (widths == seen).all())
    if not _is_enlarged(images) or not is_square or 3 * len(images) * seen**2 > room:
        return found
    whole = found if seen == side else _of_stored(images, seen, device)
    pixels = torch.empty((len(images), 3, seen, seen), dtype=torch.uint8, device=device)
    for part in torch.arange(len(images), device=device).split(whole.at_a_time or len(images)):
        pixels[part] = whole.cut(part, None)
    return _of_squares(pixels, side)


def _of_stored(images: Images, side: int, device: torch.device) -> Windows:
    """Cuts windows out of images, the small ones enlarged each time."""
    seen = images.sizes()
    is_uncropped = all((size == side).all() for size in seen)
    entries = [torch.from_numpy(entry.pixels) for entry in images.entries]
    enlarges = _is_enlarged(images)
    if device.type == "cpu":
        if is_uncropped and not enlarges and len(entries) == 1:
            return Whole(entries[0], side)
        return Copied(images.seen if enlarges else images.planes, side, threads=enlarges)
    pixels = torch.empty(sum(map(len, entries)), dtype=torch.uint8, device=device)
    for part, entry in zip(pixels.split([len(entry) for entry in entries]), entries, strict=True):
        part.copy_(entry)
    if is_uncropped and not enlarges:
        return Whole(pixels, side)
    first = torch.from_numpy(images.offsets).to(device)
    stored = images.heights, images.widths
    if images.rule and enlarges:
        return Enlarger(pixels, first, stored, seen, side, images.rule.interpolation)
    heights, widths = (torch.from_numpy(size).to(device) for size in stored)
    return Gathered(pixels, first, heights, widths, side)


def _of_squares(pixels: Tensor, side: int) -> Windows:
    """Cuts windows out of images of one size [images, 3, H, H]."""
    count, seen, device = len(pixels), pixels.shape[-1], pixels.device
    if seen == side:
        return Whole(pixels, side)
    if device.type == "cpu":
        planes = pixels.numpy()
        return Copied(lambda index: planes[index], side)
    first = torch.arange(count, device=device) * (3 * seen**2)
    size = torch.full_like(first, seen)
    return Gathered(pixels.flatten(), first, size, size, side)


def _is_enlarged(images: Images) -> bool:
    """Whether trials see an image in another size than it is stored in."""
    heights, widths = images.sizes()
    return bool((heights != images.heights).any() or (widths != images.widths).any())


class Whole:
    """Images that are as large as the window: nothing is cut."""

    def __init__(self, pixels: Tensor, side: int) -> None:
        self._pixels = pixels.view(-1, 3 * side * side)
        self._side = side
        self.at_a_time = _at_a_time(side) if pixels.device.type == "cpu" else None

    def cut(self, images: Tensor, corner: Tensor | None) -> Tensor:
        """See `Windows`."""
        found = self._pixels.index_select(0, images)
        return found.view(-1, 3, self._side, self._side)


class Gathered:
    """Pixels gathered one by one, which a GPU does as fast as it reads.

    Args:
        pixels: Of all images, one after the other as three planes.
        first: Position of each image's first byte [images].
        heights: Of each image [images].
        widths: Same.
        side: S.
    """

    def __init__(
        self, pixels: Tensor, first: Tensor, heights: Tensor, widths: Tensor, side: int
    ) -> None:
        self._pixels = pixels
        self._first = first
        self._sizes = heights, widths
        self._side = side
        self.at_a_time: int | None = None

    def cut(self, images: Tensor, corner: Tensor | None) -> Tensor:
        """See `Windows`."""
        height, width = (size[images] for size in self._sizes)
        start = self._first[images]
        if corner is not None:
            start = start + corner[0] * width + corner[1]
        line = torch.arange(self._side, device=images.device)
        planes = start.view(-1, 1) + (height * width).view(-1, 1) * line[:3]
        rows = planes.unsqueeze(-1) + width.view(-1, 1, 1) * line
        return self._pixels[rows.unsqueeze(-1) + line]


class Copied:
    """Images cut one by one, line by line, which the CPU does faster than gathering pixels.

    Args:
        planes: Gives an image as trials see it [3, H, W].
        side: S.
        threads: Ask for several images at a time, from as many threads as torch uses.
    """

    def __init__(
        self, planes: Callable[[int], Pixels], side: int, *, threads: bool = False
    ) -> None:
        self._planes = planes
        self._side = side
        self._threads = torch.get_num_threads() if threads else 1
        self.at_a_time = _at_a_time(side)
        if self._threads > 1:
            self.at_a_time = max(self.at_a_time, 4 * self._threads)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="enlarge")

    def cut(self, images: Tensor, corner: Tensor | None) -> Tensor:
        """See `Windows`."""
        side = self._side
        found = torch.empty(len(images), 3, side, side, dtype=torch.uint8)
        out, numbers = found.numpy(), images.tolist()
        tops, lefts = np.zeros((2, len(images)), int) if corner is None else corner.tolist()

        def cut_one(n: int) -> None:
            planes, top, left = self._planes(numbers[n]), tops[n], lefts[n]
            out[n] = planes[:, top : top + side, left : left + side]

        if self._threads > 1:
            list(self._pool.map(cut_one, range(len(numbers))))
        else:
            for n in range(len(numbers)):
                cut_one(n)
        return found


def _at_a_time(side: int) -> int:
    """Images whose values stay in the cache of the CPU."""
    return max(1, BLOCK // (3 * side**2))
