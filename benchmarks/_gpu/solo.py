"""A member of a pack against the same trial alone: losses of two epochs."""

from benchmarks._gpu.bench import Bench, Finding
from benchmarks._gpu.cases import trial
from benchmarks.pack import difference
from tcpa_core.training.pack import Pack

TOLERANCES = {"fp32": 1e-3, "bf16": 0.03}
"""Largest share by which any loss may differ. Other sizes of a pack are other kernels, which round
otherwise, and a rounding may change which prompts a token chooses."""
MEMBERS = 3
STEPS = 4
EPOCHS = 2


def run(bench: Bench) -> None:
    """Members of unequal sizes, in both precisions."""
    vits = dict.fromkeys([bench.form.exact, *bench.form.most_members])
    for vit in vits:
        for name in bench.form.methods:
            for precision, tolerance in TOLERANCES.items():
                what = f"{name}, {vit}, {precision}"
                with bench.trying(what):
                    off = _difference(bench, vit, name, precision)
                    bench.tell(Finding(what=what, values={"off by": off}, ok=off <= tolerance))


def _difference(bench: Bench, vit: str, name: str, precision: str) -> float:
    data = bench.data(vit, train=STEPS * bench.form.batch, val=bench.form.batch)
    pack = Pack(bench.backbone(vit), data)
    base = {**bench.settings(vit), "train.precision": precision}
    configs = [trial(name, base, seed) for seed in range(MEMBERS)]
    return difference(pack, configs, EPOCHS)
