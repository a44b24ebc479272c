"""The losses of one training step."""

# Axes: M members, B batch.

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from tcpa_core.methods.base import Step, Unchanged
from tcpa_core.model.pack_model import PackModel
from tcpa_core.training.batches import (
    parts,
    shows_stored_images,
    smoothed_targets,
    training_images,
)
from tcpa_core.training.kept_tokens import KeptTokens
from tcpa_core.training.loss import classification_loss
from tcpa_core.training.mixing import mix
from tcpa_core.training.precision import autocast
from tcpa_core.training.trial_data import TrialData


@dataclass(frozen=True, slots=True)
class Batch:
    """What the members see in one step."""

    inputs: Tensor
    """Images [M, B, 3, H, W], or what frozen blocks made of them."""
    targets: Tensor
    """Label distributions [M, B, C]."""
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

    def load(self, model: PackModel, indices: Tensor, step: Step) -> Callable[[], Tensor] | None:
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
        images: Callable[[], Tensor] | None = None,
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
        targets = smoothed_targets(
            model.target_values, train.labels[indices], len(self._data.class_names)
        )
        is_kept = self._kept.keeps(model, "train")
        if is_kept:
            inputs = self._kept.of(model, "train")[indices]
        else:
            images = images or training_images(train, configs, indices, step)
            inputs, targets = mix(configs, images(), targets, step)
        is_stored = not is_kept and shows_stored_images(configs)
        return Batch(inputs, targets, indices, is_kept, is_stored)

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
            loss = classification_loss(out, batch.targets[:, rows])
            penalty = out.penalty.float()
            if part:
                share = (part.rows.stop - part.rows.start) / size
                loss, penalty = share * loss, share * penalty
            yield loss, penalty
