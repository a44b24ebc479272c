"""What a CUDA graph does, on the CPU: operations are noted once and repeated on the same memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Notes(TorchDispatchMode):
    """Notes every operation that is dispatched, below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, Any, Any, Any]] = []
        self._own: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A graph cannot be asked for a number, and a step that asks would be wrong when repeated.
        assert func.overloadpacket.__name__ not in ("_local_scalar_dense", "nonzero", "equal"), func
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            self._keep(func, args, kwargs)
        out = func(*args, **kwargs)
        if not func.is_view and not func._schema.is_mutable:
            self._own |= {_memory(x) for x in tree_leaves(out) if isinstance(x, Tensor)}
        self.seen.append((func, args, kwargs, out))
        return out

    def restore(self) -> None:
        """Take back what was written to memory that was there before."""
        for tensor, before in self._before.values():
            _whole(tensor).copy_(before)

    def _keep(self, func: Any, args: Any, kwargs: Any) -> None:
        named = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)}
        for argument in func._schema.arguments:
            written = {**named, **kwargs}.get(argument.name)
            if argument.is_write and isinstance(written, Tensor):
                place = _memory(written)
                if place not in self._own and place not in self._before:
                    self._before[place] = written, _whole(written).clone()


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _whole(tensor: Tensor) -> Tensor:
    """All bytes of the memory in which a tensor lies."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


class Replayed:
    """A `tcpa_core.training.graphs.Recorder` for the CPU."""

    def __init__(self) -> None:
        self.warmed = self.recorded = self.replayed = 0

    def warm(self, run: Callable[[], Tensor]) -> Tensor:
        self.warmed += 1
        return run()

    def record(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.recorded += 1
        with _Notes() as notes:
            result = run()
        notes.restore()  # a CUDA graph runs nothing while it is recorded

        def replay() -> None:
            self.replayed += 1
            with torch.no_grad():
                for note in notes.seen:
                    _repeat(*note)

        return replay, result


def _repeat(func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Run an operation again; what it made the first time gets the new values."""
    if func.is_view:
        return
    given = {id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
    for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
        if isinstance(old, Tensor) and id(old) not in given:
            old.detach().copy_(new)
