"""Tensors that follow from a few plain values, made once in a process."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar, TypeVarTuple

import torch

Args = TypeVarTuple("Args")
T = TypeVar("T")

MOST = 1024
"""Results that are kept of one function."""


def made_once(function: Callable[[*Args], T]) -> Callable[[*Args], T]:
    """Keep what a function of hashable arguments has made: made anew in every block, its tensors
    would be copies to the device, for which the host waits each time.

    Tensors without numbers (torch's fake ones, by which a plan tells memory) are kept apart: no
    trial may ever be given one.
    """

    @lru_cache(MOST)
    def kept(fake: object, *args: *Args) -> T:
        return function(*args)

    @wraps(function)
    def give(*args: *Args) -> T:
        fake: object = None
        if not torch.compiler.is_compiling():  # which has fake tensors of its own and keeps none
            fake = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
        return kept(fake, *args)

    return give
