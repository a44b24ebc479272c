"""Philox4x32-10: random numbers that follow from a key alone, equal on every device.

A key says where a sequence of numbers begins: a seed, and a position in that seed's sequence. There
is no state, so nothing has to be drawn before, kept or restored, and all keys of a tensor are drawn
from at once. PyTorch has a kernel for this from 2.14 on, without promises; the formula itself
stands here too, and is used wherever the kernel is missing or gives other numbers.

Source:
    Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011 (Random123).
"""

# Axes: K keys (any number of axes), N numbers of a key, W = 4 words of a block.

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

WORDS = 4
"""Random 32-bit words of one block, the smallest step of a position."""
RESOLUTION = 2**-24
"""Numbers are whole multiples of it, so that float32 holds them exactly."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF
_CPU_BLOCK = 2**13
"""Blocks that the formula makes at a time on a CPU, so that they stay in its cache."""


def uniform(keys: Tensor, count: int) -> Tensor:
    """Random numbers in [0, 1), in steps of `RESOLUTION`.

    Args:
        keys: int64 (K, 2): a seed, any 64 bits, and a position, see `position`.
        count: N.

    Returns:
        float32 (K, N); of two counts the smaller one gives the beginning of the larger one.
    """
    if unit(keys.device) is None:
        return _formula(keys, count)
    return _kernel(keys, count)


def position(blocks: int, device: torch.device) -> int:
    """The position that lies so many blocks of `WORDS` numbers behind the first, as keys say it."""
    return blocks * (unit(device) or 1)


@cache
def unit(device: torch.device) -> int | None:
    """What PyTorch's kernel adds to a position for one block: 1 or `WORDS`. None: do not use it.

    Its CPU and CUDA versions count differently, and may change without notice, so the answer is
    measured, once per device: the kernel has to give the formula's numbers to the bit.
    """
    if not hasattr(torch.ops.aten, "_philox_uniform_"):
        return None
    with torch.inference_mode(False), torch.no_grad():
        seeds = [0, 1, -(2**63), 0x0123456789ABCDEF]
        blocks = [0, 5, 2**34 + 3, 2**61 + 2**32 - 2]
        expected = _formula(torch.tensor(list(zip(seeds, blocks, strict=True))), 70)
        for found in (1, WORDS):
            positions = [(n * found + 2**63) % 2**64 - 2**63 for n in blocks]
            keys = torch.tensor(list(zip(seeds, positions, strict=True)), device=device)
            try:
                together = _kernel(keys, 70).cpu()
                alone = torch.cat([_kernel(key, 70) for key in keys.split(1)]).cpu()
            except (RuntimeError, NotImplementedError):
                return None  # other arguments than in the versions that are known
            if torch.equal(together, expected) and torch.equal(alone, expected):
                return found
    return None


def _kernel(keys: Tensor, count: int) -> Tensor:
    out = torch.empty(*keys.shape[:-1], count, device=keys.device)
    torch.ops.aten._philox_uniform_(out, keys.unsqueeze(-2).view(torch.uint64), 0.0, 1.0)
    return out


def _formula(keys: Tensor, count: int) -> Tensor:
    """`uniform` by the definition; positions count blocks."""
    flat = keys.reshape(-1, 2)
    blocks = -(-count // WORDS)
    at_once = max(1, _CPU_BLOCK // max(blocks, 1)) if keys.device.type == "cpu" else len(flat)
    out = torch.empty(len(flat), count, device=keys.device)
    behind = torch.arange(blocks, device=keys.device)
    for first in range(0, len(flat), max(at_once, 1)):
        part = flat[first : first + at_once]
        counter = part[:, 1:] + behind
        zero = torch.zeros_like(counter)
        words = philox((*_halves(counter), zero, zero), _halves(part[:, :1]))
        # of each word the low bits, as PyTorch's kernel takes them
        whole = torch.stack([word & (2**24 - 1) for word in words], dim=-1).flatten(1)
        out[first : first + at_once] = whole[:, :count].float() * RESOLUTION
    return out.view(*keys.shape[:-1], count)


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> Sequence[Tensor]:
    """The random words (4 tensors) of a counter (4) and a key (2): 32-bit words held in int64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product's high half may carry the sign of int64, which the mask takes off.
        high0, low0 = _halves(c0 * _MULTIPLIERS[0])[::-1]
        high1, low1 = _halves(c2 * _MULTIPLIERS[1])[::-1]
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Low and high 32 bits of int64 numbers."""
    return x & _LOW, (x >> 32) & _LOW
