"""What a training step sees: which images, how they are changed, and what they should be taken for.

Everything random is drawn from a member's own stream under the epoch's or the step's number, so
that a trial sees the same batches alone, in any pack, and after a resume.
"""

# Axes: M members, N images of the split, B batch, C classes.

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import BatchPart, Step, token_rows
from tcpa_core.model.noise import has_noise
from tcpa_core.streams import Stream
from tcpa_core.training.image_source import DRAWS, ImageSource


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
    return not (_augments(configs[0]) or any(config.train.mixup_alpha for config in configs))


def _augments(config: TrialConfig) -> bool:
    """True when the data layer changes training images at random; equal within a pack."""
    return config.data.flip or config.data.random_crop


def training_images(
    train: ImageSource, configs: Sequence[TrialConfig], indices: Tensor, step: Step
) -> Callable[[], Tensor]:
    """Begin to load images at indices [M, B], augmented by each member's stream.

    Returns:
        A function whose value is (M, B, 3, H, W), see `ImageSource.load`.
    """
    drawn = None
    if _augments(configs[0]):
        rows = token_rows(step, indices.shape[1], 1, train.where)
        drawn = step.draws.uniform("augment", rows, DRAWS)[:, :, 0].flatten(0, 1)
    load = train.load(indices.flatten(), drawn)
    return lambda: load().unflatten(0, indices.shape)


def smoothed_targets(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Smoothed label distributions [M, B, C].

    Args:
        values: What a member's image gives its own class and every other, [2, M, 1].
        labels: Classes [M, B].
        num_classes: C.
    """
    own, other = (value.expand_as(labels)[..., None] for value in values)
    return other.repeat(1, 1, num_classes).scatter_(-1, labels[..., None], own)


def mixed_shares(
    configs: Sequence[TrialConfig], streams: Sequence[Stream], steps: Sequence[Sequence[int]]
) -> Tensor | None:
    """What mixup takes of every image and of its partner, (steps, M, 2) on the CPU.

    None where nobody mixes.

    Args:
        configs: Of the members.
        streams: Of the members.
        steps: What the members make one after the other, each (M,).
    """
    if not any(config.train.mixup_alpha for config in configs):
        return None
    members = list(zip(configs, streams, strict=True))
    shares = [[_share(c, s, t) for (c, s), t in zip(members, at, strict=True)] for at in steps]
    kept = torch.tensor(shares, dtype=torch.float64)
    return torch.stack([kept, 1 - kept], dim=-1).float()


def _share(config: TrialConfig, stream: Stream, step: int) -> float:
    """1 where a batch is not mixed."""
    train = config.train
    if not train.mixup_alpha:
        return 1.0
    # torch has no beta distribution that takes a generator; its seed is enough for numpy's.
    random = np.random.default_rng(stream.key("mixup", step))
    share: float = random.beta(train.mixup_alpha, train.mixup_alpha)
    return share if random.random() < train.mixup_prob else 1.0


def mix(
    configs: Sequence[TrialConfig], images: Tensor, targets: Tensor, step: Step
) -> tuple[Tensor, Tensor]:
    """Images [M, B, ...] and targets [M, B, C], mixed where a member asks for it.

    Source: mixup, arXiv:1710.09412; partners are the batch in reverse order, as in timm.
    """
    shares = step.shares
    if shares is None:
        made = mixed_shares(configs, step.streams, [step.steps])
        if made is None:
            return images, targets
        shares = made[0].to(images.device)
    return _mixed(images, shares), _mixed(targets, shares)


def _mixed(x: Tensor, shares_M2: Tensor) -> Tensor:
    own, partner = shares_M2.view(-1, 2, *[1] * (x.ndim - 1)).unbind(1)
    return own * x + partner * x.flip(1)
