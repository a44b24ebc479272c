"""From the bytes of an image file to RGB pixels of the size that trials use."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError, features
from PIL.TiffImagePlugin import TiffImageFile

from tcpa_core.data._formats import FORMATS, unread
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DataConfig

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 89_478_485
"""Largest image, before and after the resize: Pillow's own warning limit (a quarter GiB of RGB)."""

_LIMITS = {"JPEG2000": MAX_PIXELS // 4}
"""Of formats whose decoder takes more memory than the pixels: here four bytes a value."""

_VERSIONS = {
    "webp": "webp",
    **({"avif": "avif"} if "AVIF" in FORMATS else {}),
    **({"jpeg2000": "jpg_2000"} if "JPEG2000" in FORMATS else {}),
}

DECODER = " ".join(
    [
        f"pillow {PIL.__version__} jpeg {features.version('jpg')}",
        *(f"{name} {features.version(feature)}" for name, feature in _VERSIONS.items()),
    ]
)
"""Other versions may give other pixels."""

FULL_DEPTH = 16
DEPTHS = (8, 10, 12, 14, FULL_DEPTH)
"""Bits that the sensors behind 16-bit grey files use."""

_LAID_OPEN = (
    *(b"\x89PNG", b"P5", b"P2", b"II", b"MM", b"\0\0\0\x0cjP", b"\xffO\xffQ", b"GIF8", b"RIFF"),
    b"\0\0\0",  # AVIF: the length of a box
)
"""Beginnings of files that may hold 16-bit grey or transparent pixels. They are opened to ask for
traits, and of the others those with EXIF."""
_EXIF_WITHIN = 2**16
_ORIENTATION = 0x0112

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


LONGEST = 4
"""Largest ratio of the sides of a picture that is enlarged batch by batch: a strip of 1 x 100
pixels would be enlarged as a whole each time, and one crop of it used."""


@dataclass(frozen=True, slots=True)
class ResizeRule:
    """The deterministic part of the preprocessing.

    A picture that it makes smaller is stored as it comes out; one that it enlarges is stored at its
    own size, and enlarged when a batch is made.
    """

    resize: Literal["squash", "short_side"]
    side: int
    """Both sides (squash) or the shorter one (short_side), in pixels."""
    interpolation: Literal["bicubic", "bilinear"]
    antialias: bool = True
    depth: int = FULL_DEPTH
    """Bits that the 16-bit grey pictures of the data set use, one of `DEPTHS`."""
    whole: bool = False
    """Every picture is stored at its own size, so that random parts can be cut out of it."""
    margin: float = 1.0
    """Largest factor by which a picture is scaled when a batch is made: it is stored as large as
    that asks for, or at its own size."""

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

    def of_train(self, cfg: DataConfig) -> "ResizeRule":
        """The same for training images, which may have a filter of their own, and be cut."""
        own = cfg.train_interpolation
        # "random" is for parts and distortions alone.
        interpolation = self.interpolation if own is None or own == "random" else own
        margin = cfg.scale_range[1] if cfg.scale_range else 1.0
        return replace(self, interpolation=interpolation, whole=cfg.cuts_parts, margin=margin)

    def __str__(self) -> str:
        """What stored pixels depend on."""
        text = "whole" if self.whole else f"{self.resize} {self.side} {self.interpolation}"
        text = text if self.antialias or self.whole else f"{text} aliased"
        text = text if self.margin == 1 or self.whole else f"{text} times {self.margin:g}"
        return text if self.depth == FULL_DEPTH else f"{text} grey {self.depth}"

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the resize; torchvision's rounding (the long side is cut off).

        What has been resized once stays as it is.
        """
        if self.resize == "squash":
            return self.side, self.side
        if width <= height:
            return self.side, int(self.side * height / width)
        return int(self.side * width / height), self.side

    def stored_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in the cache, of which `size` is the same, but for rounding where there
        is a margin."""
        if self.whole:
            return width, height
        to_width, to_height = self.size(width, height)
        if self.margin != 1:  # batches are made of it with a filter of their own
            larger = round(to_width * self.margin), round(to_height * self.margin)
            return (width, height) if width <= larger[0] or height <= larger[1] else larger
        is_enlarged = width <= to_width and height <= to_height
        # Without antialias, torch resizes in floats, which not every device rounds alike.
        if self.antialias and is_enlarged and max(to_width, to_height) <= LONGEST * self.side:
            return width, height
        return to_width, to_height

    def apply(self, image: Image.Image, place: str) -> Pixels:
        """Resize an RGB image.

        Returns:
            Pixels [H, W, 3].

        Raises:
            DataError: The long side of a strip-like image would become too long.
        """
        return self._resized(image, self.size(*image.size), place)

    def store(self, image: Image.Image, place: str) -> Pixels:
        """What the cache keeps of an RGB image, of which `enlarge` makes what `apply` does.

        Returns:
            Pixels [H, W, 3].

        Raises:
            DataError: As `apply`.
        """
        return self._resized(image, self.stored_size(*image.size), place)

    def enlarge(self, planes: Pixels) -> Pixels:
        """What a batch is made of.

        Args:
            planes: A stored image [3, h, w].

        Returns:
            The same image [3, H, W] as `apply` gives it, a view.
        """
        height, width = planes.shape[1:]
        size = self.size(width, height)
        if size == (width, height):
            return planes
        image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
        return self._resized(image, size, "a stored image").transpose(2, 0, 1)

    def _resized(self, image: Image.Image, size: tuple[int, int], place: str) -> Pixels:
        # A strip of 1 x 100,000 pixels is small, and huge once its short side is 256.
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

    def _sample(self, pixels: Pixels, size: tuple[int, int]) -> Pixels:
        """Resize by the nearest pixels alone, which Pillow cannot."""
        channels = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        resized = F.interpolate(
            channels, size[::-1], mode=self.interpolation, align_corners=False, antialias=False
        )
        found: Pixels = resized[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
        return found


def header_size(file: Path | BinaryIO) -> tuple[int, int] | None:
    """Width and height that an image file says it has; None: it says nothing that can be read."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            return image.size
    except Exception:  # as `decode`, which will say why
        return None


def decode(data: bytes, place: str, depth: int = FULL_DEPTH) -> Image.Image:
    """Decode the first frame of an image file to 8-bit RGB.

    As torchvision's default loader (no EXIF rotation; alpha is dropped, not blended), except that
    16-bit grey is scaled to 8 bits, which a plain `convert` would clip to white.

    Args:
        data: Content of the file.
        place: Path and list line, for the message.
        depth: Bits that the 16-bit grey pictures of the data set use, one of `DEPTHS`.

    Raises:
        DataError: Not an image, truncated, larger than `MAX_PIXELS`, or of a kind without a
            defined range (float or 32-bit pixels).
    """
    try:
        image = open_header(data, place)
        image.load()
        return to_rgb(image, place, depth)
    except DataError:
        raise
    except UnidentifiedImageError as err:
        raise DataError(f"{place}: {unread(data)}.") from err
    except Exception as err:  # Pillow's parsers raise of every kind on damaged bytes
        raise DataError(
            f"{place}: image is damaged or truncated ({err}); restore the file."
        ) from err


class Traits(NamedTuple):
    """What is asked of a picture before pixels are made of it; all 0 where it cannot be read."""

    depth: int = 0
    """Bits that it uses where it is 16-bit grey, one of `DEPTHS`."""
    is_turned: bool = False
    """EXIF says that it is to be shown turned or mirrored, which `decode` does not do."""
    is_transparent: bool = False
    """It has pixels that are not opaque, whose alpha `decode` drops."""


def traits(data: bytes) -> Traits:
    """Traits of an image file."""
    has_exif = data.find(b"Exif", 0, _EXIF_WITHIN) >= 0
    if not (has_exif or data.startswith(_LAID_OPEN)):
        return Traits()
    try:
        image = open_header(data, "")
        # Pillow itself turns TIFF.
        is_turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) not in (0, 1)
        if is_deep(image):
            largest = int(np.asarray(image).max())
            depth = next(depth for depth in DEPTHS if largest < 1 << depth)
            return Traits(depth, is_turned=is_turned)
        return Traits(is_turned=is_turned, is_transparent=_is_transparent(image))
    except Exception:  # damaged bytes: `decode` says so, with their place
        return Traits()


def _is_transparent(image: Image.Image) -> bool:
    if image.mode not in ("LA", "PA", "RGBA") and "transparency" not in image.info:
        return False
    return bool(np.asarray(image.convert("RGBA"))[..., 3].min() < 255)


def open_header(data: bytes, place: str) -> Image.Image:
    """An image of which the header is read, and no pixel: a small file can ask for all memory.

    Raises:
        DataError: It is too large, or shows another one in small.
        Exception: Anything else of Pillow's.
    """
    limit = MAX_PIXELS
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        limit = _LIMITS.get(image.format or "", limit)
        is_too_large = image.width * image.height > limit
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        is_too_large = True
    if is_too_large:
        raise DataError(
            f"{place}: image is larger than {limit:,} pixels; scale it down before use."
        )
    if isinstance(image, TiffImageFile) and (data[8:10] == b"CR" or image.tag_v2.get(254) == 1):
        raise DataError(
            f"{place}: the first picture of this TIFF is a small copy of another one, as in a "
            "camera's RAW files; develop it to JPEG, PNG or TIFF."
        )
    return image


def is_deep(image: Image.Image) -> bool:
    """Whether it is 16-bit grey."""
    is_plain = image.mode == "I" and image.format in ("PNG", "PPM")
    return is_plain or image.mode.startswith("I;16")


def to_rgb(image: Image.Image, place: str, depth: int) -> Image.Image:
    """Pixels of an opened image as 8-bit RGB.

    Args:
        image: Of any mode.
        place: Where it comes from, for the message.
        depth: As of `decode`.

    Raises:
        DataError: Of a kind without a defined range (float or 32-bit pixels).
    """
    if is_deep(image):
        # The upper bits of those in use; of all 16 the upper byte, as most programs show them.
        grey = (np.asarray(image).astype(np.uint32) >> (depth - 8)).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise DataError(
            f"{place}: pixels of mode {image.mode!r} (float, 32-bit or Lab) have no defined way "
            f"to RGB; convert the file to 8-bit RGB."
        )
    if image.mode == "P":  # straight to RGB, Pillow warns about transparent palettes
        image = image.convert("RGBA")
    return image.convert("RGB")
