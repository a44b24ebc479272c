"""Modelled time: two clocks, the host's, which launches, and the device's, which follows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.fake_cuda.watch import Event

PEAK = {
    torch.bfloat16: 790e12,
    torch.float16: 790e12,
    torch.float32: 52e12,  # without TF32, which torch leaves off for matrix products
    torch.float64: 60e12,
}
"""FLOP a second."""
BANDWIDTH = 3.9e12
"""Bytes a second."""
LAUNCH_S = 6e-6
"""Host time of one eager kernel."""
SHORTEST_S = 2.5e-6
"""No kernel is shorter."""
GRAPH_GAP_S = 1.0e-6
"""Between two kernels of a CUDA graph."""
WAIT_S = 12e-6
"""Of a wait, beyond that for the kernels before it."""
MACHINE = (
    "modelled H200: 790 TFLOP/s bf16, 52 fp32, 3.9 TB/s, 6 us of host time a kernel, 12 us a wait, "
    "no kernel below 2.5 us"
)


@dataclass(frozen=True, slots=True)
class Times:
    """Of some events, in milliseconds."""

    kernels: int
    waits: int
    gpu: float
    """The device alone, without gaps."""
    graph: float
    """The same as one CUDA graph."""
    eager: float
    """As it is: the host waits where it waits."""
    flowing: float
    """Eager without any wait."""


def seconds(event: Event) -> float:
    """Of the device."""
    work = event.work
    if not work.kernels:
        return 0.0
    peak = PEAK.get(work.dtype, PEAK[torch.float32])
    return max(work.flops / peak, work.bytes / BANDWIDTH, SHORTEST_S * work.kernels)


def times(events: Sequence[Event]) -> Times:
    """Times of a piece of the run."""
    kernels = sum(event.work.kernels for event in events)
    busy = sum(map(seconds, events))
    return Times(
        kernels=kernels,
        waits=sum(bool(event.wait) for event in events),
        gpu=1e3 * busy,
        graph=1e3 * (busy + GRAPH_GAP_S * kernels),
        eager=1e3 * _clocks(events, waiting=True),
        flowing=1e3 * _clocks(events, waiting=False),
    )


def _clocks(events: Sequence[Event], *, waiting: bool) -> float:
    host = device = 0.0
    for event in events:
        host += event.work.kernels * LAUNCH_S + event.host_s * waiting
        device = max(host, device) + seconds(event)
        if waiting and event.wait:
            host = device + WAIT_S
    return max(host, device)
