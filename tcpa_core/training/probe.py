"""How many trials to train side by side: measured once per machine, not guessed.

More members share more overhead until the device is full; from there they only take memory. The
probe trains a few steps with 1, 2, 4, ... copies of a configuration and stops where another
doubling gains less than `WORTH` in images per second, or would not fit into memory. What it found
is kept beside the image cache, under everything the figure depends on.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from tcpa_core.chain import pack_capacity, pack_key
from tcpa_core.config import TrialConfig
from tcpa_core.data.base import cache_root
from tcpa_core.errors import OutOfMemoryError
from tcpa_core.training.graphs import Execution
from tcpa_core.training.memory import (
    free_bytes,
    held_bytes,
    is_out_of_memory,
    release_cached,
    reset_peak,
)
from tcpa_core.training.pack import Pack
from tcpa_core.training.rehearsal import allowed, best_execution

WORTH = 0.05
"""Gain in speed that makes a doubling of the pack worth its memory."""
MEMORY_SHARE = 0.8
"""Share of the free memory that a pack may fill."""
LARGEST = 64
STEPS = 2
"""Timed steps per size, after one to warm up; the fastest counts."""
LONGEST_S = 5.0
"""No larger pack is tried once the timed steps took so long. What loads kernels does not count."""
MAX_AGE_S = 7 * 24 * 3600.0
"""A record is no older: what else ran on the machine meanwhile is not known."""
MORE_FREE = 1.25
"""So much more free memory makes worth another probe what memory has bounded."""
SCHEMA = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSize:
    """Outcome of a probe."""

    members: int
    """Members to train side by side."""
    images_per_s: dict[int, float]
    """Training speed by number of members."""
    bytes_per_member: int
    """Growth of the peak memory with each member; 0 where it was too small to see."""
    execution: Execution = "eager"
    """How their steps run best, see `tcpa_core.training.rehearsal`."""
    free_bytes: int = 0
    """Of the device, before the probe."""
    is_full: bool = False
    """Whether memory, and not speed, is why there are no more members."""


def pack_size(
    pack: Pack,
    config: TrialConfig,
    *,
    cache_dir: Path | None = None,
    share: float = 1.0,
    keep: bool = True,
) -> PackSize:
    """Best number of members for packs of this kind, from the record or a fresh probe.

    Args:
        pack: Backbone and data on the device.
        config: One member; the largest that is expected.
        cache_dir: Where the record is kept; None: the user's cache folder.
        share: Share of the device's or machine's memory that is this process's.
        keep: Record what is found.

    Raises:
        OutOfMemoryError: Not even one member fits.
    """
    known = recorded_size(pack, config, cache_dir=cache_dir, share=share)
    if known is not None:
        return known
    found = _probe(pack, config, share)
    if keep:
        _remember(_path(pack, config, cache_dir), found)
    return found


def recorded_size(
    pack: Pack, config: TrialConfig, *, cache_dir: Path | None = None, share: float = 1.0
) -> PackSize | None:
    """What an earlier probe on this machine found for packs of this kind.

    Fewer members where less memory is free now.

    Returns:
        None: There was no probe, or what it found may not hold any more.
    """
    if pack_capacity(config) == 1:
        return PackSize(members=1, images_per_s={}, bytes_per_member=0)
    path = _path(pack, config, cache_dir)
    try:
        if time.time() - path.stat().st_mtime > MAX_AGE_S:
            return None
        known = json.loads(path.read_text())
        speeds = {int(size): speed for size, speed in known.pop("images_per_s").items()}
        found = PackSize(images_per_s=speeds, **known)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    is_known = found.execution in ("eager", *allowed(pack.device, [config]))
    if not (is_known and type(found.members) is int and found.members > 0):
        return None
    free = free_bytes(pack.device)
    if found.is_full and free > MORE_FREE * found.free_bytes:
        return None
    fits = [
        size
        for size in found.images_per_s
        if size <= found.members and size * found.bytes_per_member <= free * share * MEMORY_SHARE
    ]
    return replace(found, members=max(fits, default=1))


def largest_batch(pack: Pack, config: TrialConfig) -> int:
    """Samples of the largest batch, by halves, whose training step fits; 0: not even one."""
    size = min(config.train.batch_size, len(pack.data.train))
    while size := size // 2:
        try:
            pack.trial_step([config.replace_paths({"train.batch_size": size})])()
            return size
        except Exception as err:
            if not is_out_of_memory(err):
                raise
    return 0


def _probe(pack: Pack, config: TrialConfig, share: float) -> PackSize:
    free = free_bytes(pack.device)
    reset_peak(pack.device)
    start, best, size = held_bytes(pack.device), 1, 1
    speeds: dict[int, float] = {}
    growth, spent_s, is_full = 0, 0.0, False
    while size <= LARGEST and spent_s < LONGEST_S:
        configs = [config.replace_paths({"seed": seed}) for seed in range(size)]
        reset_peak(pack.device)
        try:
            seconds = _timed_steps(pack, configs)
        except Exception as err:
            if not is_out_of_memory(err):
                raise
            if size == 1:
                raise OutOfMemoryError(
                    f"one step does not fit into the memory of {pack.device} "
                    f"(train.batch_size={config.train.batch_size}: {err}); lower "
                    "train.batch_size or backbone.img_size."
                ) from err
            is_full = True
            break
        spent_s += sum(seconds)
        speeds[size] = size * config.train.batch_size / min(seconds)
        growth = max(0, held_bytes(pack.device) - start) // size
        if size > 1 and speeds[size] < speeds[best] * (1 + WORTH):
            break
        best = size
        # Stop before the size that would not fit: on a GPU the attempt alone fragments memory, and
        # on the CPU the system may kill the process for it.
        is_full = growth * size * 2 > free * share * MEMORY_SHARE
        if is_full:
            break
        size *= 2
    release_cached(pack.device)
    configs = [config.replace_paths({"seed": seed}) for seed in range(best)]
    return PackSize(
        members=best,
        images_per_s=speeds,
        bytes_per_member=growth,
        execution=best_execution(pack, configs),
        free_bytes=free,
        is_full=is_full,
    )


def _timed_steps(pack: Pack, configs: Sequence[TrialConfig]) -> list[float]:
    """Seconds of each of STEPS steps, after one that loads kernels and fills caches."""
    step = pack.trial_step(configs)
    step()
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds


def _path(pack: Pack, config: TrialConfig, cache_dir: Path | None) -> Path:
    device = pack.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    # All that the figure depends on; another processor or torch gets a record of its own.
    parts = [
        SCHEMA,
        name,
        os.cpu_count(),
        torch.get_num_threads(),
        torch.__version__,
        config.backbone.full_name,
        pack.backbone.img_size,
        config.train.precision,
        *pack_key(config),
        *allowed(device, [config]),
    ]
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return cache_root(cache_dir) / "packs" / f"{key}.json"


def _remember(path: Path, found: PackSize) -> None:
    """Write the record whole or not at all; a folder that cannot be written costs a probe."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(asdict(found), file)
        os.replace(file.name, path)
    except OSError:
        return
