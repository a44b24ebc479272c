"""What was seen on the fake device: operations, waits of the host, and generators."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from benchmarks.fake_cuda.kernels import Why, Work, span, work_of

HOST_COPY = 6e9
"""Bytes a second of a blocking copy through memory that is not pinned."""
HOST_CONVERT = 4e9
"""Bytes a second that one thread of the host turns into another number format."""


@dataclass(slots=True)
class Event:
    """One operation on the device, or one wait of the host."""

    name: str
    phase: str
    site: str
    """The line of the project that asked for it; in the backward pass the node of the graph."""
    work: Work = field(default_factory=Work)
    wait: Why = ""
    host_s: float = 0.0
    """Work of the host beside the launch: conversions and staging of blocking copies."""
    of_weights: bool = False
    """A frozen weight is brought into another number format."""
    generator: str = ""
    """The device for which a generator was made."""


@dataclass
class Log:
    """Everything that was seen, in its order, each under the phase that was set when it came."""

    phase: str = ""
    events: list[Event] = field(default_factory=list)
    weights: set[int] = field(default_factory=set)
    """Storages of the frozen network."""
    values: dict[str, Callable[[], bool]] = field(default_factory=dict)
    """What the host reads of the device, by FILE:FUNCTION; else True, 1 or 1.0."""
    with_sites: bool = False
    """Note the line of every operation, not only of waits; slower."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: int = field(default_factory=threading.get_ident)

    def of(self, *phases: str) -> list[Event]:
        """What was seen in some phases."""
        return [event for event in self.events if event.phase in phases]

    def phases(self, start: str) -> list[str]:
        """Phases that begin so, in their order."""
        found = dict.fromkeys(event.phase for event in self.events)
        return [phase for phase in found if phase.startswith(start)]

    def wait(self, name: str, why: Why) -> None:
        """The host waits; what another thread waits for keeps nobody."""
        if threading.get_ident() == self._thread or _in_backward():
            self._add(Event(name, self.phase, _site(), wait=why))

    def generator(self, kind: str) -> None:
        """A generator was made."""
        self._add(Event("generator", self.phase, _site(), generator=kind))

    def value(self, x: Tensor) -> Any:
        """The host reads a value of the device."""
        self.wait("item", "value")
        if _is_called_by("_no_grad_trunc_normal_"):
            return False  # it draws until all numbers are inside
        known = self.known()
        if known is not None:
            return known
        return True if x.dtype == torch.bool else (1.0 if x.is_floating_point() else 1)

    def known(self) -> bool | None:
        """What `values` says that the line which runs now reads."""
        made = self.values.get(":".join(_site().split(":")[:2]))
        return None if made is None else made()

    def by_shape(self, name: str, ins: list[Tensor]) -> None:
        """An operation whose result's size the host has to be told: a count, and the work."""
        size = sum(map(span, ins))
        self._add(Event(name, self.phase, _site(), Work(5, 0.0, 2.0 * size), wait="shape"))

    def crossing(self, name: str, why: Why, source: Tensor, out: Tensor, *, later: bool) -> None:
        """A copy between the two memories; `later`: from or to pinned memory, not waited for."""
        size = float(span(out) if why == "h2d" else span(source))
        host = 0.0
        if not later:
            convert = why == "h2d" and source.dtype != out.dtype
            host = size / HOST_COPY + (size / HOST_CONVERT if convert else 0.0)
        wait: Why = "" if later else why
        self._add(Event(name, self.phase, _site(), Work(1, 0.0, size), wait, host))

    def operation(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """An operation on the device."""
        work = work_of(func, args, kwargs, out)
        if not work.kernels and not work.wait:
            return
        name = func.overloadpacket.__name__
        site = _site() if self.with_sites or work.wait else ""
        is_cast = name == "_to_copy" and args[0].untyped_storage()._cdata in self.weights
        self._add(Event(name, self.phase, site, work, work.wait, of_weights=is_cast))

    def _add(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)


def is_on_gpu(x: Any) -> bool:
    """Whether it is a tensor of the device."""
    return isinstance(x, FakeTensor) and x.fake_device.type == "cuda"


def _in_backward() -> bool:
    return torch._C._current_autograd_node() is not None


def _site() -> str:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        folder, _, name = frame.f_code.co_filename.rpartition("/tcpa_core/")
        if folder:
            return f"{name}:{frame.f_code.co_name}:{frame.f_lineno}"
        frame = frame.f_back
    node = torch._C._current_autograd_node()
    return f"backward:{node.name()}" if node is not None else "elsewhere"


def _is_called_by(function: str, depth: int = 12) -> bool:
    frame: FrameType | None = sys._getframe(1)
    for _ in range(depth):
        if frame is None:
            return False
        if frame.f_code.co_name == function:
            return True
        frame = frame.f_back
    return False
