"""How near a training step comes to the machine's limits, which are measured in the same run.

The limits are the speed of a large matrix product and of a large copy. The step's FLOP are counted
by torch; the time it cannot go below is FLOP / speed, were the products as large as the largest.
"""

import argparse
import statistics

import torch

from benchmarks.harness import Row, as_worker, interleave, write
from benchmarks.step import CASES, VITS, Pair
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig

SIDE = 2048
"""Of the square matrices whose product sets the limit."""


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
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    a, b = (torch.randn(SIDE, SIDE, device=options.device, dtype=dtype) for _ in range(2))
    source = torch.randn(64 * 2**20 // 4, device=options.device)
    target = torch.empty_like(source)
    rows = []
    for vit in options.vits:
        cfg = BackboneConfig(name=VITS[vit], weights="random", img_size=224)
        backbone = load_backbone(cfg, device=options.device)
        for name in ("tcpa 18/18 K10", "vpt 10", "cvpt 10"):
            pair = Pair(backbone, CASES[name], options.batch, 0.0)
            with torch.autocast(options.device, torch.bfloat16, enabled=options.bf16):
                flops = pair.counts(pair.ours).flops
                times = interleave(
                    {
                        "step": pair.train(pair.ours),
                        "product": lambda: torch.mm(a, b),
                        "copy": lambda: target.copy_(source),
                    },
                    rounds=options.rounds,
                )
            least = [flops / (2 * SIDE**3 / seconds) for seconds in times["product"]]
            share = [x / y for x, y in zip(least, times["step"], strict=True)]
            speed = 2 * SIDE**3 / statistics.median(times["product"]) / 1e9
            bandwidth = 2 * source.nbytes / statistics.median(times["copy"]) / 1e9
            rows.append(
                Row(
                    group=f"{name}, ViT-{vit}, batch {options.batch}",
                    variant="time at the FLOP limit",
                    baseline="step",
                    ratio=statistics.median(share),
                    low=min(share),
                    high=max(share),
                    rounds=len(share),
                    seconds=statistics.median(times["step"]),
                    notes=f"limits: {speed:,.0f} GFLOP/s, {bandwidth:,.1f} GB/s",
                )
            )
            print(f"{rows[-1].group}: {rows[-1].ratio:.0%} of the FLOP limit, {rows[-1].notes}")
    write("limit", rows, title="Share of the machine's limit", extra={"bf16": options.bf16})


if __name__ == "__main__":
    main()
