"""Random numbers of a trial, keyed by what they are for, never by the place in a pack.

Every draw names its purpose and counters (epoch, step, layer). Streams therefore need no state: a
resumed trial, or one with other neighbours, draws the same numbers again.
"""

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Stream:
    """Source of all random numbers of the trials with one seed."""

    seed: int

    def generator(
        self, purpose: str, *counters: int, device: str | torch.device = "cpu"
    ) -> torch.Generator:
        """A fresh generator for one purpose.

        Args:
            purpose: What the numbers are for, for example "order" or "init/tcpa.cls_prompts".
            counters: Position in time or depth, for example (epoch,) or (step, layer).
            device: Where the numbers are drawn; another kind of device gives other numbers.
        """
        key = f"{self.seed}/{purpose}/{'/'.join(map(str, counters))}".encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
        return torch.Generator(device).manual_seed(seed)
