"""Masks as PNG files with a palette: a pixel is the number of its class, a palette its colours."""

import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

Mask = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]


def read_mask(file: bytes, most: int) -> Mask | None:
    """Classes of the pixels of a PNG file, uint8 [h, w]; None: it is none, or too large.

    Args:
        most: Longest side in pixels.
    """
    try:
        with Image.open(io.BytesIO(file), formats=["PNG"]) as image:
            if image.mode not in ("P", "L") or max(image.size) > most:
                return None
            return np.array(image, np.uint8)
    except (OSError, ValueError, SyntaxError):  # of a damaged file
        return None


def painted(mask: Mask, palette: Mapping[int, Rgb]) -> bytes:
    """A PNG file of a mask [h, w].

    Args:
        palette: Colours by class; all others are black.
    """
    image = Image.fromarray(mask)
    image.putpalette([part for label in range(256) for part in palette.get(label, (0, 0, 0))])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
