"""Proof that torch can train on a device, or a sentence on why it cannot.

What a cluster counts as a GPU need not be one that this build of torch can use, and one that it can
use may be full, taken or sick. So a worker allocates and computes once before it takes a trial.
"""

import os
import platform
import re
from collections.abc import Collection
from pathlib import Path

import torch

from tcpa_core.errors import DeviceError
from tcpa_core.record.values import Device
from tcpa_core.training.memory import free_bytes, is_out_of_memory
from tcpa_core.training.precision import uses_bfloat16

SIDE = 512
"""Rows and columns of the product; its entries are exact in every precision."""
LEAST_BYTES = 256 * 2**20
"""A GPU that cannot give this much is full: the weights of a ViT-B take more."""
_DRIVER = Path("/proc/driver/nvidia/version")

_CAUSES = (
    (
        ("no nvidia driver",),
        "torch finds no NVIDIA driver; install one, or keep to the processor (--device cpu)",
    ),
    (
        ("driver on your system is too old", "driver version is insufficient"),
        "its driver is too old for this build of torch; update it, or install a build of torch for "
        "an older CUDA",
    ),
    (
        ("no cuda gpus are available", "invalid device ordinal", "no cuda-capable device"),
        "torch finds no GPU of that number; compare CUDA_VISIBLE_DEVICES with 'nvidia-smi -L'",
    ),
    (
        ("busy or unavailable",),
        "another process has it in exclusive mode; end that process, or set the mode back with "
        "'nvidia-smi -c DEFAULT'",
    ),
    (
        ("no kernel image", "not compatible with the current pytorch"),
        "this build of torch has no kernels for its compute capability; install one that has",
    ),
)
"""Words of torch's errors in lower case, what they mean, and what to do."""


def proved(device: str, precisions: Collection[str]) -> Device:
    """Allocate and compute a product on a device, and say what it is.

    Args:
        device: A torch device: "cuda" or "cpu".
        precisions: Values of `train.precision` in which it has to compute.

    Returns:
        The device; its `id` is what torch calls it.

    Raises:
        DeviceError: A clause on why torch cannot train on it, and what to do.
    """
    where = torch.device(device)
    if where.type == "cuda" and (foreign := _foreign()):
        raise DeviceError(foreign)
    try:
        for precision in sorted(precisions):
            _multiply(where, precision)
        return _described(where)
    # torch has no class for a device that fails: RuntimeError, AssertionError, AcceleratorError.
    except Exception as err:
        raise DeviceError(_cause(err, where)) from err


def _multiply(device: torch.device, precision: str) -> None:
    dtype = torch.bfloat16 if uses_bfloat16(precision, device) else torch.float32
    if device.type == "cuda":
        torch.empty(LEAST_BYTES, dtype=torch.uint8, device=device)
    ones = torch.ones(SIDE, SIDE, dtype=dtype, device=device)
    if not bool(((ones @ ones) == SIDE).all()):
        raise ArithmeticError(f"{SIDE} times 1 does not add up to {SIDE} in {dtype}")


def _described(device: torch.device) -> Device:
    about = {"host": platform.node(), "id": str(device), "torch": torch.__version__}
    if device.type != "cuda":
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Device(name=_processor(), memory_bytes=pages, free_bytes=free_bytes(device), **about)
    torch.cuda.empty_cache()  # so that what the proof took counts as free
    properties = torch.cuda.get_device_properties(device)
    return Device(
        name=properties.name,
        memory_bytes=properties.total_memory,
        free_bytes=free_bytes(device),
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=_driver(),
        **about,
    )


def _foreign() -> str:
    """Why a build of torch without CUDA and ROCm meets a GPU; "" where it is built for one."""
    if torch.version.cuda or torch.version.hip:
        return ""
    if platform.system() == "Darwin":
        return "it is Apple's, and trials need CUDA or ROCm; they run on the processor of a Mac"
    if torch.xpu.is_available():
        return "it is Intel's, and trials need CUDA or ROCm; keep to the processor (--device cpu)"
    return (
        f"torch {torch.__version__} is built without CUDA; install a build with it, or keep to the "
        "processor (--device cpu)"
    )


def _cause(err: Exception, device: torch.device) -> str:
    text = str(err).lower()
    if is_out_of_memory(err):
        return f"it is full: {_memory(device)}; end what fills it (see 'nvidia-smi')"
    for words, cause in _CAUSES:
        if any(word in text for word in words):
            return cause
    first = next(iter(str(err).strip().splitlines()), "")
    return f"it fails a first product ({type(err).__name__}: {first}); see 'nvidia-smi -q'"


def _memory(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{free_bytes(device) / 2**30:.1f} GiB are free"
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # not even a context fits
        return "nothing can be allocated"
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free"


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _driver() -> str:
    """Version of NVIDIA's driver; "" where the system does not tell, or for another's."""
    try:
        found = re.search(r"\d+\.\d+(\.\d+)?", _DRIVER.read_text())
    except OSError:
        return ""
    return found[0] if found else ""
