"""The losses of one training step."""

# Axes: M members, B batch.

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from tcpa_core.methods.base import Step, Unchanged
from tcpa_core.model.pack_model import ModelOutput, PackModel
from tcpa_core.training.batches import (
    Loading,
    parts,
    shows_stored_images,
    smoothed_targets,
    training_images,
)
from tcpa_core.training.kept_tokens import KeptTokens
from tcpa_core.training.loss import classification_loss, num_labelled, segmentation_loss
from tcpa_core.training.masked_source import MaskedSource
from tcpa_core.training.mixing import mix
from tcpa_core.training.precision import autocast
from tcpa_core.training.trial_data import TrialData


@dataclass(frozen=True, slots=True)
class Batch:
    """What the members see in one step."""

    inputs: Tensor
    """Images [M, B, 3, H, W], or what frozen blocks made of them."""
    targets: Tensor
    """Label distributions [M, B, C], or masks: uint8 [M, B, H, W]."""
    indices: Tensor
    """Which images, [M, B]."""
    is_kept: bool
    """Whether frozen blocks have seen the images already."""
    is_stored: bool
    """Whether the images are those of the split, unchanged."""


class TrainingStep:
    """Runs batches of the training split through a pack, forward.

    Args:
        data: Whose training split.
        kept: What frozen blocks make of it.
        on_step: Called before every pass: a sign of life.
    """

    def __init__(self, data: TrialData, kept: KeptTokens, on_step: Callable[[], None]) -> None:
        self._data = data
        self._kept = kept
        self.on_step = on_step
        self.device = data.train.labels.device
        self.where = data.train.where
        """Where indices of images are read."""
        self.parts = 1
        """Into so many parts each batch is cut, so that it fits into memory."""

    def load(self, model: PackModel, indices: Tensor, step: Step) -> Loading | None:
        """Begin to load the images of a batch; what is returned gives them to `batch`.

        None where what frozen blocks make of them is kept.

        Args:
            model: The members.
            indices: As `batch` takes them, best where the pixels lie.
            step: Where each member is in its training.
        """
        if self._kept.keeps(model, "train"):
            return None
        return training_images(self._data.train, model.configs, indices, step)

    def batch(
        self,
        model: PackModel,
        indices: Tensor,
        step: Step,
        images: Loading | None = None,
    ) -> Batch:
        """What the members see in a step.

        Args:
            model: The members.
            indices: Images of the batch, [M, B].
            step: Where each member is in its training.
            images: What `load` returned for this step; None: they are loaded here.
        """
        train, configs = self._data.train, model.configs
        indices = indices.to(train.labels.device)
        is_kept = self._kept.keeps(model, "train")
        if is_kept:
            inputs = self._kept.of(model, "train")[indices]
            if isinstance(train, MaskedSource):
                targets = train.masks(indices.flatten()).unflatten(0, indices.shape)
            else:
                targets = self._labels(model, indices)
        else:
            inputs, masks = (images or training_images(train, configs, indices, step))()
            if masks is not None:
                targets = masks
            else:
                inputs, targets = mix(configs, inputs, self._labels(model, indices), step)
        is_stored = not is_kept and shows_stored_images(configs)
        return Batch(inputs, targets, indices, is_kept, is_stored)

    def _labels(self, model: PackModel, indices: Tensor) -> Tensor:
        """Label distributions [M, B, C] of images at indices."""
        labels = self._data.train.labels[indices]
        return smoothed_targets(model.target_values, labels, len(self._data.class_names))

    def losses(self, model: PackModel, batch: Batch, step: Step) -> Iterator[tuple[Tensor, Tensor]]:
        """Classification and method loss of one batch per member, both [M], part by part.

        The losses of the parts add up to those of the batch, and so do their gradients. A caller
        goes backward before it asks for the next part, so that one part's activations are alive.

        Args:
            model: The members.
            batch: As `batch` made it.
            step: Where each member is in its training.
        """
        run = model.forward_trained if batch.is_kept else model
        size = batch.targets.shape[1]
        # Images are drawn and mixed as a whole: a batch in parts is the same batch.
        for part in parts(size, self.parts):
            self.on_step()
            rows = part.rows if part else slice(None)
            stored = Unchanged(self._data.train, batch.indices[:, rows])
            at = replace(step, part=part, unchanged=stored if batch.is_stored else None)
            with autocast(model.configs[0], batch.targets.device):
                out = run(batch.inputs[:, rows], at)
            share = (part.rows.stop - part.rows.start) / size if part else 1.0
            penalty = out.penalty.float()
            yield _loss(out, batch.targets, rows, share), share * penalty if part else penalty


def _loss(out: ModelOutput, targets: Tensor, rows: slice, share: float) -> Tensor:
    """The share of a part of a batch in its loss [M].

    Args:
        out: Of the part.
        targets: Of the whole batch.
        rows: Which of its images are the part's.
        share: Of the images.
    """
    if not targets.is_floating_point():
        return segmentation_loss(out, targets[:, rows], num_labelled(targets))
    loss = classification_loss(out, targets[:, rows])
    return loss if share == 1 else share * loss
