"""What a trial will take: the time of an epoch on this machine, from a few training steps, and
memory, from a step without numbers."""

import time
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)

from tcpa_core import philox
from tcpa_core.config import TrialConfig
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.pack_model import PackModel
from tcpa_core.training.costs import SAMPLES, training_costs
from tcpa_core.training.masked_source import MaskedSource
from tcpa_core.training.pack import Pack
from tcpa_core.training.probe import pack_size
from tcpa_core.training.sliding import Grid
from tcpa_core.training.trial_data import load_trial_data

VALIDATION = 1 / 3
"""Time of a forward pass beside a training step, whose backward pass takes twice as long."""


_TRAINED_COPIES = 4
"""Of every trained number: itself, its gradient, and AdamW's two moments."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a trial keeps in a device's memory while it trains alone, in bytes."""

    weights: int
    """Of the backbone in float32, and of its matrices in bfloat16 where these are used."""
    trained: int
    """Trained tensors with their gradients and the optimiser's state."""
    per_image: float
    """Activations of one image of a batch, kept for the backward pass, and the image itself."""

    def total(self, batch_size: int) -> float:
        """Of a batch of that size; what an operation holds for a moment comes on top."""
        return self.weights + self.trained + batch_size * self.per_image


def memory(config: TrialConfig, num_classes: int, *, bf16: bool) -> Memory | None:
    """Estimate a trial's memory from shapes alone: nothing is allocated, fetched or computed.

    Args:
        config: The trial; `train.precision` is not read.
        num_classes: Classes of the data set.
        bf16: Products in bfloat16, as on GPUs; else all in float32.

    Returns:
        None where a method decides by numbers what it computes next, so that shapes do not tell.

    Raises:
        ConfigError: The backbone or the methods cannot be built.
        WeightsError: A weights file cannot be read.
    """
    cpu = torch.device("cpu")
    philox.unit(cpu)  # measured with real numbers, before there are none
    backbone = load_backbone(config.backbone, device="meta")
    model = PackModel(backbone, [config], num_classes)
    matrices = [layer.weight for layer in backbone.modules() if isinstance(layer, nn.Linear)]
    weights = sum(p.numel() * p.element_size() for p in backbone.parameters())
    weights += sum(2 * matrix.numel() for matrix in matrices) if bf16 else 0
    trained = sum(p.numel() * p.element_size() for p in model.tensors.trainable().values())
    side = backbone.img_size
    try:
        # As if on a CPU, whose operations every build of torch knows; a GPU keeps the same tensors.
        with (
            FakeTensorMode(allow_non_fake_inputs=True),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            images = torch.empty(1, SAMPLES, 3, side, side)
            costs = training_costs(model.to_empty(device=cpu), images, cached=False)
    except (
        DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException,
    ):  # fmt: skip
        return None
    image_bytes = 3 * side**2 * torch.float32.itemsize
    return Memory(weights, _TRAINED_COPIES * trained, costs.activation_bytes + image_bytes)


def epoch_seconds(config: TrialConfig) -> tuple[float, str]:
    """Seconds of one epoch of a trial in a pack of the size that trains fastest.

    The device is the one that trials would use; a processor works with one thread, as the workers
    of a study do. Methods that train on kept features (linear) take less than this says, since
    only their first epoch passes the backbone.

    Nothing is written, neither decoded images nor what the probe finds.

    Returns:
        The seconds, divided among the trials that share the device, and the model of the GPU or
        "cpu".

    Raises:
        OutOfMemoryError: Not even one trial fits.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Workers of a study have one thread each: with more, a step here would be faster than theirs.
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        backbone = load_backbone(config.backbone, device=device)
        pack = Pack(backbone, load_trial_data(config, backbone, device=device, keep=False))
        speeds = pack_size(pack, config, keep=False).images_per_s.values()
        speed = max(speeds, default=0.0) or _alone(pack, config)
    finally:
        torch.set_num_threads(threads)
    model = torch.cuda.get_device_name(pack.device) if pack.device.type == "cuda" else "cpu"
    return (len(pack.data.train) + VALIDATION * num_scored(pack, config)) / speed, model


def num_scored(pack: Pack, config: TrialConfig) -> float:
    """Images of the backbone's size that a validation passes through it."""
    val, side = pack.data.val, pack.backbone.img_size
    if not isinstance(val, MaskedSource):
        return len(val)
    grid = Grid.of_trial(config, side)
    windows = [one for size in val.picture_sizes() for one in grid.windows(*size)]
    pixels = [(r.stop - r.start) * (c.stop - c.start) for r, c in windows]
    return sum(pixels) / side**2


def _alone(pack: Pack, config: TrialConfig) -> float:
    """Images per second of a trial that cannot share its step with others."""
    step = pack.trial_step([config])
    step()
    started = time.perf_counter()
    step()
    return min(config.train.batch_size, len(pack.data.train)) / (time.perf_counter() - started)
