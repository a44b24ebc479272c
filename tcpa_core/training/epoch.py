"""One epoch of optimiser steps: the only training loop there is."""

# Axes: M members.

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tcpa_core.methods.base import Step
from tcpa_core.model.blocks import compiled_blocks
from tcpa_core.streams import Stream, offsets
from tcpa_core.training.batches import Loading, batches, order
from tcpa_core.training.mixing import mixings
from tcpa_core.training.optim import floor_at, lr_at
from tcpa_core.training.stacks import Stacks
from tcpa_core.training.step import Batch, TrainingStep


def train_epoch(stacks: Stacks, training: TrainingStep, count: int) -> tuple[Tensor, list[float]]:
    """Train the stacks on; the members they were made from stay as they are.

    Args:
        stacks: Changed in place.
        training: Gives the losses.
        count: Training images.

    Returns:
        Losses [steps, 3, M] on the CPU (total, classification, method) and the last rates.
    """
    members, model, optimizer = stacks.members, stacks.model, stacks.optimizer
    streams = [Stream(m.config.seed) for m in members]
    orders = [order(s, m.epoch, count) for m, s in zip(members, streams, strict=True)]
    # One copy to the device for all steps, and none for those who read images elsewhere.
    epoch, read = (
        batches(torch.stack(orders).to(device), members[0].config)
        for device in (training.device, training.where)
    )
    # A restarted member's schedule counts from its present stage; random draws never restart.
    done = [m.step - m.stage_step for m in members]
    totals = [(m.config.train.epochs - m.stage_epoch) * len(epoch) for m in members]
    rates, floors = (
        [
            [
                at(m.config.optim, start + i, total)
                for m, start, total in zip(members, done, totals, strict=True)
            ]
            for i in range(len(epoch))
        ]
        for at in (lr_at, floor_at)
    )
    optimizer.schedule(rates, floors)
    losses = []
    steps = _steps(stacks, streams, epoch, training.device)
    loads = _one_ahead(steps, read, partial(training.load, model))
    for (step, images), indices in zip(loads, epoch, strict=True):
        optimizer.advance()
        batch = training.batch(model, indices, step, images)
        losses.append(_train_batch(stacks, training, batch, step))
    # Read once per epoch: a copy to the CPU in every step would have the device wait for it.
    return torch.stack(losses).float().cpu(), rates[-1]


def _one_ahead(
    steps: Iterable[Step],
    epoch: Iterable[Tensor],
    load: Callable[[Tensor, Step], Loading | None],
) -> Iterator[tuple[Step, Loading | None]]:
    """Each step with its images; those of the next one are begun before it is trained."""
    before = None
    for step, indices in zip(steps, epoch, strict=True):
        loading = step, load(indices, step)
        if before is not None:
            yield before
        before = loading
    if before is not None:
        yield before


def _steps(
    stacks: Stacks, streams: Sequence[Stream], epoch: Sequence[Tensor], device: torch.device
) -> Iterator[Step]:
    """The steps of an epoch; what their random numbers follow from is one copy to the device."""
    members = stacks.members
    numbers = [[m.step + i for m in members] for i in range(len(epoch))]
    starts = offsets(numbers, device)
    mixed = mixings(
        [m.config for m in members],
        streams,
        numbers,
        batch=epoch[0].shape[1],
        side=stacks.model.backbone.img_size,
        device=device,
    )
    for at, start, mixing in zip(numbers, starts, mixed, strict=True):
        yield Step(
            training=True,
            epochs=[m.epoch for m in members],
            steps=at,
            streams=streams,
            offsets=start,
            mixing=mixing,
        )


def _train_batch(stacks: Stacks, training: TrainingStep, batch: Batch, step: Step) -> Tensor:
    """Make a step; its losses [3, M]."""
    if stacks.graphs is None:
        return _make_step(stacks, training, batch, step)
    training.on_step()
    assert step.offsets is not None

    def run(inputs: Tensor, targets: Tensor, indices: Tensor, starts: Tensor) -> Tensor:
        seen = replace(batch, inputs=inputs, targets=targets, indices=indices)
        return _make_step(stacks, training, seen, replace(step, offsets=starts))

    kind = batch.is_kept, training.parts, stacks.model.phase(step)
    given = batch.inputs, batch.targets, batch.indices, step.offsets
    return stacks.graphs.run(kind, given, run)


def _make_step(stacks: Stacks, training: TrainingStep, batch: Batch, step: Step) -> Tensor:
    """Forward, backward and update."""
    parts = []
    with compiled_blocks(stacks.is_compiled):
        for ce, penalty in training.losses(stacks.model, batch, step):
            total = ce + penalty
            # Members share no trainable tensor: the gradient of the sum is everyone's own.
            total.backward(torch.ones_like(total))
            parts.append(torch.stack([total, ce, penalty]).detach())
    stacks.optimizer.update()
    stacks.model.after_step()
    return sum(parts[1:], parts[0])
