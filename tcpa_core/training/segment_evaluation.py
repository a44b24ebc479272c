"""Scores of segmentations: all members of a pack on a whole split, pixel by pixel, at the size of
its masks."""

# Axes: M members, C classes, H x W of a mask, h x w of a picture.

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tcpa_core.model.pack_model import PackModel
from tcpa_core.record.regions import MapScores
from tcpa_core.training.by_rows import EVAL_ROWS, ByRows
from tcpa_core.training.confusion import Counts, Tally, confusion
from tcpa_core.training.loss import enlarged, pixel_losses
from tcpa_core.training.scored import Measured, Scored
from tcpa_core.training.sliding import PictureLogits
from tcpa_core.training.trial_data import SplitName, TrialData
from tcpa_core.training.worst_pictures import WorstPictures

T = TypeVar("T")

VALUES = 2**26
"""Logits that are held at a time, about: 256 MiB."""


class SegmentScores(NamedTuple):
    """Of all members on a whole split."""

    loss: list[float]
    """Mean cross-entropy of the labelled pixels, of each member."""
    counts: list[Counts]

    def of(self, m: int) -> Measured:
        """Of one member."""
        # A copy: what is kept of a member keeps nothing of its neighbours alive.
        counts = Counts(*(tensor.clone() for tensor in self.counts[m]))
        scores = MapScores.of(counts.confusion.numpy())
        return Measured(
            loss=self.loss[m],
            accuracy=scores.accuracy,
            counts=counts,
            miou=scores.miou,
            mean_accuracy=scores.mean_accuracy,
        )


class View(NamedTuple):
    """How a picture is seen."""

    scale: float = 1.0
    is_mirrored: bool = False

    def of(self, picture: Tensor) -> Tensor:
        """A picture (3, h, w) so seen, at a size rounded to nearest."""
        if self.scale != 1:
            size = [max(1, math.floor(side * self.scale + 0.5)) for side in picture.shape[-2:]]
            picture = F.interpolate(picture[None], size, mode="bilinear", align_corners=False)[0]
        return picture.flip(-1) if self.is_mirrored else picture


class Compared(NamedTuple):
    """One picture beside its truth."""

    table: Tensor
    """Pixels by class and by what members took them for, int64 [M, C, C]."""
    loss: Tensor
    """Cross-entropy summed over labelled pixels [M]."""
    predicted: Tensor
    """Classes uint8 [M, H, W]."""


class SegmentEvaluation:
    """Scores packs on the splits of a data set.

    Args:
        data: The splits.
        by_rows: Cuts a split so that memory holds each piece.
    """

    def __init__(self, data: TrialData, by_rows: ByRows) -> None:
        self._data = data
        self._by_rows = by_rows
        self._num_classes = len(data.class_names)

    def score(self, model: PackModel, split: SplitName) -> SegmentScores:
        """Score every member on a whole split."""
        return self._score(model, split, lambda picture, found: None)

    def test(self, model: PackModel) -> list[Scored]:
        """Score every member on the test split, which is read once: its worst pictures are kept,
        and where its settings name scales, it is scored on these together as well."""
        source = self._data.masked("test")
        worst = WorstPictures(source, model.num_members)
        scores = self._score(model, "test", lambda n, one: worst.take(n, one.table, one.predicted))
        measured = [scores.of(m) for m in range(model.num_members)]
        return [
            Scored(
                loss=one.loss,
                accuracy=one.accuracy,
                miou=one.miou,
                mean_accuracy=one.mean_accuracy,
                counts=one.counts,
                pictures=pictures,
                miou_multiscale=multiscale,
            )
            for one, pictures, multiscale in zip(
                measured, worst.of_members(), self._multiscale(model), strict=True
            )
        ]

    @torch.no_grad()
    def _score(
        self, model: PackModel, split: SplitName, look: Callable[[int, Compared], None]
    ) -> SegmentScores:
        """Score every member.

        Args:
            look: Called with the number of every picture and what was found in it.
        """
        source = self._data.masked(split)
        tally = self._tally(model, split)
        loss = torch.zeros(model.num_members, dtype=torch.float64, device=source.device)
        logits = PictureLogits(model, self._by_rows.on_step)

        def compare(turn: slice) -> list[Compared]:
            numbers = range(turn.start, turn.stop)
            found = logits([source.picture(n) for n in numbers], len(numbers))
            return [self._compare(f, source.truth(n)) for n, f in zip(numbers, found, strict=True)]

        for number, found in self._each(model, len(source), 1.0, compare):
            tally.add(number, found.table)
            loss += found.loss
            look(number, found)
        counts, sums = tally.of_members(), loss.tolist()
        labelled = [int(of_member.labelled.sum()) for of_member in counts]
        return SegmentScores([a / max(1, b) for a, b in zip(sums, labelled, strict=True)], counts)

    @torch.no_grad()
    def _multiscale(self, model: PackModel) -> Sequence[float | None]:
        """Mean IoU of each member on test, of probabilities averaged over scales and mirroring."""
        settings: Any = model.configs[0].task_settings
        source = self._data.masked("test")
        if not settings.test_scales:
            return [None] * model.num_members
        mirrored = (False, True) if settings.test_mirror else (False,)
        views = [View(scale, flip) for scale in settings.test_scales for flip in mirrored]
        logits = PictureLogits(model, self._by_rows.on_step)
        tally = self._tally(model, "test")

        def table(number: int, at_a_time: int) -> Tensor:
            picture, truth = source.picture(number), source.truth(number)
            sums: Tensor | float = 0.0
            for view in views:
                (found,) = logits([view.of(picture)], at_a_time)
                shares = enlarged(found, truth.shape).softmax(1)
                sums = sums + (shares.flip(-1) if view.is_mirrored else shares)
            assert isinstance(sums, Tensor)
            return confusion(sums.argmax(1), truth, self._num_classes)

        def tables(turn: slice) -> list[Tensor]:
            numbers = range(turn.start, turn.stop)
            return [table(number, len(numbers)) for number in numbers]

        largest = max(1.0, *settings.test_scales)
        for number, found in self._each(model, len(source), largest, tables):
            tally.add(number, found)
        return [MapScores.of(counts.confusion.numpy()).miou for counts in tally.of_members()]

    def _compare(self, logits: Tensor, truth: Tensor) -> Compared:
        """Logits (M, C, h, w) of a picture beside its truth (H, W)."""
        most = logits.shape[1] * max(truth.numel(), logits.shape[-2:].numel())
        found = []
        for some in logits.split(max(1, VALUES // most)):  # members whose logits memory holds
            whole = enlarged(some, truth.shape)
            masks = truth.expand(len(whole), 1, *truth.shape)
            predicted = whole.argmax(1)
            table = confusion(predicted, truth, self._num_classes)
            loss = pixel_losses(whole.unsqueeze(1), masks)[:, 0]
            found.append(Compared(table, loss, predicted.to(torch.uint8)))
        return Compared(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _each(
        self, model: PackModel, count: int, scale: float, compute: Callable[[slice], list[T]]
    ) -> Iterator[tuple[int, T]]:
        """Each picture's number and what is computed for it.

        Args:
            count: Pictures.
            scale: Largest one that they are seen at.
            compute: Takes a range of pictures.
        """
        values = self._num_classes * (model.backbone.img_size * scale) ** 2
        weight = max(1, math.ceil(EVAL_ROWS * values / VALUES))
        for turn, found in self._by_rows(count, model.num_members * weight, compute):
            yield from zip(range(turn.start, turn.stop), found, strict=True)

    def _tally(self, model: PackModel, split: SplitName) -> Tally:
        source = self._data.masked(split)
        return Tally(model.num_members, len(source), self._num_classes, source.device)
