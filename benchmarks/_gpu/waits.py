"""Whether the host ever waits for the device inside a training step, for every method.

CUDA's sync debug mode lets torch raise where a copy or a read would wait. It is on from the middle
of one training step to the middle of the next, so that it sees a whole step: batch, forward,
backward, optimiser.
"""

import traceback
import warnings
from pathlib import Path

import torch

from benchmarks._gpu.bench import Bench, Finding
from benchmarks._gpu.cases import all_methods, trial
from benchmarks.pack import new_members
from tcpa_core.config import TrialConfig
from tcpa_core.methods import damvp
from tcpa_core.training.pack import Pack

STEPS = 4
ON, OFF = 2, 3
"""Between these passes of an epoch a wait is an error: the first ones fill caches."""


def run(bench: Bench) -> None:
    """One row a method, and one for members of unequal sizes."""
    # Its clusters are made by scipy, before the first step.
    damvp.cluster = lambda features, threshold, most: features[:4]
    cases = [(name, 1) for name in all_methods()] + [(name, 2) for name in bench.form.methods]
    for name, members in cases:
        what = name if members == 1 else f"{name}, {members} unequal members"
        with bench.trying(what):
            configs = [trial(name, bench.settings(bench.form.exact), m) for m in range(members)]
            _watch(bench, what, configs)


def _watch(bench: Bench, what: str, configs: list[TrialConfig]) -> None:
    try:
        _step(bench, configs, "error")
    except RuntimeError as err:
        if "synchronizing" not in str(err):
            raise
        place = _place(err)
    else:
        if bench.is_gpu:
            bench.tell(Finding(what=what, values={"waits": 0}, ok=True))
        else:
            bench.tell(Finding(what=what, note="the step runs; on the CPU nobody waits"))
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _step(bench, configs, "warn")
    waits = sum("synchronizing" in str(warning.message) for warning in caught)
    bench.tell(Finding(what=what, values={"waits": waits}, ok=False, note=f"the first at {place}"))


def _step(bench: Bench, configs: list[TrialConfig], mode: str) -> None:
    """An epoch of a pack, with the mode on for one step of it."""
    passes = 0

    def on_step() -> None:
        nonlocal passes
        passes += 1
        if bench.is_gpu and passes in (ON, OFF):
            torch.cuda.set_sync_debug_mode(mode if passes == ON else "default")

    vit = bench.form.exact
    data = bench.data(vit, train=STEPS * bench.form.batch, val=bench.form.batch)
    pack = Pack(bench.backbone(vit), data, on_step=on_step)
    try:
        members = new_members(pack, configs)
        passes = 0
        pack.run_epoch(members)
    finally:
        if bench.is_gpu:
            torch.cuda.set_sync_debug_mode("default")


def _place(err: RuntimeError) -> str:
    """The last line of the project that was on the way to an error."""
    frames = traceback.extract_tb(err.__traceback__)
    ours = [f for f in frames if "tcpa_core" in Path(f.filename).parts] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} ({ours[-1].name})"
