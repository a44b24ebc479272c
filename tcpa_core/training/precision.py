"""The precision a trial computes in."""

import torch

from tcpa_core.config import TrialConfig


def autocast(config: TrialConfig, device: torch.device) -> torch.autocast:
    """Context of the passes of a trial: bfloat16 products where `train.precision` says so.

    Parameters, optimiser state and losses stay in float32 in any case.
    """
    use = uses_bfloat16(config.train.precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=use)


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether `train.precision` means products in bfloat16 on a device."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")
