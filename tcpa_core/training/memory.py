"""How much memory a device has, and how to tell that it has run out."""

import os
import resource

import torch


def free_bytes(device: torch.device) -> int:
    """Memory of a device that nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def held_bytes(device: torch.device) -> int:
    """Peak of the device's allocations, or what the process holds now where it is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(device: torch.device) -> int:
    """Peak of the device's allocations, or of the process where the device is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def is_out_of_memory(err: Exception) -> bool:
    """Whether an error of a training step means that memory ran out."""
    # On the CPU there is no class for it: allocators and oneDNN raise a RuntimeError.
    phrases = ("allocate memory", "bad_alloc", "out of memory", "could not create a primitive")
    known = isinstance(err, (MemoryError, torch.cuda.OutOfMemoryError))
    return known or any(words in str(err) for words in phrases)
