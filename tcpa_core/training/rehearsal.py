"""Which way to run the steps of a pack: tried with fresh members, and measured.

Recorded steps and compiled blocks are off until a GPU has shown that they are equal and worth it:
`TCPA_STEP=auto` lets the probe of the pack size try them.
"""

# Axes: S steps, M members.

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from tcpa_core.chain import method_class
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.model.noise import has_noise
from tcpa_core.training.epoch import train_epoch
from tcpa_core.training.graphs import Execution
from tcpa_core.training.pack import Pack

VARIABLE = "TCPA_STEP"
EAGER, AUTO = "eager", "auto"
STEPS = 8
"""Of a rehearsal, at most; they are made twice, and the second time counts."""
TOLERANCE = 0.02
"""Largest share by which a loss may differ from that of eager steps: what bf16 rounds."""
WORTH = 0.05
"""Gain in time that makes another way than the plain one worth it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Some steps of fresh members."""

    losses: Tensor
    """[2 S, M]: every step's, on the CPU."""
    step_s: float
    """Seconds of a step."""
    prepare_s: float
    """Seconds that the first steps took beyond that: compiling, recording."""

    def off_by(self, other: "Rehearsal") -> float:
        """Largest relative difference of a loss; infinite where one is not finite."""
        off = ((self.losses - other.losses).abs() / other.losses.abs()).max()
        return float(off) if bool(torch.isfinite(off)) else float("inf")

    def seconds(self, steps: int) -> float:
        """Of so many steps and what they need first."""
        return self.prepare_s + steps * self.step_s


def allowed(device: torch.device, configs: Sequence[TrialConfig]) -> tuple[Execution, ...]:
    """Ways to run a step that may be tried beside the plain one.

    Raises:
        ConfigError: The environment variable has another value than these two.
    """
    wish = os.environ.get(VARIABLE) or EAGER
    if wish not in (EAGER, AUTO):
        raise ConfigError(f"{VARIABLE}={wish!r} is not possible; set it to {EAGER} or {AUTO}.")
    return ways(device, configs) if wish == AUTO else ()


def ways(device: torch.device, configs: Sequence[TrialConfig]) -> tuple[Execution, ...]:
    """All ways that there are on a device beside the plain one."""
    recordable = all(method_class(name).is_recordable for name in configs[0].methods)
    if device.type != "cuda" or not recordable:
        return ()
    # Noise inside the blocks is another function in every step, which would be compiled anew.
    noise = any(has_noise(config) for config in configs)
    return tuple(way for way in get_args(Execution) if way not in (EAGER, noise and "compiled"))


def rehearse(pack: Pack, configs: Sequence[TrialConfig], execution: Execution) -> Rehearsal:
    """Train fresh members for some steps, twice; nothing of it remains.

    Args:
        pack: Backbone and data on the device.
        configs: Of the members, with equal `pack_key`.
        execution: How the steps run.
    """
    members = [pack.new_member(str(m), config) for m, config in enumerate(configs)]
    stacks = pack.stacked(members, execution)
    batch = min(configs[0].train.batch_size, len(pack.data.train))
    steps = min(STEPS, len(pack.data.train) // batch)
    losses, marks = [], [time.perf_counter()]
    for _ in range(2):
        found, _ = train_epoch(stacks, pack.step, steps * batch)  # waits for the device
        losses.append(found[:, 0])
        marks.append(time.perf_counter())
    first, second = marks[1] - marks[0], marks[2] - marks[1]
    return Rehearsal(
        losses=torch.cat(losses), step_s=second / steps, prepare_s=max(0.0, first - second)
    )


def best_execution(pack: Pack, configs: Sequence[TrialConfig]) -> Execution:
    """The way that takes a trial's steps the least time, of those that are allowed and equal."""
    tried = allowed(pack.device, configs)
    if not tried:
        return "eager"
    plain = rehearse(pack, configs, "eager")
    train = configs[0].train
    steps = train.epochs * -(-len(pack.data.train) // train.batch_size)
    best: Execution = "eager"
    least = plain.seconds(steps) * (1 - WORTH)
    for execution in tried:
        found = rehearse(pack, configs, execution)
        if found.off_by(plain) <= TOLERANCE and found.seconds(steps) < least:
            best, least = execution, found.seconds(steps)
    return best
