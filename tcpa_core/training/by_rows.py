"""Passes over a whole split without gradients, as many samples at once as memory holds."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from tcpa_core.training.memory import is_out_of_memory

T = TypeVar("T")

EVAL_ROWS = 256
"""Images times members in one evaluation batch, as long as memory holds them."""


class ByRows:
    """Evaluates samples in turns; what did not fit once is not tried again.

    Args:
        on_step: Called before every turn: a sign of life.
    """

    def __init__(self, on_step: Callable[[], None]) -> None:
        self.on_step = on_step
        """For what takes several passes in a turn: a sign of life before each."""
        self._rows = EVAL_ROWS

    def __call__(
        self, count: int, members: int, compute: Callable[[slice], T]
    ) -> Iterator[tuple[slice, T]]:
        """Evaluate samples in turns, in smaller ones from where memory runs out.

        Args:
            count: Samples.
            members: That see each sample.
            compute: Takes a range of samples.

        Yields:
            Ranges and what was computed for them.

        Raises:
            Exception: Of `compute`; that memory ran out only where one sample does not fit.
        """
        start = 0
        while start < count:
            rows = max(1, self._rows // members)
            turn = slice(start, min(start + rows, count))
            self.on_step()
            try:
                found = compute(turn)
            except Exception as err:
                if rows == 1 or not is_out_of_memory(err):
                    raise
                # Kept for later calls too: each attempt that fails costs a pass.
                self._rows = rows * members // 2
                continue
            yield turn, found
            start += rows
