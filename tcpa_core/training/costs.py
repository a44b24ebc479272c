"""What one training step of a trial costs per image, counted on the real network."""

# Axes: M members (1 here), B samples.

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tcpa_core.methods.base import Step
from tcpa_core.model.pack_model import ModelOutput, PackModel
from tcpa_core.streams import Stream

SAMPLES = 2
"""Images of the counted step: batch norm needs more than one."""


@dataclass(frozen=True, slots=True)
class TrainingCosts:
    """Of one training step, divided by its images."""

    flops: float
    """Forward and backward, as torch counts matrix products and convolutions."""
    activation_bytes: float
    """Kept from the forward for the backward pass; weights are not counted."""


def training_costs(model: PackModel, inputs: Tensor, *, cached: bool) -> TrainingCosts:
    """Count one step of a pack of one.

    Args:
        inputs: SAMPLES images, or what the model's `forward_frozen` makes of them.
        cached: Whether they are the latter: such trials run the trained part only.
    """
    step = Step(training=True, epochs=(0,), steps=(0,), streams=(Stream(model.configs[0].seed),))
    owned = {
        t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), inputs)
    }
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = model.forward_trained(inputs, step) if cached else model(inputs, step)
            loss = _loss(output)
        torch.autograd.grad(loss, list(model.tensors.trainable().values()), allow_unused=True)
    return TrainingCosts(counter.get_total_flops() / SAMPLES, sum(kept.values()) / SAMPLES)


def _loss(output: ModelOutput) -> Tensor:
    labels = torch.zeros(SAMPLES, dtype=torch.long, device=output.logits.device)
    logits = [output.logits, *(side for _, side in output.side_logits)]
    losses = [F.cross_entropy(part[0].float(), labels) for part in logits]
    return torch.stack(losses).sum() + output.penalty.float().sum()
