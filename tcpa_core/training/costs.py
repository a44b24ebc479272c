"""What one training step of a trial costs per image, counted on the real network."""

# Axes: M members (1 here), B samples.

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tcpa_core.chain import pack_key
from tcpa_core.methods.base import Step
from tcpa_core.model.pack_model import ModelOutput, PackModel
from tcpa_core.streams import Stream
from tcpa_core.training.batches import changes_images
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.loss import num_labelled, segmentation_loss
from tcpa_core.training.memory import is_out_of_memory
from tcpa_core.training.precision import autocast

SAMPLES = 2
"""Images of the counted step: batch norm needs more than one."""


@dataclass(frozen=True, slots=True)
class TrainingCosts:
    """Of one training step, divided by its images."""

    flops: float
    """Forward and backward, as torch counts matrix products and convolutions."""
    activation_bytes: float
    """Kept from the forward for the backward pass. Weights are not counted, nor their copies in
    bfloat16: they take the same for any number of images."""


class CountedCosts:
    """Costs of a training step, counted once per set of shapes.

    Args:
        train: The training split.
    """

    def __init__(self, train: ImageSource) -> None:
        self._train = train
        self._counted: dict[Hashable, TrainingCosts] = {}

    def of(self, model: PackModel) -> TrainingCosts | None:
        """Costs of a pack of one; None where a step of SAMPLES images does not fit into memory."""
        try:
            return self._count(model)
        except Exception as err:
            if not is_out_of_memory(err):
                raise
            return None

    def _count(self, model: PackModel) -> TrainingCosts:
        config = model.configs[0]
        shapes = tuple((name, spec.shape) for name, spec in model.tensors.specs[0].items())
        key = (*pack_key(config), shapes, tuple(config.method_settings.values()))
        if key not in self._counted:
            # By the settings, not by what happens to be kept: two workers with more and less
            # memory have to report the same costs.
            cached = model.first_block > 0 and not changes_images([config])
            inputs = self._train.batch(torch.arange(SAMPLES), None)[None]
            with autocast(config, inputs.device):
                if cached:
                    with torch.no_grad():
                        inputs = model.forward_frozen(inputs).to(model.backbone.dtype)
                self._counted[key] = training_costs(model, inputs, cached=cached)
        return self._counted[key]


def training_costs(model: PackModel, inputs: Tensor, *, cached: bool) -> TrainingCosts:
    """Count one step of a pack of one.

    Args:
        inputs: SAMPLES images, or what the model's `forward_frozen` makes of them.
        cached: Whether they are the latter: such trials run the trained part only.
    """
    step = Step(training=True, epochs=(0,), steps=(0,), streams=(Stream(model.configs[0].seed),))
    copies = _Copies((*model.parameters(), *model.buffers()))
    # By storage: a tensor saved twice, or a view of one, takes its memory once.
    kept: dict[StorageWeakRef, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor not in copies and _storage(tensor) != _storage(inputs):
            kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with copies, FlopCounterMode(display=False) as counter, torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = model.forward_trained(inputs, step) if cached else model(inputs, step)
            loss = _loss(output, model.backbone.img_size)
        torch.autograd.grad(loss, list(model.tensors.trainable().values()), allow_unused=True)
    return TrainingCosts(counter.get_total_flops() / SAMPLES, sum(kept.values()) / SAMPLES)


class _Copies(TorchDispatchMode):
    """Knows weights, and finds the copies in other number formats that are made of them meanwhile.

    Args:
        weights: Whose copies are looked for.
    """

    def __init__(self, weights: Collection[Tensor]) -> None:
        super().__init__()
        # Alive until the end, so that nothing else gets the address of one of them.
        self._found = {_storage(t): t for t in weights}

    def __contains__(self, tensor: Tensor) -> bool:
        """Whether it is a weight, a copy of one or a view of them."""
        return _storage(tensor) in self._found

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and note what it copies."""
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0] in self:
            self._found[_storage(out)] = out
        return out


def _storage(tensor: Tensor) -> StorageWeakRef:
    """What tells a tensor's memory from others', also where it has no address (meta, fake)."""
    return StorageWeakRef(tensor.untyped_storage())


def _loss(output: ModelOutput, side: int) -> Tensor:
    """Of labels, or masks [1, SAMPLES, side, side], that are all 0."""
    device, penalty = output.logits.device, output.penalty.float().sum()
    if output.logits.ndim > 3:
        masks = torch.zeros(1, SAMPLES, side, side, dtype=torch.uint8, device=device)
        return segmentation_loss(output, masks, num_labelled(masks)).sum() + penalty
    labels = torch.zeros(SAMPLES, dtype=torch.long, device=device)
    logits = [output.logits, *(part for _, part in output.side_logits)]
    losses = [F.cross_entropy(part[0].float(), labels) for part in logits]
    return torch.stack(losses).sum() + penalty
