"""What a training step costs in figures that do not depend on the machine's mood."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

_FREE = {"detach", "view", "_unsafe_view", "expand", "t", "transpose", "permute", "alias", "slice"}
_FREE |= {"unsqueeze", "squeeze", "select", "split", "split_with_sizes", "unbind", "as_strided"}
_FREE |= {"chunk", "unsafe_split", "_reshape_alias", "empty", "empty_like", "new_empty"}
"""Operations that move no data."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Costs of one forward and backward pass."""

    ops: int
    """Dispatched operations that touch data."""
    saved_bytes: int
    """Distinct storages kept for backward, the frozen and trained tensors themselves excluded."""
    flops: int
    """Of matrix products and convolutions, as torch counts them."""


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ not in _FREE:
            self.count += 1
        return func(*args, **(kwargs or {}))


def counts(step: Callable[[], Tensor], owned: Iterable[Tensor]) -> Counts:
    """Count one step.

    Args:
        step: Forward pass; returns the loss. It is called three times.
        owned: Tensors that exist anyway (weights, images), not to be counted as saved.
    """
    with _Operations() as operations:
        step().backward()
    with FlopCounterMode(display=False) as flops:
        step().backward()
    return Counts(operations.count, saved_bytes(step, owned), flops.get_total_flops())


def saved_bytes(step: Callable[[], Tensor], owned: Iterable[Tensor]) -> int:
    """Bytes of distinct storages that a forward pass keeps for backward."""
    known = {tensor.untyped_storage().data_ptr() for tensor in owned}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step()
    del loss
    return sum(found.values())
