"""How near a training step comes to the machine's limits, which are measured in the same run.

The limits are the speed of a large matrix product and of a large copy. The step's FLOP are counted
by torch; the time it cannot go below is FLOP / speed, were the products as large as the largest.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.harness import Row, as_worker, interleave, write
from benchmarks.step import CASES, VITS, Pair
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig

LONG_S = 1e-3
"""A product or a copy that sets a limit takes at least this long: a launch of some microseconds is
then nothing. A product of 2048 x 2048 in bf16 takes an H200 22 microseconds."""
SIDE, LARGEST_SIDE = 2048, 16384
"""Of the square matrices whose product sets the limit."""
COPIED, MOST_COPIED = 2**26, 2**31
"""Bytes of the copy that sets the other one."""
REPEATS = 7


def product_of(side: int, device: str, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """A product of two square matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return lambda: torch.mm(a, b)


def large_side(device: str, dtype: torch.dtype) -> int:
    """Side of the smallest square matrices whose product takes long enough."""
    side = SIDE
    while side < LARGEST_SIDE and fastest(product_of(side, device, dtype), device) < LONG_S:
        side *= 2
    return side


def product_speed(device: str, dtype: torch.dtype) -> tuple[int, float]:
    """Side of a large product, and FLOP/s of the fastest of some of them."""
    side = large_side(device, dtype)
    return side, 2 * side**3 / fastest(product_of(side, device, dtype), device)


def bandwidth(device: str) -> tuple[int, float]:
    """Bytes of a large copy, and bytes per second that are read and written in the fastest."""
    size = COPIED
    while True:
        source = torch.randn(size // 4, device=device)
        target = torch.empty_like(source)
        seconds = fastest(lambda: target.copy_(source), device)  # noqa: B023
        if seconds >= LONG_S or size >= MOST_COPIED:
            return size, 2 * size / seconds
        size *= 2


def fastest(run: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of some runs, after one that loads what it needs."""
    seconds = []
    for _ in range(1 + REPEATS):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def share_of_limit(
    backbone: Backbone, vit: str, case: str, batch: int, rounds: int, *, bf16: bool
) -> Row:
    """Time that a step would take at the speed of a large product, as a share of what it takes.

    Args:
        backbone: On the device.
        vit: Its name in `VITS`.
        case: A name in `CASES`.
        batch: Images of the step.
        rounds: Steps and products that take turns.
        bf16: Both of them in bfloat16.
    """
    device = backbone.device.type
    dtype = torch.bfloat16 if bf16 else torch.float32
    side = large_side(device, dtype)
    pair = Pair(backbone, CASES[case], batch, 0.0)
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        flops = pair.counts(pair.ours).flops
        runs = {"step": pair.train(pair.ours), "product": product_of(side, device, dtype)}
        times = interleave(runs, rounds=rounds)
    least = [flops / (2 * side**3 / seconds) for seconds in times["product"]]
    share = [x / y for x, y in zip(least, times["step"], strict=True)]
    speed = 2 * side**3 / statistics.median(times["product"]) / 1e9
    return Row(
        group=f"{case}, ViT-{vit}, batch {batch}",
        variant="time at the FLOP limit",
        baseline="step",
        ratio=statistics.median(share),
        low=min(share),
        high=max(share),
        rounds=len(share),
        seconds=statistics.median(times["step"]),
        notes=f"limit: {speed:,.0f} GFLOP/s in a product of side {side}",
    )


def main() -> None:
    """Measure and write results/limit.json, .md and .png."""
    as_worker()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--vits", nargs="+", choices=VITS, default=["Ti", "B"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for vit in options.vits:
        cfg = BackboneConfig(name=VITS[vit], weights="random", img_size=224)
        backbone = load_backbone(cfg, device=options.device)
        for name in ("tcpa 18/18 K10", "vpt 10", "cvpt 10"):
            rows.append(
                share_of_limit(
                    backbone, vit, name, options.batch, options.rounds, bf16=options.bf16
                )
            )
            print(f"{rows[-1].group}: {rows[-1].ratio:.0%} of the FLOP limit, {rows[-1].notes}")
    size, speed = bandwidth(options.device)
    copied = f"{speed / 1e9:,.1f} GB/s in a copy of {size >> 20} MiB"
    write(
        "limit",
        rows,
        title="Share of the machine's limit",
        extra={"bf16": options.bf16, "copy": copied},
    )


if __name__ == "__main__":
    main()
