"""Loss and accuracy of all members of a pack on a whole split."""

# Axes: M members, N samples of the split, n samples of a turn, C classes.

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tcpa_core.methods.base import Step, Unchanged
from tcpa_core.model.pack_model import PackModel
from tcpa_core.record.predictions import SplitPredictions
from tcpa_core.training.by_rows import ByRows
from tcpa_core.training.kept_tokens import KeptTokens
from tcpa_core.training.memory import begun_copy
from tcpa_core.training.precision import autocast
from tcpa_core.training.predicted import Predicted, class_type
from tcpa_core.training.scored import Measured, Scored
from tcpa_core.training.trial_data import SplitName, TrialData


class Scores(NamedTuple):
    """Of all members on a whole split."""

    loss: list[float]
    """Mean cross-entropy of each member."""
    accuracy: list[float]
    classes: Tensor
    """What they took the images for, int16 or int32 [M, N] on the CPU."""

    def of(self, m: int) -> Measured:
        """Of one member."""
        # A copy: what is kept of a member keeps nothing of its neighbours alive.
        classes = self.classes[m].clone()
        return Measured(loss=self.loss[m], accuracy=self.accuracy[m], classes=classes)


class Evaluation:
    """Scores packs on the splits of a data set.

    Args:
        data: The splits.
        kept: What frozen blocks make of them.
        by_rows: Cuts a split so that memory holds each piece.
    """

    def __init__(self, data: TrialData, kept: KeptTokens, by_rows: ByRows) -> None:
        self._data = data
        self._kept = kept
        self._by_rows = by_rows

    def score(self, model: PackModel, split: SplitName) -> Scores:
        """Score every member on a whole split."""
        return self._score(model, split, lambda turn, logits, predicted: None)

    def test(self, model: PackModel) -> list[Scored]:
        """Score every member on the test split, which is read once."""
        scores, images = self.predict(model, "test")
        return list(map(Scored, scores.loss, scores.accuracy, images))

    def predict(
        self, model: PackModel, split: SplitName, known: Tensor | None = None
    ) -> tuple[Scores, list[SplitPredictions]]:
        """Score every member, and keep what it takes each image for.

        Args:
            known: What an earlier pass of the same states took the images for [M, N]: it counts,
                where rounding decides between two classes. None: this pass counts.
        """
        found = Predicted(self._data.split(split), len(self._data.class_names))

        def take(turn: slice, logits: Tensor, predicted: Tensor) -> None:
            first = predicted if known is None else known[:, turn].to(predicted)
            found.take(turn, logits, first)

        return self._score(model, split, take), found.of_members()

    @torch.no_grad()
    def _score(
        self, model: PackModel, split: SplitName, look: Callable[[slice, Tensor, Tensor], None]
    ) -> Scores:
        """Score every member.

        Args:
            look: Called with a range of images, their logits and the predicted classes.
        """
        source = self._data.split(split)
        # Sums in float64: in float32 the mean of a large split depends on how it was cut.
        sums = torch.zeros(2, model.num_members, device=source.labels.device, dtype=torch.float64)
        loss, hits = sums
        kind = class_type(len(self._data.class_names))
        classes = torch.empty(
            (model.num_members, len(source)), dtype=kind, device=source.labels.device
        )
        for turn, logits in self._logits(model, split):
            labels = source.labels[turn].expand(model.num_members, -1)
            loss += (
                F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none")
                .view_as(labels)
                .sum(1)
            )
            predicted = logits.argmax(-1)
            hits += (predicted == labels).sum(1)
            classes[:, turn] = predicted.to(kind)
            look(turn, logits, predicted)
        on_host = begun_copy(classes)  # arrives with the sums: a GPU is waited for once
        loss_M, accuracy_M = (sums / len(source)).tolist()
        return Scores(loss_M, accuracy_M, on_host)

    def _logits(self, model: PackModel, split: SplitName) -> Iterator[tuple[slice, Tensor]]:
        """Ranges of n samples and logits (M, n, C), until every sample was there once."""
        source, step = self._data.split(split), Step.evaluation(model.num_members)
        if model.features_are_frozen:
            # Only the head is left to compute: one product for the split, for all members.
            features = self._kept.of(model, split).expand(model.num_members, -1, -1)
            yield slice(None), model.classify(features, step).logits
            return

        kept = self._kept.of(model, split) if self._kept.keeps(model, split) else None

        def logits(turn: slice) -> Tensor:
            inputs = (source.batch(turn) if kept is None else kept[turn])[None]
            inputs = inputs.expand(model.num_members, *[-1] * (inputs.ndim - 1))
            with autocast(model.configs[0], inputs.device):
                if kept is not None:
                    return model.forward_trained(inputs, step).logits
                return model.predict(inputs, replace(step, unchanged=Unchanged(source, turn)))

        yield from self._by_rows(len(source), model.num_members, logits)
