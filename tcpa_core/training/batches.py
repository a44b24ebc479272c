"""What a training step sees: which images, changed one by one, and what they should be taken for.

Everything random is drawn from a member's own stream under the epoch's or the step's number, so
that a trial sees the same batches alone, in any pack, and after a resume.
"""

# Axes: M members, N images of the split, B batch, C classes.

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import BatchPart, Step, token_rows
from tcpa_core.model.noise import has_noise
from tcpa_core.streams import Stream
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.masked_source import MaskedSource

Loading = Callable[[], tuple[Tensor, Tensor | None]]
"""Gives images and masks that are loaded meanwhile."""


def order(stream: Stream, epoch: int, count: int) -> Tensor:
    """Order of the training images in an epoch (0-based), (N,)."""
    return torch.randperm(count, generator=stream.generator("order", epoch))


def num_images(count: int, config: TrialConfig) -> int:
    """Images that an epoch trains on: all, or those of its whole batches (`train.drop_last`)."""
    rest = count % config.train.batch_size
    return count - rest if config.train.drop_last and rest < count else count


def batches(orders_MN: Tensor, config: TrialConfig) -> Sequence[Tensor]:
    """The images of an epoch, batch by batch, each (M, B)."""
    used = orders_MN[:, : num_images(orders_MN.shape[1], config)]
    return used.split(config.train.batch_size, dim=1)


def parts(size: int, count: int) -> Iterator[BatchPart | None]:
    """Cut a batch into parts of nearly equal size; None: the whole batch."""
    if count == 1:
        yield None
        return
    ends = [size * i // count for i in range(count + 1)]
    for start, stop in pairwise(ends):
        if stop > start:
            yield BatchPart(slice(start, stop), size)


def changes_images(configs: Sequence[TrialConfig]) -> bool:
    """True when a training image may have other features from epoch to epoch."""
    return not shows_stored_images(configs) or any(has_noise(config) for config in configs)


def shows_stored_images(configs: Sequence[TrialConfig]) -> bool:
    """True when training images are those of the split in every epoch."""
    # What the data layer does is equal within a pack.
    return not (configs[0].data.augments or any(config.train.mixes for config in configs))


def training_images(
    train: ImageSource, configs: Sequence[TrialConfig], indices: Tensor, step: Step
) -> Loading:
    """Begin to load images at indices [M, B], augmented by each member's stream, with their masks.

    Returns:
        A function whose value is images (M, B, 3, H, W), see `ImageSource.load`, and masks
        (M, B, H, W), see `MaskedSource.masks`; None where images have labels.
    """
    drawn = None
    if configs[0].data.augments:
        rows = token_rows(step, indices.shape[1], 1, train.where)
        drawn = step.draws.uniform("augment", rows, train.num_draws)[:, :, 0].flatten(0, 1)
    flat, shape = indices.flatten(), indices.shape
    load = train.load(flat, drawn)
    masks = None
    if isinstance(train, MaskedSource):
        masks = train.masks(flat, drawn).unflatten(0, shape)
    return lambda: (load().unflatten(0, shape), masks)


def smoothed_targets(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Smoothed label distributions [M, B, C].

    Args:
        values: What a member's image gives its own class and every other, [2, M, 1].
        labels: Classes [M, B].
        num_classes: C.
    """
    own, other = (value.expand_as(labels)[..., None] for value in values)
    return other.repeat(1, 1, num_classes).scatter_(-1, labels[..., None], own)
