"""What a training step sees: which images, how they are changed, and what they should be taken for.

Everything random is drawn from a member's own stream under the epoch's or the step's number, so
that a trial sees the same batches alone, in any pack, and after a resume.
"""

# Axes: M members, N images of the split, B batch, C classes.

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import BatchPart, Step
from tcpa_core.model.noise import has_noise
from tcpa_core.streams import Stream
from tcpa_core.training.image_source import ImageSource


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
    noise = any(config.train.mixup_alpha or has_noise(config) for config in configs)
    return _augments(configs[0]) or noise


def _augments(config: TrialConfig) -> bool:
    """True when the data layer changes training images at random; equal within a pack."""
    return config.data.flip or config.data.random_crop


def training_images(
    train: ImageSource, configs: Sequence[TrialConfig], indices: Tensor, step: Step
) -> Tensor:
    """Training images [M, B, 3, H, W] at indices [M, B], augmented by each member's stream."""
    if not _augments(configs[0]):
        return train.batch(indices.flatten(), None).unflatten(0, indices.shape)
    generators = [
        stream.generator("augment", t) for stream, t in zip(step.streams, step.steps, strict=True)
    ]
    return torch.stack([train.batch(i, g) for i, g in zip(indices, generators, strict=True)])


def smoothed_targets(smoothing: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Smoothed label distributions [M, B, C] of labels [M, B], by each member's share [M]."""
    share = smoothing.view(-1, 1, 1)
    return F.one_hot(labels, num_classes) * (1 - share) + share / num_classes


def mix(configs: Sequence[TrialConfig], images: Tensor, targets: Tensor, step: Step) -> None:
    """Mix images [M, B, ...] and targets [M, B, C] in place, where a member asks for it.

    Source: mixup, arXiv:1710.09412; partners are the batch in reverse order, as in timm.
    """
    for m, config in enumerate(configs):
        train = config.train
        if not train.mixup_alpha:
            continue
        # torch has no beta distribution that takes a generator; its seed is enough for numpy's.
        generator = step.streams[m].generator("mixup", step.steps[m])
        random = np.random.default_rng(generator.initial_seed())
        share = random.beta(train.mixup_alpha, train.mixup_alpha)
        if random.random() < train.mixup_prob:
            targets[m] = share * targets[m] + (1 - share) * targets[m].flip(0)
            images[m] = share * images[m] + (1 - share) * images[m].flip(0)
