"""The GPU that is not there: it refuses what a GPU refuses, and counts what a GPU would do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fake_cuda.device import why_not

ROOT = Path(__file__).parents[1]
PROBES = r"""
import json
import torch
from torch.nn import functional as F
from benchmarks.fake_cuda.device import fake_gpu, pretend
from benchmarks.fake_cuda.watch import Log

pretend()
on = dict(device="cuda")


def wide(count, size=4):
    return [torch.zeros(size, **on) for _ in range(count)]


def pinned(x):
    held = torch.empty(4, pin_memory=True)
    return held.copy_(x, non_blocking=True)


def adamw(count, size):
    p, g, m, v = (wide(count, size) for _ in range(4))
    s = [torch.zeros((), **on) for _ in range(count)]
    torch._fused_adamw_(
        p, g, m, v, [], s, lr=1e-3, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8,
        amsgrad=False, maximize=False,
    )


def put(index, value):
    found = x()
    found[index] = value


def backward(x):
    w = torch.zeros(4, 4, **on, requires_grad=True)
    F.linear(x, w).sum().backward()
    return w.grad


x = lambda: torch.zeros(4, **on)
key = lambda: torch.zeros(2, dtype=torch.uint64, **on)
many = lambda: torch.zeros(64, 64, **on)
PROBES = {
    "nothing": lambda: x().view(2, 2).mT,
    "item": lambda: x()[0].item(),
    "if": lambda: bool((x() > 0).any()),
    "tolist": lambda: x().tolist(),
    "made of numbers": lambda: torch.tensor([1.0, 2.0], device="cuda"),
    "cpu": lambda: x().cpu(),
    "numbers of the CPU": lambda: x().cpu().numpy().sum(),
    "not pinned": lambda: torch.zeros(4).to("cuda", non_blocking=True),
    "pinned to the device": lambda: torch.zeros(4).pin_memory().to("cuda", non_blocking=True),
    "pinned from the device": lambda: pinned(x()),
    "mask": lambda: x()[x() > 0],
    "nonzero": lambda: x().nonzero(),
    "number by mask": lambda: put(x() > 0, 1.0),
    "numbers by mask": lambda: put(x() > 0, x()),
    "number by index": lambda: put(torch.zeros(2, dtype=torch.long, **on), 1.0),
    "numbers by index": lambda: put(torch.zeros(2, dtype=torch.long, **on), x()[:2]),
    "index of the CPU": lambda: x()[torch.zeros(2, dtype=torch.long)],
    "slice": lambda: put(slice(2), 1.0),
    "fill by number": lambda: x().masked_fill(x() > 0, 1.0),
    "fill by value": lambda: x().masked_fill(x() > 0, x()[0]),
    "eigenvalues": lambda: torch.linalg.eigvalsh(many()),
    "fill": lambda: torch.full((4,), 2.0, device="cuda"),
    "event": lambda: torch.cuda.Event().synchronize(),
    "generator": lambda: torch.rand(4, generator=torch.Generator("cuda"), device="cuda"),
    "generator of the CPU": lambda: torch.Generator(),
    "philox": lambda: torch.ops.aten._philox_uniform_(x(), key()),
    "foreach": lambda: torch._foreach_add_(wide(3), 1.0),
    "foreach of many": lambda: torch._foreach_add_(wide(111), 1.0),
    "foreach of large": lambda: torch._foreach_mul_(wide(2, 65536 * 200), 2.0),
    "foreach of unlike": lambda: torch._foreach_mul_(
        [torch.zeros(4, **on), torch.zeros(4, dtype=torch.bfloat16, **on)], 2.0
    ),
    "fused adamw": lambda: adamw(3, 4),
    "fused adamw of many": lambda: adamw(37, 4),
    "cat": lambda: torch.cat(wide(5)),
    "cat of many": lambda: torch.cat(wide(129)),
    "topk": lambda: many().topk(3),
    "topk unsorted": lambda: many().topk(3, sorted=False),
    "scatter": lambda: many().scatter(1, torch.zeros(64, 1, dtype=torch.long, **on), 1.0),
    "scatter in place": lambda: many().scatter_(1, torch.zeros(64, 1, dtype=torch.long, **on), 1.0),
    "backward": lambda: backward(torch.zeros(2, 4, **on)),
    "two devices": lambda: x() + torch.zeros(4),
    "two formats": lambda: torch.zeros(4, 4, **on) @ torch.zeros(4, 4, dtype=torch.bfloat16, **on),
    "no such kernel": lambda: torch.linalg.eigvalsh(torch.zeros(4, 4, dtype=torch.bfloat16, **on)),
    "numpy": lambda: x().numpy(),
}
rows = {}
for name, probe in PROBES.items():
    log = Log()
    try:
        with fake_gpu(log):
            probe()
    except Exception as err:
        rows[name] = {"error": str(err)}
        continue
    rows[name] = {
        "ops": {e.name: e.work.kernels for e in log.events if e.work.kernels},
        "bytes": {e.name: e.work.bytes for e in log.events if e.work.kernels},
        "waits": [e.wait for e in log.events if e.wait],
        "generators": [e.generator for e in log.events if e.generator],
    }
print(json.dumps(rows))
"""
A_TRIAL = """
import json
from benchmarks.fake_cuda.cases import Case
from benchmarks.fake_cuda.device import pretend
from benchmarks.fake_cuda.run import run_case, steady_step, whole_epoch

pretend()
log = run_case(
    Case("vpt", {"methods": ["vpt"]}), members=2, base={"train.precision": "bf16"}, until="end",
    with_sites=True,
)
places = lambda events: [(e.site, e.wait) for e in events]
print(json.dumps({
    "step": places(steady_step(log, 2)),
    "epoch": places(whole_epoch(log, 2)),
    "phases": list(dict.fromkeys(e.phase for e in log.events)),
}))
"""


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    """What each probe did, found in a process of its own."""
    if reason := why_not():
        pytest.skip(reason)
    return _apart(PROBES)


def _apart(code: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_step_is_a_whole_one_and_holds_nothing_of_how_an_epoch_ends() -> None:
    if reason := why_not():
        pytest.skip(reason)
    found = _apart(A_TRIAL)
    places = {site.rpartition(":")[0] for site, _ in found["step"]}
    for needed in ("training/image_source.py", "model/", "training/loss.py", "training/optim.py"):
        assert any(place.startswith(needed) for place in places), needed
    assert any(site.startswith("backward:") for site, _ in found["step"])
    assert not any("evaluation" in place or "_trained" in place for place in places)
    # Losses, scores and states are read once an epoch, and that is seen.
    assert {"d2h", "value"} & {wait for _, wait in found["epoch"]}
    assert "d2h" not in {wait for _, wait in found["step"]}
    kinds = {phase.split()[0] for phase in found["phases"]}
    assert kinds >= {"start", "begin", "step", "eval", "end", "test", "result"}


WAITS = {
    "nothing": [],
    "item": ["value"],
    "if": ["value"],
    "tolist": ["value"],
    "made of numbers": ["h2d"],
    "cpu": ["d2h"],
    "numbers of the CPU": ["d2h"],
    "not pinned": ["h2d"],
    "pinned to the device": [],
    "pinned from the device": [],
    "mask": ["shape"],
    "nonzero": ["shape"],
    "number by mask": [],
    "numbers by mask": ["shape"],
    "number by index": ["h2d"],
    "numbers by index": [],
    "index of the CPU": ["h2d"],
    "slice": [],
    "fill by number": [],
    "fill by value": ["value"],
    "eigenvalues": ["shape"],
    "fill": [],
    "event": ["value"],
    "generator": [],
    "philox": [],
    "backward": [],
    "fused adamw": [],
}


@pytest.mark.parametrize("name", WAITS)
def test_waits_of_the_host(name: str, rows: dict[str, Any]) -> None:
    assert rows[name].get("waits") == WAITS[name], rows[name]


KERNELS = {
    "nothing": ("view", 0),
    "philox": ("_philox_uniform_", 1),
    "number by mask": ("masked_fill_", 1),
    "foreach": ("_foreach_add_", 1),
    "foreach of many": ("_foreach_add_", 2),
    "foreach of large": ("_foreach_mul_", 2),
    "foreach of unlike": ("_foreach_mul_", 2),
    "fused adamw": ("_fused_adamw_", 1),
    "fused adamw of many": ("_fused_adamw_", 2),
    "cat": ("cat", 1),
    "cat of many": ("cat", 2),
    "topk": ("topk", 2),
    "topk unsorted": ("topk", 1),
    "scatter": ("scatter", 2),
    "scatter in place": ("scatter_", 1),
    "backward": ("mm", 1),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name: str, rows: dict[str, Any]) -> None:
    op, count = KERNELS[name]
    assert rows[name].get("ops", {}).get(op, 0) == count, rows[name]


BYTES = {
    "fill": ("full", 16),
    "foreach": ("_foreach_add_", 3 * 2 * 16),
    "fused adamw": ("_fused_adamw_", 3 * (7 * 16 + 4)),
    "philox": ("_philox_uniform_", 16 + 16),
    "cat": ("cat", 2 * 5 * 16),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes(name: str, rows: dict[str, Any]) -> None:
    """Read and written, each once."""
    op, size = BYTES[name]
    assert rows[name].get("bytes", {}).get(op) == size, rows[name]


def test_generators(rows: dict[str, Any]) -> None:
    assert rows["generator"]["generators"] == ["cuda"]
    assert rows["generator of the CPU"]["generators"] == ["cpu"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two devices", "device"),
        ("two formats", "dtype"),
        ("no such kernel", "not implemented"),
        ("numpy", "numpy"),
    ],
)
def test_what_a_gpu_refuses_is_refused(name: str, words: str, rows: dict[str, Any]) -> None:
    assert words in rows[name].get("error", ""), rows[name]
