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
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tcpa_core.chain import pack_capacity, pack_key
from tcpa_core.config import TrialConfig
from tcpa_core.data.base import cache_root
from tcpa_core.errors import OutOfMemoryError
from tcpa_core.training.graphs import Execution
from tcpa_core.training.memory import free_bytes, held_bytes, is_out_of_memory
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
"""No larger pack is tried after this time."""
SCHEMA = 1


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
    known = recorded_size(pack, config, cache_dir=cache_dir)
    if known is not None:
        return known
    found = _probe(pack, config, share)
    if keep:
        _remember(_path(pack, config, cache_dir), found)
    return found


def recorded_size(
    pack: Pack, config: TrialConfig, *, cache_dir: Path | None = None
) -> PackSize | None:
    """What an earlier probe on this machine found for packs of this kind; None: nothing."""
    if pack_capacity(config) == 1:
        return PackSize(members=1, images_per_s={}, bytes_per_member=0)
    try:
        known = json.loads(_path(pack, config, cache_dir).read_text())
        speeds = {int(size): speed for size, speed in known.pop("images_per_s").items()}
        found = PackSize(images_per_s=speeds, **known)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    is_known = found.execution in ("eager", *allowed(pack.device, [config]))
    return found if is_known and type(found.members) is int and found.members > 0 else None


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
    free = free_bytes(pack.device) * share * MEMORY_SHARE
    start, best, size = held_bytes(pack.device), 1, 1
    speeds: dict[int, float] = {}
    growth = 0
    started = time.perf_counter()
    while size <= LARGEST and time.perf_counter() - started < LONGEST_S:
        configs = [config.replace_paths({"seed": seed}) for seed in range(size)]
        try:
            seconds = _fastest_step(pack, configs)
        except Exception as err:
            if not is_out_of_memory(err):
                raise
            if size == 1:
                raise OutOfMemoryError(
                    f"one step does not fit into the memory of {pack.device} "
                    f"(train.batch_size={config.train.batch_size}: {err}); lower "
                    "train.batch_size or backbone.img_size."
                ) from err
            break
        speeds[size] = size * config.train.batch_size / seconds
        growth = max(0, held_bytes(pack.device) - start) // size
        if size > 1 and speeds[size] < speeds[best] * (1 + WORTH):
            break
        best = size
        # Stop before the size that would not fit: on a GPU the attempt alone fragments memory, and
        # on the CPU the system may kill the process for it.
        if growth * size * 2 > free:
            break
        size *= 2
    configs = [config.replace_paths({"seed": seed}) for seed in range(best)]
    return PackSize(
        members=best,
        images_per_s=speeds,
        bytes_per_member=growth,
        execution=best_execution(pack, configs),
    )


def _fastest_step(pack: Pack, configs: Sequence[TrialConfig]) -> float:
    step = pack.trial_step(configs)
    seconds = []
    for _ in range(1 + STEPS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])  # the first one also loads kernels and fills caches


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
        config.backbone.name,
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
