"""Passes over a whole split without gradients, as many samples at once as memory holds."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tcpa_core.training.memory import is_out_of_memory

EVAL_ROWS = 256
"""Images times members in one evaluation batch, as long as memory holds them."""


class ByRows:
    """Evaluates samples in turns; what did not fit once is not tried again.

    Args:
        device: Where the indices are wanted.
        on_step: Called before every turn: a sign of life.
    """

    def __init__(self, device: torch.device, on_step: Callable[[], None]) -> None:
        self._device = device
        self._on_step = on_step
        self._rows = EVAL_ROWS

    def __call__(
        self, count: int, members: int, compute: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Evaluate samples in turns, in smaller ones from where memory runs out.

        Args:
            count: Samples.
            members: That see each sample.
            compute: Takes indices (n,).

        Yields:
            Indices and what was computed for them.

        Raises:
            Exception: Of `compute`; that memory ran out only where one sample does not fit.
        """
        start = 0
        while start < count:
            rows = max(1, self._rows // members)
            indices = torch.arange(start, min(start + rows, count), device=self._device)
            self._on_step()
            try:
                found = compute(indices)
            except Exception as err:
                if rows == 1 or not is_out_of_memory(err):
                    raise
                # Kept for later calls too: each attempt that fails costs a pass.
                self._rows = rows * members // 2
                continue
            yield indices, found
            start += rows
