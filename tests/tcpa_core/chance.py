"""What a trial draws in a step, one number after the other, for the slow references of tests."""

import torch
from torch import Tensor

from tcpa_core.methods.base import Step
from tcpa_core.philox import RESOLUTION, philox

ROW, STEP = 2**12, 2**36
"""Blocks of four numbers between two rows, and between two steps."""


def numbers(step: Step, purpose: str, layer: int, rows: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1) of rows (R), float64 (R, count), of the only member of a step."""
    seed = step.streams[0].key(purpose, layer)
    blocks = step.steps[0] * STEP + rows.long()[..., None] * ROW + torch.arange(-(-count // 4))
    low = 2**32 - 1
    zero = torch.zeros_like(blocks)
    counter = (blocks & low, blocks >> 32, zero, zero)
    words = philox(counter, (torch.tensor(seed & low), torch.tensor(seed >> 32)))
    whole = torch.stack([word & (2**24 - 1) for word in words], dim=-1).flatten(-2)
    return whole[..., :count].double() * RESOLUTION


def share_kept(rate: float) -> float:
    """What dropout keeps, to the step in which numbers are drawn."""
    return round((1 - rate) / RESOLUTION) * RESOLUTION


def dropout(shape: tuple[int, ...], rate: float, step: Step, purpose: str, layer: int) -> Tensor:
    """What dropout multiplies activations (B, S, F) with; rows are samples and tokens."""
    share = share_kept(rate)
    rows = torch.arange(shape[0] * shape[1]).view(shape[:2])
    return (numbers(step, purpose, layer, rows, shape[2]) < share).double() / share


def prompt_dropout(
    shape: tuple[int, ...], rate: float, step: Step, purpose: str, layer: int
) -> Tensor:
    """What dropout multiplies prompts (B, P, D) with; rows are prompts, then samples."""
    share = share_kept(rate)
    rows = torch.arange(shape[1] * shape[0]).view(shape[1], shape[0]).T
    return (numbers(step, purpose, layer, rows, shape[2]) < share).double() / share
