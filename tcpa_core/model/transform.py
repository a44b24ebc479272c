"""From one picture to what a trained network reads: the preprocessing of evaluation.

A data set's pictures are stored and cut in bulk (`tcpa_core.data`, `ImageSource`); this does the
same to a single one, to the bit. Other programs' resize and crop are not the same, and a network
sees the difference: digits of 8 x 8 pixels that torchvision enlarges cost half the accuracy.
"""

# Axes: S side of the image that the network reads.

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tcpa_core.data._decode import DEPTHS, FULL_DEPTH, ResizeRule, decode, is_deep, to_rgb, traits
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DataConfig, Triple

Picture = Image.Image | str | os.PathLike[str] | bytes | npt.NDArray[np.uint8]
"""A picture as Pillow opens it, the path of its file or what is in that, or its pixels: uint8
[H, W, 3], or grey [H, W]."""


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """(x / 255 - mean) / std as one product and one sum: float32 [3, 1, 1] each."""
    mean_3, std_3 = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, std))
    return (1 / (255 * std_3)).float(), (-mean_3 / std_3).float()


@dataclass(frozen=True, slots=True)
class Transform:
    """A callable from a picture to float32 [3, S, S], as a trial's val and test splits are read."""

    rule: ResizeRule
    """Resize and filter."""
    img_size: int
    """S, in pixels."""
    mean: Triple
    """Per channel, of values in [0, 1]."""
    std: Triple
    knows_depth: bool = True
    """False: it is not known by how many bits 16-bit grey pictures of the training were scaled."""

    @classmethod
    def of(
        cls, data: DataConfig, img_size: int, stats: tuple[Triple, Triple], grey_bits: int | None
    ) -> "Transform":
        """What the settings of a data set make of its pictures in evaluation.

        Args:
            data: Resize and filter.
            img_size: S.
            stats: Mean and std.
            grey_bits: Bits that the training's 16-bit grey pictures used, one of `DEPTHS`; None:
                not known, so that such a picture is refused.

        Raises:
            ConfigError: data.resize_to is smaller than the crop, or no such number of bits.
        """
        if grey_bits not in (None, *DEPTHS):
            raise ConfigError(
                f"grey_bits must be one of {', '.join(map(str, DEPTHS))}, got {grey_bits!r}."
            )
        depth = FULL_DEPTH if grey_bits is None else grey_bits
        rule = replace(ResizeRule.of(data, img_size), depth=depth)
        return cls(rule, img_size, *stats, knows_depth=grey_bits is not None)

    @property
    def grey_bits(self) -> int | None:
        """Bits by which 16-bit grey pictures are scaled; None: not known."""
        return self.rule.depth if self.knows_depth else None

    def __call__(self, picture: Picture) -> Tensor:
        """Numbers of one picture.

        Args:
            picture: Opened with Pillow (any mode), a file's path or content, or pixels as uint8.

        Returns:
            float32 [3, S, S] on the CPU.

        Raises:
            DataError: It cannot be read; its path is named.
        """
        scale, shift = scale_and_shift(self.mean, self.std)
        return self.pixels(picture).float().mul_(scale).add_(shift)

    def whole(self, picture: Picture) -> tuple[Tensor, tuple[int, int]]:
        """Numbers of a whole picture, of which nothing is cut off, as a segmentation is scored.

        Returns:
            float32 [3, h, w] on the CPU, and height and width of the picture itself.

        Raises:
            DataError: As of `__call__`.
        """
        image, place = self._opened(picture)
        seen = torch.from_numpy(np.array(self.rule.apply(image, place).transpose(2, 0, 1)))
        scale, shift = scale_and_shift(self.mean, self.std)
        return seen.float().mul_(scale).add_(shift), (image.height, image.width)

    def pixels(self, picture: Picture) -> Tensor:
        """The same before it is normalised: uint8 [3, S, S].

        Raises:
            DataError: As of `__call__`.
        """
        image, place = self._opened(picture)
        seen, side = self.rule.apply(image, place), self.img_size
        # As torchvision rounds the corner of a centre crop.
        top, left = (round((length - side) / 2) for length in seen.shape[:2])
        window = seen[top : top + side, left : left + side].transpose(2, 0, 1)
        return torch.from_numpy(np.array(window))

    def _opened(self, picture: Picture) -> tuple[Image.Image, str]:
        """RGB pixels at their own size, and what to call the picture in messages."""
        if isinstance(picture, str | os.PathLike):
            picture, place = _read(Path(picture)), str(picture)
        else:
            place = str(getattr(picture, "filename", "") or "a picture")
        if isinstance(picture, bytes):
            self._check_depth(traits(picture).depth > 0, place)
            return decode(picture, place, self.rule.depth), place
        if isinstance(picture, np.ndarray):
            return _of_pixels(picture), place
        if not isinstance(picture, Image.Image):
            raise DataError(
                "a picture must be a PIL image, a path, a file's bytes or uint8 pixels, got a "
                f"{type(picture).__name__}; of normalised tensors model(images) gives the logits."
            )
        self._check_depth(is_deep(picture), place)
        return to_rgb(picture, place, self.rule.depth), place

    def _check_depth(self, is_grey_16: bool, place: str) -> None:
        if is_grey_16 and not self.knows_depth:
            raise DataError(
                f"{place} is 16-bit grey, and the checkpoint is of an older version, which did not "
                "record by how many bits such pictures were scaled in training; give them with "
                "load_trained(path, grey_bits=16), or 8, 10, 12 or 14 ('tcpa data check' says it)."
            )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err.strerror}; correct the path.") from err


def _of_pixels(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not is_image or 0 in pixels.shape:
        raise DataError(
            f"pixels must be uint8 [H, W, 3] or [H, W], got {pixels.dtype} {list(pixels.shape)}."
        )
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
