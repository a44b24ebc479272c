"""The pictures of a split that a segmentation finds least of, small, beside their masks."""

# Axes: M members, C classes, H x W of a mask.

import heapq
import io
import os
from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from tcpa_core.record.regions import SIDE, WORST, Shown, picture_iou
from tcpa_core.training.masked_source import MaskedSource
from tcpa_core.training.predicted import SWITCH

Small = npt.NDArray[np.uint8]


class WorstPictures:
    """Collects the worst pictures of every member, picture by picture.

    Args:
        source: The split.
        num_members: M.
    """

    def __init__(self, source: MaskedSource, num_members: int) -> None:
        self._source = source
        self._most = 0 if os.environ.get(SWITCH) == "0" else WORST
        self._found: list[list[tuple[float, int, Small]]] = [[] for _ in range(num_members)]
        """Of each member a heap, the best of its worst pictures first: its IoU negated, its number
        negated, and what was predicted."""

    def take(self, number: int, table: Tensor, predicted: Tensor) -> None:
        """Consider a picture.

        Args:
            number: In the split; ascending over all calls.
            table: Its confusion of pixels [M, C, C].
            predicted: Classes uint8 [M, H, W].
        """
        if not self._most:
            return
        of_members = table.cpu().numpy()
        for m, worst in enumerate(self._found):
            iou = picture_iou(of_members[m])
            if np.isnan(iou) or (len(worst) == self._most and -iou <= worst[0][0]):
                continue
            heapq.heappush(worst, (-iou, -number, small(predicted[m])))
            if len(worst) > self._most:
                heapq.heappop(worst)

    def of_members(self) -> list[Mapping[int, Shown]]:
        """Of each member its worst pictures by number, the worst first."""

        @cache
        def files(number: int) -> tuple[bytes, bytes]:
            pixels = self._source.unnormalised(self._source.picture(number))
            truth = small(self._source.truth(number))
            return jpeg(pixels, truth.shape), png(truth)

        found: list[Mapping[int, Shown]] = []
        for worst in self._found:
            ordered = sorted((-iou, -number, predicted) for iou, number, predicted in worst)
            found.append({n: Shown(*files(n), png(predicted)) for _, n, predicted in ordered})
        return found


def small(mask: Tensor) -> Small:
    """A mask (H, W) with its longest side of SIDE pixels at most: none is mixed of several."""
    image = Image.fromarray(mask.cpu().numpy().astype(np.uint8))
    size = _fitting(image.size)
    return np.asarray(image if size == image.size else image.resize(size, Image.Resampling.NEAREST))


def png(mask: Small) -> bytes:
    """A PNG file of classes, with a palette."""
    image = Image.fromarray(mask, mode="L").convert("L")
    image.putpalette(PALETTE)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def jpeg(pixels: Tensor, shape: tuple[int, ...]) -> bytes:
    """A picture of bytes [3, h, w], which trials may see squashed, in its mask's shape (H, W)."""
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    image = image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height with the longer one of SIDE at most."""
    longest = max(size)
    if longest <= SIDE:
        return size
    width, height = (max(1, round(side * SIDE / longest)) for side in size)
    return width, height


def _palette() -> bytes:
    """Colours of classes 0 to 255 that differ most for the first ones: the bits of a number, three
    at a time, are the highest bits of red, green and blue, as PASCAL VOC colours its masks."""
    colours = []
    for number in range(256):
        channels = [0, 0, 0]
        for place in range(8):
            for channel in range(3):
                channels[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
        colours += channels
    return bytes(colours)


PALETTE = _palette()
