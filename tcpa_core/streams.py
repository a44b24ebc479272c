"""Random numbers of a trial, keyed by what they are for, never by the place in a pack.

Every draw names its purpose and counters (epoch, step, layer). Streams therefore need no state: a
resumed trial, or one with other neighbours, draws the same numbers again.
"""

# Axes: M members, L layers, R rows (any number of axes), N numbers of a row.

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tcpa_core import philox
from tcpa_core.made_once import made_once

MAX_NUMBERS = 2**14
"""Most numbers of a row, so that rows do not overlap."""
MAX_ROWS = 2**24
"""Most rows of a layer in one step, so that steps do not overlap."""
_ROW = MAX_NUMBERS // philox.WORDS
_STEP = MAX_ROWS * _ROW
"""Blocks between two rows, and between two steps: 2^26 of them fit."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Source of all random numbers of the trials with one seed."""

    seed: int

    def key(self, purpose: str, *counters: int) -> int:
        """64 bits for one purpose, see `generator`."""
        name = f"{self.seed}/{purpose}/{'/'.join(map(str, counters))}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")

    def generator(self, purpose: str, *counters: int) -> torch.Generator:
        """A fresh generator on the CPU for what is drawn once per trial or epoch.

        Args:
            purpose: What the numbers are for, for example "order" or "init/tcpa.cls_prompts".
            counters: Position in time or depth, for example (epoch,).
        """
        return torch.Generator().manual_seed(self.key(purpose, *counters))


class Draws:
    """Random numbers of one training step of all members, drawn together on the device.

    Each member, purpose, layer and row has a key of its own, so that neither the neighbours in a
    pack, nor padding behind the numbers of a row, nor a batch in parts changes a number.

    Args:
        streams: Of the members.
        steps: The step that each of them makes, 0-based and below 2^26.
        offsets: One row of `offsets`, on the device that trains; None: made when first needed.
    """

    def __init__(
        self, streams: Sequence[Stream], steps: Sequence[int], offsets: Tensor | None = None
    ) -> None:
        self._seeds = tuple(stream.seed for stream in streams)
        self._steps = steps
        self._offsets = offsets
        self._keys: dict[str, tuple[Tensor, Tensor]] = {}
        self._made: dict[str, Tensor] = {}

    def uniform(
        self, purpose: str, rows: Tensor, count: int, *, layers: int = 1, layer: int | None = 0
    ) -> Tensor:
        """Numbers in [0, 1), in steps of `philox.RESOLUTION`.

        Args:
            purpose: What the numbers are for.
            rows: What `row_keys` made, (M or 1, R, 2).
            count: N, at most `MAX_NUMBERS`.
            layers: L, all layers that draw for this purpose in a step.
            layer: Which of them; None: all.

        Returns:
            float32 (M, R, N), or (L, M, R, N) of all layers.
        """
        if count > MAX_NUMBERS:
            raise ValueError(f"a row has at most {MAX_NUMBERS} numbers, got {count}")
        known, keys = self._keys.get(purpose, (None, None))
        if keys is None or known is not rows:
            inner = (1,) * (rows.ndim - 2)
            seeds = _seeds(self._seeds, purpose, layers, rows.device)
            starts = seeds + self._offsets_on(rows.device)
            keys = starts.view(layers, len(self._seeds), *inner, 2) + rows
            self._keys[purpose] = rows, keys
        return philox.uniform(keys if layer is None else keys[layer], count)

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` returned when it was first asked for by this name."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _offsets_on(self, device: torch.device) -> Tensor:
        if self._offsets is None or self._offsets.device != device:
            self._offsets = offsets([self._steps], device)[0]
        return self._offsets


def offsets(steps: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Where the numbers of steps begin, int64 (steps, M, 2) on the device, in one copy.

    Args:
        steps: The steps that the members make one after the other, each (M,).
        device: Where the numbers are drawn.
    """
    unit = philox.position(_STEP, device)
    with torch.inference_mode(False):
        blocks = torch.tensor(steps, dtype=torch.int64) * unit
        return torch.stack([torch.zeros_like(blocks), blocks], dim=-1).to(device)


def whole_numbers(drawn: Tensor, below: Tensor) -> Tensor:
    """Whole numbers from 0 to below `below` (0: 0), int64, of what `Draws.uniform` has drawn."""
    # In integers: float32 would round the largest products up to the limit itself.
    return (drawn / philox.RESOLUTION).long() * below >> 24


def row_keys(rows: Tensor, count: int) -> Tensor:
    """What `Draws.uniform` takes for rows, to be kept: it is the same in every step.

    Args:
        rows: Numbers of the rows, int64 (M or 1, R), on the device that draws.
        count: All rows of the whole batch, at most `MAX_ROWS`.
    """
    if count > MAX_ROWS:
        raise ValueError(f"a step draws at most {MAX_ROWS} rows at a place, got {count}")
    with torch.inference_mode(False):
        blocks = rows * philox.position(_ROW, rows.device)
        return torch.stack([torch.zeros_like(blocks), blocks], dim=-1)


@made_once
def _seeds(seeds: tuple[int, ...], purpose: str, layers: int, device: torch.device) -> Tensor:
    """Keys (L, M, 2) at position 0."""
    table = [[Stream(seed).key(purpose, layer) for seed in seeds] for layer in range(layers)]
    with torch.inference_mode(False):
        keys = torch.tensor(table, dtype=torch.uint64).view(torch.int64)
        return torch.stack([keys, torch.zeros_like(keys)], dim=-1).to(device)
