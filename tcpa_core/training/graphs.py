"""Training steps recorded once and replayed: on a GPU, as CUDA graphs.

The host of an eager step starts a thousand kernels and more; a small network waits for it. A graph
starts them all at once. It can do nothing but repeat: the same kernels on the same memory.
"""

import gc
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Execution = Literal["eager", "graph", "compiled"]
"""How the steps of a pack run: operation by operation; recorded and replayed; or that with blocks
that torch.compile has made fewer and larger kernels of."""
Run = Callable[..., Tensor]
"""A step: tensors that change from step to step -> what it computes."""


class Recorder(Protocol):
    """What can repeat the work of a device."""

    def warm(self, run: Callable[[], Tensor]) -> Tensor:
        """Run something as it is, so that it can be recorded next."""
        ...

    def record(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Record something without running it: what repeats it, and where its result will lie."""
        ...


class CudaRecorder:
    """Records CUDA graphs. Graphs of one recorder share their memory, so that at most one of them
    may run at a time, and what they return has to be copied before the next one.

    Args:
        device: A GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._memory = torch.cuda.graph_pool_handle()

    def warm(self, run: Callable[[], Tensor]) -> Tensor:
        """See `Recorder`: on the stream that records, so that nothing is bound to another one."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            found = run()
        current.wait_stream(self._stream)
        return found

    def record(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """See `Recorder`."""
        gc.collect()  # what is freed while a graph is recorded must not be of the time before
        graph = torch.cuda.CUDAGraph()
        # Threads that write checkpoints may talk to the device at the same time.
        with torch.cuda.graph(
            graph, pool=self._memory, stream=self._stream, capture_error_mode="thread_local"
        ):
            found = run()
        return graph.replay, found


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A step that can be repeated."""

    places: Sequence[Tensor]
    """Where it reads what changes."""
    replay: Callable[[], None]
    result: Tensor


class StepGraphs:
    """The recorded steps of one pack, by the shapes of what changes from step to step.

    A step of new shapes runs as it is, which loads kernels and fills caches; the next one of these
    shapes is recorded, and from then on replayed. All else that a step reads or writes has to keep
    its place in memory as long as this object lives.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._known: dict[Hashable, _Recorded | None] = {}

    def run(self, kind: Hashable, changing: Sequence[Tensor], step: Run) -> Tensor:
        """Run a step.

        Args:
            kind: What else tells two steps apart: steps of one kind are the same computation.
            changing: What changes from step to step, on the device.
            step: The step; called with such tensors.

        Returns:
            What it computes; the next step leaves it as it is.
        """
        key = kind, tuple((x.shape, x.dtype) for x in changing)
        if key not in self._known:
            self._known[key] = None
            return self._recorder.warm(lambda: step(*changing))
        recorded = self._known[key]
        if recorded is None:
            places = [x.clone() for x in changing]
            replay, result = self._recorder.record(lambda: step(*places))
            recorded = self._known[key] = _Recorded(places, replay, result)
        for place, x in zip(recorded.places, changing, strict=True):
            place.copy_(x)
        recorded.replay()
        return recorded.result.clone()
