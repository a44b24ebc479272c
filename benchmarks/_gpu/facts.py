"""The device, the programs on it, and whether it computes."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks._gpu.bench import Bench, Finding, Value

TOLERANCE = 0.02
"""Of a bf16 product against float64, relative to its largest value."""
PROGRAMS = ("torch", "triton", "timm", "torchvision", "numpy", "safetensors", "pydantic", "pillow")


def run(bench: Bench) -> None:
    """What torch and the driver say, and one product."""
    bench.tell(Finding(what="machine", values=_machine()))
    bench.tell(Finding(what="programs", values={name: _version(name) for name in PROGRAMS}))
    if bench.is_gpu:
        bench.tell(Finding(what="device", values=_device()))
        for what, query in (("driver", "driver_version"), ("clocks and power", QUERY)):
            with bench.trying(what):
                bench.tell(Finding(what=what, values=_smi(query)))
    else:
        built = f"torch is built for {torch.version.cuda or 'no GPU'}"
        bench.tell(Finding(what="device", values={"name": "CPU"}, note=f"{built}; no GPU is used"))
    for kind in (torch.float32, torch.bfloat16):
        with bench.trying(f"product, {kind}"):
            _product(bench, kind)


QUERY = (
    "clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu,"
    "utilization.gpu,memory.used,mig.mode.current,compute_mode"
)


def _machine() -> dict[str, Value]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _device() -> dict[str, Value]:
    found = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory GiB": total / 2**30,
        "free GiB": free / 2**30,
        "devices": torch.cuda.device_count(),
        "CUDA": torch.version.cuda or torch.version.hip,
        "cuDNN": torch.backends.cudnn.version(),
    }


def _smi(query: str) -> dict[str, Value]:
    """What the driver's own program says of the first device."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {"nvidia-smi": "not there"}
    command = [program, f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return dict(zip(query.split(","), map(str.strip, done.stdout.split(",")), strict=True))


def _product(bench: Bench, kind: torch.dtype) -> None:
    """One product in a precision that trials use, against float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator, dtype=torch.float64) for _ in range(2))
    found = (a.to(bench.device, kind) @ b.to(bench.device, kind)).cpu().double()
    exact = a @ b
    off = float((found - exact).abs().max() / exact.abs().max())
    what = f"product, {str(kind).removeprefix('torch.')}"
    bench.tell(Finding(what=what, values={"off by": off}, ok=off < TOLERANCE))
