"""What an error in the work on a trial says: of the trial, or of the device that it ran on."""

import platform
import traceback
from pathlib import Path

import torch

from tcpa_core.config import TrialConfig
from tcpa_core.errors import DeviceError, MethodError, OutOfMemoryError, TcpaError
from tcpa_core.training.memory import describe_memory, is_filled_by_others, is_out_of_memory

_TORCH = Path(torch.__file__).parent
_OF_DEVICE = (
    "CUDA error",
    "CUDA driver error",
    "CUBLAS_STATUS_",
    "CUDNN_STATUS_",
    "cuDNN error",
    "CUSOLVER_STATUS_",
    "cuFFT error",
    "HIP error",
)


def is_device_fault(err: BaseException) -> bool:
    """Whether the device has failed, after which nothing in this process can trust it.

    Memory that ran out is none: what was allocated before is as good as ever.
    """
    if is_out_of_memory(err):
        return False
    known = isinstance(err, torch.AcceleratorError)
    return known or any(words in str(err) for words in _OF_DEVICE)


def describe(err: BaseException) -> str:
    """An error of a method in one line, with the line of code outside of torch that met it."""
    text = f"{type(err).__name__}: {' '.join(str(err).split())}"
    frames = traceback.extract_tb(err.__traceback__)
    own = [frame for frame in frames if not Path(frame.filename).is_relative_to(_TORCH)]
    if not own:
        return text
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name})"


def cannot_begin(
    err: BaseException, who: str, config: TrialConfig, device: torch.device
) -> TcpaError:
    """What to raise for an error of loading, fitting or making a trial that names no cause itself.

    Args:
        err: Not one of the device.
        who: Begins the sentence: "trial 00007".
        config: Its settings.
        device: On which it was to train.

    Returns:
        `DeviceError` where others have filled the device; where the trial is too large for it,
        `OutOfMemoryError`; else `MethodError`, as nothing but a method runs code of others there.
    """
    if not is_out_of_memory(err):
        return MethodError(
            f"{who} of {' + '.join(config.methods)} cannot begin: {describe(err)}; a "
            "method has to train what its plan() accepts: correct it, or leave it out of the space."
        )
    text = (
        f"{who} finds no room in the memory of {device} on {platform.node()} for backbone "
        f"{config.backbone.full_name}, its data and the first state ({describe_memory(device)})"
    )
    if is_filled_by_others(device):
        return DeviceError(f"{text}; end the other processes or take another device.")
    return OutOfMemoryError(f"{text}; lower backbone.img_size, or take a smaller backbone.")
