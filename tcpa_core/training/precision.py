"""The precision a trial computes in."""

import torch

from tcpa_core.config import TrialConfig


def autocast(config: TrialConfig, device: torch.device) -> torch.autocast:
    """Context of the passes of a trial: bfloat16 products where `train.precision` says so.

    Parameters, optimiser state and losses stay in float32 in any case.
    """
    use = uses_bfloat16(config.train.precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=use)


def keep_float32_exact() -> None:
    """Have float32 mean float32 in convolutions, too, for this process.

    PyTorch leaves them to TF32 on a GPU, with 10 bits in place of 23, while matrix products are
    exact: the patch embedding would be the only product of a network that is not.
    """
    torch.backends.cudnn.allow_tf32 = False


def keep_gradients_repeatable() -> None:
    """Have convolutions give the same gradients each time, for this process.

    On a GPU cuDNN may choose algorithms that add up in whatever order their threads come, so that a
    trial that is taken up again would not be the one that ran through.
    """
    torch.backends.cudnn.deterministic = True


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether `train.precision` means products in bfloat16 on a device."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")
