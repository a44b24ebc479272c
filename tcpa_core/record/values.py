"""What a worker measures and reports of a trial; no tensors, no platform."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["completed", "pruned", "failed"]

OF_SOME_TASKS = frozenset(
    f"{split}_{name}" for split in ("val", "test") for name in ("miou", "mean_accuracy")
) | {"test_miou_multiscale"}
"""Measurements that trials of other tasks do not have: their records do not name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What a worker is doing, as a watchdog asks for it."""

    signs: int = 0
    """Signs of life so far: steps, evaluated batches, decoded images."""
    is_idle: bool = True
    """Between two pieces of work."""
    trials: tuple[str, ...] = ()
    """Those whose epoch is being trained."""
    epoch: int = 0
    """The latest of these epochs, 1-based."""
    usual_s: float | None = None
    """Longest epoch of their pack so far; None: none has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a worker trains on, once it has proved that it can."""

    host: str
    id: str
    """"cpu", or what its host calls the GPU: its number, or the UUID of a GPU or a MIG slice."""
    name: str
    """Model of the GPU or the processor."""
    memory_bytes: int
    """All of it, whoever uses it."""
    free_bytes: int
    """Free when the worker started."""
    compute_capability: str = ""
    """Of a GPU: "9.0"."""
    driver: str = ""
    """Version of the GPU's driver, where the system tells."""
    torch: str = ""
    """Version of torch on that host."""

    @property
    def gpu(self) -> str:
        """Name of the GPU; "": it is a processor."""
        return gpu_name(self.id, self.host)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, in field order."""
        return asdict(self)


def gpu_name(device: str, host: str) -> str:
    """What a GPU is called in messages, unlike all others of a cluster; "": it is a processor.

    Args:
        device: As of `Device.id`.
        host: Name of its machine.
    """
    return "" if device == "cpu" else f"GPU {device} of {host}"


COSTS = (
    "num_trainable",
    "num_trainable_no_head",
    "flops_per_image",
    "train_flops_per_image",
    "activation_bytes_per_image",
)
"""Fields of a `TrialResult` that are known before a trial is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """Measurements of one epoch of one trial. Accuracies are fractions in [0, 1]."""

    epoch: int
    """1-based."""
    train_loss: float
    """Mean over the epoch's batches: classification plus weighted method loss."""
    ce_loss: float
    match_loss: float
    """Weighted method loss (TCPA's matching term); 0 where the method has none."""
    val_loss: float
    val_accuracy: float
    lr: float
    """Learning rate of the epoch's last step."""
    duration_s: float
    """Wall time of the epoch, divided among the trials that shared the device."""
    images_per_s: float
    """Training images of this trial per second of `duration_s`."""
    val_miou: float | None = None
    """Of a segmentation: mean over classes of intersection over union, in [0, 1]. Its accuracies
    are shares of labelled pixels."""
    val_mean_accuracy: float | None = None
    """Of a segmentation: mean over classes of the share of a class's pixels that are found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """Outcome of one trial. None: not measured (a failed trial has no accuracies)."""

    status: Status
    reason: str = ""
    best_epoch: int | None = None
    num_epochs: int = 0
    """Epochs really trained."""
    val_accuracy: float | None = None
    """Of the selected epoch, see `train.selection`."""
    val_loss: float | None = None
    """Of the same epoch; the lowest one where best_val_loss selects, as studies of it do."""
    test_accuracy: float | None = None
    """Read once, for the selected epoch; None for pruned trials."""
    test_loss: float | None = None
    val_miou: float | None = None
    """Of a segmentation, as of an epoch, and so on test."""
    val_mean_accuracy: float | None = None
    test_miou: float | None = None
    test_mean_accuracy: float | None = None
    test_miou_multiscale: float | None = None
    """Averaged over `segment.test_scales`."""
    num_trainable: int = 0
    """Trainable parameters, head included."""
    num_trainable_no_head: int = 0
    flops_per_image: float | None = None
    """Forward FLOPs (multiply-add = 2) of one image in evaluation."""
    train_flops_per_image: float | None = None
    """FLOPs of a training step per image, counted forward and backward."""
    activation_bytes_per_image: float | None = None
    """Kept between the passes of a training step, per image."""
    duration_s: float = 0.0
    peak_memory_bytes: int = 0
    """Highest use of the device's memory in an epoch of it, with all that trained beside it; of the
    worker's process where the device is the CPU."""
    device: str = ""
    warnings: list[str] = field(default_factory=list)
    """Sentences every table repeats, for example random backbone weights."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, in field order."""
        return asdict(self)
