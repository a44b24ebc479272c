"""A device that torch can train on is described, and any other refused in a sentence."""

import platform
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch

from search.workers.pack_worker import PackWorker, Place, WorkerSpec
from search.workers.shell import PackWorkerShell
from tcpa_core.errors import DeviceError
from tcpa_core.training import device

GIB = 2**30


def failing(err: Exception) -> Any:
    def fail(*_: object, **__: object) -> NoReturn:
        raise err

    return fail


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A GPU of 80 GiB, as far as torch's functions say; its tensors are on the processor."""
    properties = SimpleNamespace(name="H200", total_memory=80 * GIB, major=9, minor=0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (GIB // 5, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    for name in ("empty", "ones"):
        make = getattr(torch, name)
        monkeypatch.setattr(
            torch, name, lambda *a, _make=make, device, **kw: _make(*a, **kw, device="cpu")
        )
    return monkeypatch


def ready(factory: str = "tcpa_core.training.worker:Worker") -> Any:
    spec = WorkerSpec(
        study_dir=device.Path("nowhere"),
        cache_dir=None,
        factory=factory,
        count=1,
        slots=1,
        num_cpus=1,
        num_gpus=1,
        env={},
        precisions=("auto", "fp32"),
    )
    return PackWorker(
        spec, Place(host=platform.node(), device=PackWorkerShell.gpu_id(), pid=0)
    ).ready()


def test_a_processor_says_what_it_is() -> None:
    found = device.proved("cpu", ["auto", "bf16", "fp32"])
    assert found.memory_bytes > found.free_bytes > 0
    assert found.host and found.name and found.torch == torch.__version__
    assert found.compute_capability == ""


@pytest.mark.usefixtures("gpu")
def test_a_gpu_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-7")
    found = ready()
    assert (found.id, found.name, found.compute_capability) == ("MIG-7", "H200", "9.0")
    assert (found.free_bytes, found.memory_bytes) == (GIB // 5, 80 * GIB)


CUDA = "CUDA error: "
ASYNC = "\nCUDA kernel errors might be asynchronously reported at some other API call."


@pytest.mark.parametrize(
    ("err", "says"),
    [
        (RuntimeError("Found no NVIDIA driver on your system. Please check"), "no NVIDIA driver"),
        (RuntimeError("The NVIDIA driver on your system is too old (found 11040)"), "too old"),
        (RuntimeError("No CUDA GPUs are available"), "nvidia-smi -L"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried"), "full: 0.2 of 80.0 GiB"),
        (torch.AcceleratorError(f"{CUDA}out of memory{ASYNC}"), "full: 0.2 of 80.0 GiB"),
        (
            torch.AcceleratorError(f"{CUDA}CUDA-capable device(s) is/are busy or unavailable"),
            "exclusive mode.*-c DEFAULT",
        ),
        (RuntimeError(f"{CUDA}no kernel image is available for execution"), "no kernels for"),
        (
            torch.AcceleratorError(f"{CUDA}uncorrectable ECC error encountered{ASYNC}"),
            r"first product \(AcceleratorError: CUDA error: uncorrectable ECC .*\); see",
        ),
        (AssertionError("Torch not compiled with CUDA enabled"), "fails a first product"),
        (RuntimeError(), r"fails a first product \(RuntimeError: \)"),
    ],
)
def test_what_fails_is_refused_in_a_sentence(
    gpu: pytest.MonkeyPatch, err: Exception, says: str
) -> None:
    gpu.setattr(torch, "empty", failing(err))
    with pytest.raises(DeviceError, match=says) as raised:
        ready()
    assert "\n" not in str(raised.value)


def test_a_gpu_that_is_full_to_the_last_byte(gpu: pytest.MonkeyPatch) -> None:
    full = torch.cuda.OutOfMemoryError("CUDA out of memory")
    gpu.setattr(torch, "empty", failing(full))
    gpu.setattr(torch.cuda, "mem_get_info", failing(RuntimeError(f"{CUDA}out of memory")))
    with pytest.raises(DeviceError, match="full: nothing can be allocated"):
        ready()


def test_a_gpu_that_computes_wrongly(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(torch, "ones", lambda *a, device, **kw: torch.full(a, 1.5, **kw))
    with pytest.raises(DeviceError, match="does not add up to 512 in torch.bfloat16"):
        ready()


@pytest.mark.parametrize(
    ("system", "has_xpu", "says"),
    [
        ("Darwin", False, "Apple's, and trials need CUDA"),
        ("Linux", True, "Intel's, and trials need CUDA"),
        ("Linux", False, "built without CUDA; install a build with it"),
    ],
)
def test_a_build_of_torch_without_cuda(
    gpu: pytest.MonkeyPatch, system: str, has_xpu: bool, says: str
) -> None:
    gpu.setattr(torch.version, "cuda", None)
    gpu.setattr(torch.version, "hip", None)
    gpu.setattr(torch.xpu, "is_available", lambda: has_xpu)
    gpu.setattr(device.platform, "system", lambda: system)
    gpu.setattr(torch, "empty", failing(AssertionError("the device was touched")))
    with pytest.raises(DeviceError, match=says):
        ready()
