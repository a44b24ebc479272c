"""How much memory a device has, and how to tell that it has run out."""

import os
import resource
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

FOREIGN_SHARE = 0.1
"""Share of a device's memory that others have to hold before they count as the cause."""
_PHRASES = (
    "allocate memory",
    "bad_alloc",
    "out of memory",
    "could not create a primitive",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""On the CPU there is no class for it: allocators and oneDNN raise a RuntimeError. Libraries of
CUDA allocate past torch."""


PINNED_BYTES = 256 * 2**20
"""Tensors up to this are copied to pinned memory, which a GPU writes at full speed. Torch rounds it
up to a power of two and keeps it, so that larger ones would take too much of a host's memory."""


def begun_copy(tensor: Tensor) -> Tensor:
    """A copy on the CPU that a GPU may still be writing: it is whole once the GPU was waited for.

    A tensor of the CPU is returned as it is.
    """
    if tensor.device.type == "cpu":
        return tensor
    pinned = tensor.nbytes <= PINNED_BYTES
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
    return copy.copy_(tensor, non_blocking=True)


def free_bytes(device: torch.device) -> int:
    """Memory of a device that can be had: what nobody holds, and what torch keeps to use again."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def reset_peak(device: torch.device) -> None:
    """Have `held_bytes` and `peak_bytes` begin anew; the CPU keeps no peak that could."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def held_bytes(device: torch.device) -> int:
    """Peak of the device's allocations since `reset_peak`, or what the process holds now where it
    is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(device: torch.device) -> int:
    """Peak of the device's allocations since `reset_peak`, or of the process where the device is
    the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def release_cached(device: torch.device) -> bool:
    """Give back what torch keeps to use again, which libraries and other processes cannot.

    Returns:
        Whether there was any.
    """
    if device.type != "cuda":
        return False
    before = torch.cuda.memory_reserved(device)
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device) < before


def is_filled_by_others(device: torch.device) -> bool:
    """Whether other processes hold so much of a device that it may be for them that nothing fits.

    Never of the CPU: what this machine's other processes hold is not to be told from its caches.
    """
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device) > FOREIGN_SHARE * total


def describe_memory(device: torch.device) -> str:
    """How much of a device's memory is free and who has the rest, as a clause."""
    gib = 2**30
    if device.type != "cuda":
        return f"{free_bytes(device) / gib:.1f} GiB free"
    free, total = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device)
    others = max(0, total - free - own)
    return (
        f"{free / gib:.1f} of {total / gib:.1f} GiB free; this process holds {own / gib:.1f}, "
        f"others {others / gib:.1f}"
    )


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    known = isinstance(err, (MemoryError, torch.cuda.OutOfMemoryError))
    return known or any(words in str(err) for words in _PHRASES)


def retry_with_room(action: Callable[[], Result], make_room: Callable[[], bool]) -> Result:
    """Do something, and once more where memory ran out and room could be made.

    Args:
        action: Leaves nothing behind where it fails.
        make_room: Lets go of what is not needed at the moment; whether there was any.

    Raises:
        Exception: Of `action`.
    """
    try:
        return action()
    except Exception as err:
        if not is_out_of_memory(err):
            raise
        fault = err.with_traceback(None)  # whose frames hold on to what the first try allocated
    if not make_room():
        raise fault
    return action()
