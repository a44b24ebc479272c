"""How near a step comes to the machine: its products and copies at their fastest."""

import torch

from benchmarks._gpu.bench import Bench, Finding
from benchmarks.limit import bandwidth, product_speed, share_of_limit
from benchmarks.step import VITS
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig


def run(bench: Bench) -> None:
    """The limits, and the share of them that steps of one trial reach."""
    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32}
    for name, kind in kinds.items() if bench.is_gpu else [("fp32", torch.float32)]:
        with bench.trying(f"product, {name}"):
            side, speed = product_speed(bench.device, kind)
            values = {"side": side, "TFLOP/s": speed / 1e12}
            bench.tell(Finding(what=f"product, {name}", values=values))
    with bench.trying("copy"):
        size, speed = bandwidth(bench.device)
        bench.tell(Finding(what="copy", values={"MiB": size >> 20, "GB/s": speed / 1e9}))
    for vit in bench.form.step_vits:
        size = bench.form.step_size
        config = BackboneConfig(name=VITS[vit], weights="random", img_size=size)
        backbone = load_backbone(config, device=bench.device)
        for case in bench.form.step_cases:
            with bench.trying(f"{case}, ViT-{vit}"):
                row = share_of_limit(
                    backbone, vit, case, bench.form.batch, bench.form.rounds, bf16=bench.is_gpu
                )
                values = {"share of the limit": row.ratio, "step ms": 1e3 * row.seconds}
                bench.tell(Finding(what=row.group, values=values, note=row.notes))
