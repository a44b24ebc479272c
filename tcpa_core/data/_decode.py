"""From the bytes of an image file to RGB pixels of the size that trials use."""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import PIL
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError, features

from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DataConfig

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""Told by content, not by suffix: published sets hold GIF and PNG files named .jpg."""

MAX_PIXELS = 89_478_485
"""Largest image, before and after the resize: Pillow's own warning limit (a quarter GiB of RGB)."""

DECODER = f"pillow {PIL.__version__} jpeg {features.version('jpg')} webp {features.version('webp')}"
"""Other versions may give other pixels."""

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


@dataclass(frozen=True, slots=True)
class ResizeRule:
    """The deterministic part of the preprocessing, done once per image."""

    resize: Literal["squash", "short_side"]
    side: int
    """Both sides (squash) or the shorter one (short_side), in pixels."""
    interpolation: Literal["bicubic", "bilinear"]
    antialias: bool = True

    @classmethod
    def of(cls, cfg: DataConfig, img_size: int) -> "ResizeRule":
        """The rule that the settings ask for.

        Raises:
            ConfigError: data.resize_to is smaller than the crop.
        """
        if cfg.resize == "squash":
            return cls("squash", img_size, cfg.interpolation, cfg.antialias)
        side = cfg.short_side(img_size)
        if side < img_size:
            raise ConfigError(
                f"data.resize_to must be >= the image size {img_size}, from which the crop is cut, "
                f"got {side}; raise it or leave it out for {img_size * 256 // 224}."
            )
        return cls("short_side", side, cfg.interpolation, cfg.antialias)

    def __str__(self) -> str:
        text = f"{self.resize} {self.side} {self.interpolation}"
        return text if self.antialias else f"{text} aliased"

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the resize; torchvision's rounding (the long side is cut off)."""
        if self.resize == "squash":
            return self.side, self.side
        if width <= height:
            return self.side, int(self.side * height / width)
        return int(self.side * width / height), self.side

    def apply(self, image: Image.Image, place: str) -> npt.NDArray[np.uint8]:
        """Resize an RGB image.

        Returns:
            Pixels [H, W, 3].

        Raises:
            DataError: The long side of a strip-like image would become too long.
        """
        # A strip of 1 x 100,000 pixels is small, and huge once its short side is 256.
        size = self.size(*image.size)
        if size[0] * size[1] > MAX_PIXELS:
            raise DataError(
                f"{place}: {image.width} x {image.height} pixels would become {size[0]} x "
                f"{size[1]}, more than {MAX_PIXELS:,} pixels; crop the file or set "
                f"data.resize=squash."
            )
        if image.size == size:
            return np.asarray(image)
        if self.antialias:
            return np.asarray(image.resize(size, _FILTERS[self.interpolation]))
        return self._sample(np.array(image), size)

    def _sample(
        self, pixels: npt.NDArray[np.uint8], size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """Resize by the nearest pixels alone, which Pillow cannot."""
        channels = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        resized = F.interpolate(
            channels, size[::-1], mode=self.interpolation, align_corners=False, antialias=False
        )
        found: npt.NDArray[np.uint8] = (
            resized[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
        )
        return found


def decode(data: bytes, place: str) -> Image.Image:
    """Decode the first frame of an image file to 8-bit RGB.

    As torchvision's default loader (no EXIF rotation; alpha is dropped, not blended), except that
    16-bit grey is scaled to 8 bits, which a plain `convert` would clip to white.

    Args:
        data: Content of the file.
        place: Path and list line, for the message.

    Raises:
        DataError: Not an image, truncated, larger than `MAX_PIXELS`, or of a kind without a
            defined range (float or 32-bit pixels).
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        # From the header, before any pixel is decoded: a small file can ask for all memory.
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError("header")
        image.load()
        return _to_rgb(image, place)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise DataError(
            f"{place}: image is larger than {MAX_PIXELS:,} pixels; scale it down before use."
        ) from err
    except UnidentifiedImageError as err:
        raise DataError(
            f"{place}: {len(data)} bytes that are not an image ({', '.join(FORMATS)}); restore "
            f"the file, no image is skipped."
        ) from err
    except Exception as err:  # Pillow's parsers raise of every kind on damaged bytes
        raise DataError(
            f"{place}: image is damaged or truncated ({err}); restore the file, no image is "
            f"skipped."
        ) from err


def _to_rgb(image: Image.Image, place: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # The upper byte, as most programs show such a picture.
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise DataError(
            f"{place}: pixels of mode {image.mode!r} (float, 32-bit or Lab) have no defined way "
            f"to RGB; convert the file to 8-bit RGB."
        )
    if image.mode == "P":  # straight to RGB, Pillow warns about transparent palettes
        image = image.convert("RGBA")
    return image.convert("RGB")
