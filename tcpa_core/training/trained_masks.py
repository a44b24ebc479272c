"""Masks of a trained segmentation: the class of each pixel of a picture, at its own size."""

# Axes: C classes, H x W of a picture, h x w of what is scored of it.

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tcpa_core.data.base import ordered_map
from tcpa_core.errors import DataError
from tcpa_core.model.pack_model import PackModel
from tcpa_core.model.transform import Picture, Transform
from tcpa_core.training.loss import enlarged
from tcpa_core.training.precision import keep_float32_exact
from tcpa_core.training.sliding import PictureLogits
from tcpa_core.training.worst_pictures import png

Mask = Tensor
"""The class of each pixel of a picture, uint8 [H, W] on the CPU."""

WINDOWS = 8
"""Windows of a picture that are computed together."""


class Masks:
    """Segments pictures as the test of a trial did.

    Args:
        pack: A pack of one, whose task it is.
        transform: From a picture to what is scored of it.
    """

    def __init__(self, pack: PackModel, transform: Transform) -> None:
        self._device = pack.backbone.device
        self._logits = PictureLogits(pack)
        self._transform = transform

    def each(self, pictures: Iterable[Picture]) -> Iterator[Mask | DataError]:
        """The mask of each picture, or why it cannot be read."""
        for read in ordered_map(self._read, pictures):
            yield read if isinstance(read, DataError) else self._mask(*read)

    def _read(self, picture: Picture) -> tuple[Tensor, tuple[int, int]] | DataError:
        try:
            return self._transform.whole(picture)
        except DataError as err:
            return err

    @torch.no_grad()
    def _mask(self, picture: Tensor, size: tuple[int, int]) -> Mask:
        keep_float32_exact()
        ((logits,),) = self._logits([picture.to(self._device)], WINDOWS)
        return enlarged(logits[None], size)[0].argmax(0).to(torch.uint8).cpu()


def areas(masks: Sequence[Mask], num_classes: int) -> Tensor:
    """Share of each class among the pixels of masks: float32 [N, C]."""
    counts = [torch.bincount(mask.flatten().long(), minlength=num_classes) for mask in masks]
    empty = torch.zeros(0, num_classes)
    return torch.stack([n / n.sum() for n in counts]) if counts else empty


def save_mask(mask: Mask, file: Path) -> None:
    """Write a mask as a PNG with a palette; its numbers are the classes."""
    file.write_bytes(png(mask.numpy()))
