"""What a model takes each image of a split for: the classes that it ranks first.

Kept of trials that are scored on the test split, in that very pass.
"""

# Axes: M members, N images of the split, n images of a turn, C classes, k classes kept.

import io
import os

import torch
from PIL import Image
from torch import Tensor

from tcpa_core.record.predictions import MOST_CLASSES, SplitPredictions
from tcpa_core.training.image_source import ImageSource

ROWS = 2**20
"""Numbers of logits that are ranked at a time: what a large split needs beside them is bounded."""
MOST_PICTURES = 48
"""Small pictures that are kept of a trial: of mistakes on test, those that look least like their
label to it."""
SIDE = 64
"""Longest side of such a picture in pixels; a JPEG file of 1 to 3 KB."""
SWITCH = "TCPA_THUMBNAILS"
"""Environment variable: "0" keeps no pictures."""


def class_type(num_classes: int) -> torch.dtype:
    """The integers in which classes are kept."""
    return torch.int16 if num_classes <= torch.iinfo(torch.int16).max else torch.int32


class Predicted:
    """Collects what every member takes the images of a split for, turn by turn.

    Args:
        source: The split.
        num_classes: C.
    """

    def __init__(self, source: ImageSource, num_classes: int) -> None:
        self._source = source
        self._type = class_type(num_classes)
        self._count = min(MOST_CLASSES, num_classes)
        self._turns: list[tuple[Tensor, Tensor, Tensor]] = []
        """Classes [M, n, k], their probabilities and those of the label [M, n], on the CPU."""

    def take(self, turn: slice, logits: Tensor, predicted: Tensor) -> None:
        """Rank the classes of a turn.

        Args:
            turn: Which images; ascending over all calls.
            logits: [M, n, C].
            predicted: The class that accuracy counts, int64 [M, n]. It stands first, whatever
                rounding or equal logits make of the others.
        """
        labels = self._source.labels[turn].expand(len(logits), -1)
        at_a_time = max(1, ROWS // (logits.shape[0] * logits.shape[2]))
        for part in zip(*(t.split(at_a_time, 1) for t in (logits, predicted, labels)), strict=True):
            self._turns.append(self._ranked(*part))

    def _ranked(
        self, logits: Tensor, predicted: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits, first = logits.float(), predicted.unsqueeze(-1)
        # Finite, so that the predicted class is behind every other one and not taken twice.
        others = logits.nan_to_num().scatter(-1, first, -torch.inf)
        classes = torch.cat([first, others.topk(self._count - 1).indices], -1)
        total = logits.logsumexp(-1, keepdim=True)
        probabilities = (logits.gather(-1, classes) - total).exp()
        of_label = (logits.gather(-1, labels.unsqueeze(-1)) - total).exp().squeeze(-1)
        return classes.to(self._type).cpu(), probabilities.cpu(), of_label.cpu()

    def of_members(self) -> list[SplitPredictions]:
        """What each member takes all images for."""
        classes, probabilities, of_label = (
            torch.cat(parts, 1) for parts in zip(*self._turns, strict=True)
        )
        labels = self._source.labels.to(self._type).cpu().numpy()
        return [
            SplitPredictions(self._source.keys, labels, *(t[m].numpy() for t in tensors))
            for m in range(len(classes))
            for tensors in [(classes, probabilities, of_label)]
        ]


def thumbnails(source: ImageSource, found: SplitPredictions) -> dict[int, bytes]:
    """Small pictures of mistakes, as JPEG by number: those with the least probability of the label.

    Such images are much the same for all trials, so that those that no trial gets right are among
    them.

    Args:
        source: The split that `found` is of.
    """
    if os.environ.get(SWITCH) == "0":
        return {}
    mistakes = torch.from_numpy(found.classes[:, 0] != found.labels).nonzero().flatten()
    order = torch.from_numpy(found.of_label)[mistakes].argsort(stable=True)
    chosen = mistakes[order[:MOST_PICTURES]]
    pixels = source.pixels(chosen)
    return {int(n): _jpeg(image) for n, image in zip(chosen, pixels, strict=True)}


def _jpeg(pixels: Tensor) -> bytes:
    """A small picture of bytes [3, H, W]."""
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()
