"""One H200 that torch believes in, and where each operation goes: to the CPU or to fake tensors."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
)
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.fake_cuda.attention import attention
from benchmarks.fake_cuda.kernels import BY_INDEX, is_masked_fill, refuse, tensors_of
from benchmarks.fake_cuda.watch import Log, is_on_gpu
from tcpa_core import philox

GPU = torch.device("cuda", 0)
NAME = "NVIDIA H200 (fake)"
FREE_BYTES, TOTAL_BYTES = 139 * 2**30, 141 * 2**30
TRIED = ("2.14",)
"""Versions of torch, built for CUDA, whose virtual table `_let_autograd_run` is known to fit."""

_KEPT_ALIVE: list[Any] = []


def why_not() -> str:
    """Why this build of torch cannot pretend; "" where it can."""
    version = torch.__version__
    if torch.version.cuda is None or version.startswith(tuple(f"{one}." for one in TRIED)):
        return ""
    return (
        f"torch {version} is built for CUDA and was not tried: the harness changes a virtual table "
        f"of libtorch_cpu, which it knows of {', '.join(TRIED)}; any build for the CPU will do"
    )


@contextmanager
def fake_gpu(log: Log) -> Iterator[None]:
    """Inside, "cuda" is a device of fake tensors, and the log gets every operation on it."""
    _Generator.log = _Event.log = log
    _replace(torch.cuda, synchronize=lambda device=None: log.wait("synchronize", "value"))
    _replace(FakeTensor, tolist=lambda x: _tolist(x, log))
    with _Device(log):
        yield


def pretend(free: int = FREE_BYTES) -> None:
    """Make torch believe in one H200, for this process and for good.

    Args:
        free: Bytes that the device says are free.
    """
    _let_autograd_run()
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)
    _replace(torch, Generator=_Generator)
    _replace(torch.nn.Module, _apply=_apply)
    _replace(torch.nn.functional, scaled_dot_product_attention=attention)
    _replace(torch.UntypedStorage, data_ptr=_address)
    _replace(philox, unit=_unit)
    _replace(torch.Tensor, record_stream=lambda x, stream: None)
    properties = SimpleNamespace(
        name=NAME, major=9, minor=0, total_memory=TOTAL_BYTES, multi_processor_count=132
    )
    _replace(
        torch.cuda,
        _lazy_init=lambda: None,
        is_available=lambda: True,
        is_initialized=lambda: True,
        is_bf16_supported=lambda *args, **kwargs: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        set_device=lambda device: None,
        mem_get_info=lambda device=None: (free, TOTAL_BYTES),
        memory_allocated=lambda device=None: 0,
        max_memory_allocated=lambda device=None: 0,
        memory_reserved=lambda device=None: 0,
        reset_peak_memory_stats=lambda device=None: None,
        empty_cache=lambda: None,
        get_device_name=lambda device=None: NAME,
        get_device_capability=lambda device=None: (9, 0),
        get_device_properties=lambda device=None: properties,
        Stream=_Stream,
        Event=_Event,
        current_stream=lambda device=None: _Stream(),
        default_stream=lambda device=None: _Stream(),
        stream=lambda stream: nullcontext(),
    )


_CPU_ADDRESS = torch.UntypedStorage.data_ptr
_CPU_UNIT = philox.unit


def _address(storage: torch.UntypedStorage) -> int:
    """A number of its own also for memory that is not there."""
    return _CPU_ADDRESS(storage) if storage.device.type == "cpu" else storage._cdata


def _unit(device: torch.device) -> int | None:
    """PyTorch's kernel for CUDA, of which no numbers can be compared here."""
    return philox.WORDS if device.type == "cuda" else _CPU_UNIT(device)


def _replace(owner: Any, **parts: Any) -> None:
    for name, part in parts.items():
        setattr(owner, name, part)


def _let_autograd_run() -> None:
    """Let the engine take fake CUDA tensors where torch was built for CUDA and finds no driver.

    It asks every device for a context before it runs. The answer is a virtual function of one
    object; its table is copied, and "no context" stands in the place of the function. Builds for
    the CPU do not ask.
    """
    if torch.version.cuda is None:
        return
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    hooks = library._ZN2at6detail12getCUDAHooksEv
    hooks.restype = ctypes.c_void_p
    address, size, head, entry = hooks(), 96, 2, 4  # 4: hasPrimaryContext
    table = ctypes.c_void_p.from_address(address).value
    assert table is not None
    copied = (ctypes.c_void_p * size).from_buffer_copy(
        (ctypes.c_char * (8 * size)).from_address(table - 8 * head)
    )
    kind = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int8)
    answer = kind(lambda this, index: False)
    copied[head + entry] = ctypes.cast(answer, ctypes.c_void_p).value
    ctypes.c_void_p.from_address(address).value = ctypes.addressof(copied) + 8 * head
    _KEPT_ALIVE.extend((copied, answer))


class _Generator(torch.Generator):
    """A generator that says it is on the GPU where it was asked for there."""

    log: Log
    where: torch.device

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        made = super().__new__(cls)
        kind = torch.device(device).type
        made.where = GPU if kind == "cuda" else torch.device(kind)
        cls.log.generator(kind)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.where


class _Stream:
    """A queue of the device; there is one, in order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.device = GPU

    def synchronize(self) -> None:
        _Event.log.wait("stream.synchronize", "value")

    def wait_stream(self, stream: Any) -> None:
        """The device waits, the host does not."""

    wait_event = wait_stream

    def record_event(self, event: Any = None) -> Any:
        return event or _Event()

    def query(self) -> bool:
        return True


class _Event:
    """A mark in such a queue."""

    log: Log

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        """Nothing is measured."""

    wait = record

    def synchronize(self) -> None:
        self.log.wait("event.synchronize", "value")

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: Any) -> float:
        return 1.0


def _apply(
    module: torch.nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True
) -> torch.nn.Module:
    """`Module.to` without the exchange of tensors that fake ones do not allow."""
    for child in module.children():
        child._apply(change)
    for name, param in module._parameters.items():
        if param is not None:
            with torch.no_grad():
                moved = change(param)
            if moved.device != param.device or moved.dtype != param.dtype:
                module._parameters[name] = torch.nn.Parameter(moved, param.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module


def _tolist(x: Tensor, log: Log) -> Any:
    """One wait, however many values."""
    log.wait("tolist", "value")
    return pattern(x).tolist()


def pattern(x: Tensor) -> Tensor:
    """What the CPU gets of a tensor of the GPU: numbers in (0, 1), unequal rows; 0 and False."""
    found = torch.zeros(x.shape, dtype=x.dtype)
    if x.is_floating_point():
        found.view(-1).copy_(torch.arange(1, x.numel() + 1).remainder_(97).add_(1).div(100))
    return found


class _Device(TorchDispatchMode):
    """Runs what touches the GPU on fake tensors, the rest as ever; answers what would need data."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._pinned: set[int] = set()
        """Storages of the CPU that were asked for in pinned memory."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; to guard every operation against it takes longer than most."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # twice as often as all others together
            return args[0].fake_device
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        ins = tensors_of((args, kwargs))
        where = kwargs.get("device")
        to_gpu = where is not None and torch.device(where).type == "cuda"
        from_gpu = any(map(is_on_gpu, ins))
        if not (to_gpu or from_gpu):
            return self._on_cpu(func, name, args, kwargs)
        if from_gpu and (answered := self._answer(name, args, ins)):
            return answered[0]
        refuse(name, ins)
        if copied := self._copy(name, args, kwargs):
            return copied[0]
        if func.is_view or name == "_unsafe_view":
            return self._view(func, args, kwargs)
        with self._fake:
            out = func(*args, **kwargs)
        self._log.operation(func, args, kwargs, out)
        return out

    def _view(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Of a tensor or several, made at once: fake tensors look up what a view looks like, which
        takes five times as long as making it. No kernel starts."""
        with in_kernel_invocation_manager(self._fake):
            out = func(*args, **kwargs)
        if isinstance(out, Tensor):
            return FakeTensor(self._fake, out, GPU)
        return [FakeTensor(self._fake, x, GPU) for x in out]

    def _on_cpu(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name == "is_pinned":
            return args[0].untyped_storage()._cdata in self._pinned
        if name != "_pin_memory" and not kwargs.get("pin_memory"):
            return func(*args, **kwargs)
        if name == "_pin_memory":
            made = args[0].clone()
        else:
            made = func(*args, **{**kwargs, "pin_memory": False})
        self._pinned.add(made.untyped_storage()._cdata)
        _KEPT_ALIVE.append(made)  # so that no other storage gets its address
        return made

    def _copy(self, name: str, args: Any, kwargs: Any) -> tuple[Any] | None:
        """Copies between the two memories; None: another operation."""
        if name == "copy_":
            target, source = args[0], args[1]
            to = target.device.type
            later = kwargs.get("non_blocking") or args[2:] == (True,)
        elif name == "_to_copy":
            target, source = None, args[0]
            to = torch.device(kwargs.get("device") or source.device).type
            later = kwargs.get("non_blocking")
        else:
            return None
        if source.device.type == to:
            return None
        if to == "cpu":
            kept = target is not None and target.untyped_storage()._cdata in self._pinned
            out = self._to_cpu(source, target, kwargs)
            self._log.crossing(name, "d2h", source, out, later=bool(later and kept))
            return (out,)
        if target is None:
            kind = kwargs.get("dtype") or source.dtype
            like = torch.empty_like(source, dtype=kind, device="meta")
            with self._fake:
                out = torch.empty_strided(like.shape, like.stride(), dtype=kind, device=GPU)
        else:
            source.expand(target.shape)  # which refuses what a copy refuses
            out = target
        is_pinned = source.untyped_storage()._cdata in self._pinned
        self._log.crossing(name, "h2d", source, out, later=bool(later and is_pinned))
        return (out,)

    def _to_cpu(self, source: Tensor, target: Tensor | None, kwargs: Any) -> Tensor:
        found, known = pattern(source), self._log.known()
        if known is not None:
            found.fill_(known)
        if target is None:
            return found.to(kwargs.get("dtype") or source.dtype)
        return target.copy_(found)

    def _answer(self, name: str, args: Any, ins: list[Tensor]) -> tuple[Any] | None:
        """What needs data: values that the host reads, and results as large as a mask has ones, all
        of them here; None: another operation."""
        if name == "_local_scalar_dense":
            return (self._log.value(args[0]),)
        if name == "equal":
            self._log.wait(name, "value")
            return (True,)
        if name == "nonzero":
            self._log.by_shape(name, ins)
            return (self._new(args[0], (args[0].numel(), args[0].ndim), torch.long),)
        if name not in BY_INDEX and name != "masked_select":
            return None
        indices = [args[1]] if name == "masked_select" else args[1]
        masks = [i for i in indices if isinstance(i, Tensor) and i.dtype in _MASKS]
        if not masks:
            return None
        if name in BY_INDEX and name != "index" and is_masked_fill(indices, args[2]):
            return (self._fill(args[0], masks[0], args[2]),)
        self._log.by_shape(f"{name} by mask", ins)
        if name not in ("index", "masked_select"):
            return (args[0],)
        at = next(d for d, i in enumerate(indices) if i is not None)
        mask = masks[0]
        shape = (*args[0].shape[:at], mask.numel(), *args[0].shape[at + mask.ndim :])
        return (self._new(args[0], shape, args[0].dtype),)

    def _fill(self, x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
        with self._fake:
            out = x.masked_fill_(mask, value)
        self._log.operation(torch.ops.aten.masked_fill_.Tensor, (x, mask, value), {}, out)
        return out

    def _new(self, like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        with self._fake:
            return like.new_empty(shape, dtype=dtype)


_MASKS = (torch.bool, torch.uint8)
