"""Recorded steps and compiled blocks against plain steps: equal losses, and what they gain.

What is found here decides whether `TCPA_STEP=auto` may become the rule (see
`tcpa_core/training/rehearsal.py`).
"""

import os

import torch

from benchmarks._gpu.bench import Bench, Finding, Value
from benchmarks._gpu.cases import all_methods, trial
from benchmarks._gpu.packs import row_name
from tcpa_core.config import TrialConfig
from tcpa_core.methods import damvp
from tcpa_core.training.graphs import Execution
from tcpa_core.training.pack import Pack
from tcpa_core.training.rehearsal import TOLERANCE, rehearse, ways


def run(bench: Bench) -> None:
    """Every method recorded; the timed ones too, and last what takes longest, the compiled ones."""
    damvp.cluster = lambda features, threshold, most: features[:4]
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(bench.folder / "compiled"))
    exact = bench.form.exact
    names = all_methods() if bench.is_gpu else bench.form.methods
    for name in names:
        with bench.trying(row_name(name, exact, 1)):
            _compare(bench, row_name(name, exact, 1), exact, [_trial(bench, exact, name)], "graph")
    for way in ("graph", "compiled") if bench.is_gpu else ():
        for vit, most in bench.form.most_members.items():
            for members in (1, most):
                name = bench.form.methods[0]
                what = row_name(name, vit, members)
                configs = [_trial(bench, vit, name)] * members
                with bench.trying(what):
                    _compare(bench, what, vit, configs, way)


def _trial(bench: Bench, vit: str, name: str) -> TrialConfig:
    return trial(name, bench.settings(vit))


def _compare(bench: Bench, what: str, vit: str, configs: list[TrialConfig], way: Execution) -> None:
    pack = Pack(bench.backbone(vit), bench.data(vit))
    plain = rehearse(pack, configs, "eager")
    if way not in ways(torch.device(bench.device), configs):
        note = f"plain steps run, {way} is not possible"
        bench.tell(Finding(what=what, values={"plain ms": 1e3 * plain.step_s}, note=note))
        return
    found = rehearse(pack, configs, way)
    off = found.off_by(plain)
    values: dict[str, Value] = {
        "steps": way,
        "off by": off,
        "plain ms": 1e3 * plain.step_s,
        "ms": 1e3 * found.step_s,
        "gain": plain.step_s / found.step_s,
        "prepared in s": found.prepare_s,
    }
    bench.tell(Finding(what=what, values=values, ok=off <= TOLERANCE))
