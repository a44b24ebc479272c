"""Losses of a short training in bf16 against those in fp32, for every method."""

from benchmarks._gpu.bench import Bench, Finding, relative
from benchmarks._gpu.cases import all_methods, trial
from benchmarks.pack import new_members, train
from tcpa_core.methods import damvp
from tcpa_core.training.pack import Pack

TOLERANCE = 0.03
"""Largest share by which a mean loss of the first epoch may differ."""
STEPS = 4


def run(bench: Bench) -> None:
    """One row a method; the large backbones with the methods that are timed."""
    damvp.cluster = lambda features, threshold, most: features[:4]
    exact = bench.form.exact
    cases = [(exact, name) for name in all_methods() if bench.form.compares_all]
    cases += [(vit, name) for vit in bench.form.most_members for name in bench.form.methods]
    for vit, name in dict.fromkeys(cases):
        with bench.trying(f"{name}, {vit}"):
            _compare(bench, vit, name)


def _compare(bench: Bench, vit: str, name: str) -> None:
    data = bench.data(vit, train=STEPS * bench.form.batch, val=bench.form.batch)
    pack = Pack(bench.backbone(vit), data)
    losses = {}
    for precision in ("fp32", "bf16"):
        config = trial(name, {**bench.settings(vit), "train.precision": precision})
        (member,) = train(pack, new_members(pack, [config]), 1)
        losses[precision] = member.reports[-1].train_loss
    off = relative(losses["bf16"], losses["fp32"])
    bench.tell(
        Finding(what=f"{name}, {vit}", values={**losses, "off by": off}, ok=off <= TOLERANCE)
    )
