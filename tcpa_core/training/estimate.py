"""What an epoch of a trial will take on this machine, from a few training steps."""

import time

import torch

from tcpa_core.config import TrialConfig
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.training.pack import Pack
from tcpa_core.training.probe import pack_size
from tcpa_core.training.trial_data import load_trial_data

VALIDATION = 1 / 3
"""Time of a forward pass beside a training step, whose backward pass takes twice as long."""


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
    return (len(pack.data.train) + VALIDATION * len(pack.data.val)) / speed, model


def _alone(pack: Pack, config: TrialConfig) -> float:
    """Images per second of a trial that cannot share its step with others."""
    step = pack.trial_step([config])
    step()
    started = time.perf_counter()
    step()
    return min(config.train.batch_size, len(pack.data.train)) / (time.perf_counter() - started)
