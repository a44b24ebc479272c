"""What a training step would cost on a GPU, by a roofline of every operation: no GPU is needed.

    python -m benchmarks.model               ViT-B, ViT-Ti; TCPA, VPT-deep, CVPT; 1, 4, 16 members
    python -m benchmarks.model --compiled    and what compiled blocks and a CUDA graph would give

Kernels and waits are counted (`benchmarks.fake_cuda`), times are modelled. Figures that were
measured on a GPU (`make gpu`) stand beside them where there are any.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch

from benchmarks._gpu.report import FIGURES
from benchmarks.fake_cuda.cases import Case
from benchmarks.fake_cuda.device import pretend, why_not
from benchmarks.fake_cuda.kernels import Work
from benchmarks.fake_cuda.roofline import GRAPH_GAP_S, MACHINE, PEAK, seconds, times
from benchmarks.fake_cuda.run import run_case, steady_step
from benchmarks.fake_cuda.watch import Event, Log
from benchmarks.harness import RESULTS

VITS = {
    "B": "vit_base_patch16_224",
    "Ti": "vit_tiny_patch16_224",
    "B-DINOv3": "vit_base_patch16_dinov3",
}
USUAL = ["B", "Ti"]
"""Those of the published table."""
METHODS: dict[str, Case] = {
    "TCPA 10 + 20": Case(
        "tcpa",
        {
            "methods": ["tcpa"],
            "tcpa.num_cls_prompts": 10,
            "tcpa.num_image_prompts": 20,
            "tcpa.random_epochs": 0,
        },
        {"tcpa.num_cls_prompts": 6, "tcpa.num_image_prompts": 14, "tcpa.top_k_image": 5},
    ),
    "VPT-deep 10": Case("vpt", {"methods": ["vpt"], "vpt.num_prompts": 10}, {"vpt.num_prompts": 6}),
    "CVPT 10": Case("cvpt", {"methods": ["cvpt"], "cvpt.num_prompts": 10}, {"cvpt.num_prompts": 6}),
}
PACKS = ((1, False), (4, False), (4, True), (16, False))
"""Members, and whether their sizes differ."""
BATCH, TRAIN, VAL, EPOCHS, CLASSES = 64, 800, 200, 100, 100
LEAST_FLOP = {"B": 64.6e9}
"""Least exact work of one training image with frozen weights, where it is known."""
BETWEEN_MS = 3.0
"""Of host time per member and epoch that the device waits for: the budget of `benchmarks.epoch`."""
FUSED_BYTES, FUSED_KERNELS = 0.45, 0.35
"""What compiled blocks are assumed to leave of elementwise operations' bytes and kernels."""
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "addbmm", "convolution", "convolution_backward")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A pack; times in milliseconds."""

    method: str
    vit: str
    members: int
    sizes: str
    kernels: int
    waits: int
    gpu_ms: float
    """The device alone."""
    step_ms: float
    """As it is: eager, and waiting where the host waits."""
    limit_ms: float | None
    """Of the products alone, at the device's peak."""
    eval_ms: float
    """Of the whole val split."""
    trials_per_hour: float
    compiled_ms: float
    graph_ms: float
    """Of compiled blocks in one CUDA graph."""
    measured_ms: float | None
    """On the last GPU."""


def run(method: str, vit: str, members: int, unequal: bool) -> Log:
    """An epoch of a pack on the fake device."""
    case = METHODS[method]
    return run_case(
        case if unequal else Case(case.name, case.settings),
        members=members,
        base={"train.precision": "bf16"},
        backbone=VITS[vit],
        batch=BATCH,
        eval_rows=VAL,
        classes=CLASSES,
    )


def row(
    log: Log,
    method: str,
    vit: str,
    members: int,
    *,
    unequal: bool = False,
    between_ms: float = BETWEEN_MS,
    measured: Sequence[Any] = (),
) -> Row:
    """Times of a pack: a step, an evaluation, and what follows for a search.

    Args:
        log: Of `run`.
        method: A name in `METHODS`.
        vit: A name in `VITS`.
        members: Of the pack.
        unequal: Whether their sizes differ.
        between_ms: Host time per member and epoch that the device waits for.
        measured: Steps that were measured on a GPU.
    """
    step = steady_step(log)
    now, evaluation = times(step), times(_evaluation(log))
    compiled = times(_compiled(step))
    limit = LEAST_FLOP[vit] * BATCH * members / PEAK[torch.bfloat16] if vit in LEAST_FLOP else None
    return Row(
        method=method,
        vit=vit,
        members=members,
        sizes="unequal" if unequal else "equal",
        kernels=now.kernels,
        waits=now.waits,
        gpu_ms=now.gpu,
        step_ms=now.eager,
        limit_ms=limit and 1e3 * limit,
        eval_ms=evaluation.eager,
        trials_per_hour=trials_per_hour(now.eager, evaluation.eager, between_ms, members),
        compiled_ms=compiled.eager,
        graph_ms=compiled.graph,
        measured_ms=None if unequal else _measured(measured, METHODS[method].name, vit, members),
    )


def trials_per_hour(step_ms: float, eval_ms: float, between_ms: float, members: int) -> float:
    """Of trials of EPOCHS epochs, a pack after another on one GPU."""
    epoch_ms = TRAIN / BATCH * step_ms + eval_ms + between_ms * members
    return members * 3.6e6 / (EPOCHS * epoch_ms)


def top(step: Sequence[Event], count: int) -> list[str]:
    """The kinds of operations that take most of the device's time in a step."""
    kinds: dict[str, list[Event]] = defaultdict(list)
    for event in step:
        kinds[f"{event.name} {str(event.work.dtype).removeprefix('torch.')}"].append(event)
    most = sorted(kinds.items(), key=lambda kind: -sum(map(seconds, kind[1])))[:count]
    return [
        f"{name}: {1e3 * sum(map(seconds, events)):.2f} ms, "
        f"{sum(e.work.kernels for e in events)} kernels, "
        f"{sum(e.work.bytes for e in events) / 1e9:.1f} GB, "
        f"{sum(e.work.flops for e in events) / 1e12:.2f} TFLOP"
        for name, events in most
    ]


def _evaluation(log: Log) -> list[Event]:
    return log.of(*log.phases("eval 1 "))


def _compiled(step: Sequence[Event]) -> list[Event]:
    """The step with its elementwise operations fused as assumed, and without waits."""
    kept = [e for e in step if e.name in PRODUCTS or "attention" in e.name]
    rest = [e for e in step if e.name not in PRODUCTS and "attention" not in e.name]
    count = max(1, round(FUSED_KERNELS * sum(e.work.kernels for e in rest)))
    size = FUSED_BYTES * sum(e.work.bytes for e in rest) / count
    fused = Event("fused", "", "", Work(1, 0.0, size))
    return [*(replace(e, wait="", host_s=0.0) for e in kept), *[fused] * count]


def _measured(steps: Sequence[Any], method: str, vit: str, members: int) -> float | None:
    key = {"method": method, "vit": f"ViT-{vit}", "members": members}
    return next((s["ms"] for s in steps if {k: s[k] for k in key} == key), None)


def _table(rows: Sequence[Row], compiled: bool, measured: bool) -> Iterator[str]:
    head = ["", "kernels", "waits", "GPU ms", "eager ms", "limit ms", "share", "val ms"]
    head += [
        "trials/GPU-hour",
        *["compiled ms", "and graph ms"] * compiled,
        *["measured ms"] * measured,
    ]
    yield f"| {' | '.join(head)} |"
    yield "|---" + "|--:" * (len(head) - 1) + "|"
    for r in rows:
        cells = [
            f"{r.method}, ViT-{r.vit}, M = {r.members}{', unequal' * (r.sizes == 'unequal')}",
            f"{r.kernels:,}",
            str(r.waits),
            *map(_ms, (r.gpu_ms, r.step_ms, r.limit_ms)),
            "" if r.limit_ms is None else f"{r.limit_ms / r.step_ms:.0%}",
            _ms(r.eval_ms),
            f"{r.trials_per_hour:,.0f}",
            *[_ms(r.compiled_ms), _ms(r.graph_ms)] * compiled,
            *[_ms(r.measured_ms)] * measured,
        ]
        yield f"| {' | '.join(cells)} |"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _page(rows: Sequence[Row], between_ms: float, compiled: bool, measured: Any) -> str:
    before = (
        f"torch {torch.__version__}, {MACHINE}. Batch {BATCH}, 224 px, bf16, prompt dropout 0.1. "
        "Limit: the products of the least exact work at the peak. Trials per GPU-hour: VTAB-1k, "
        f"{TRAIN} + {VAL} images, {EPOCHS} epochs with their evaluation, and between epochs an "
        f"assumed {between_ms:g} ms a member for which the device waits (the budget of "
        f"benchmarks.epoch is {BETWEEN_MS:g} ms)."
    )
    after = ["No figures of a GPU stand beside these: `make gpu` has not run on one."]
    if measured:
        after = [f"Measured: {measured['device']}, torch {measured['torch']}, {measured['date']}."]
    if compiled:
        after.append(
            "Compiled, graph: an assumption, of which nothing was measured. Compiled blocks would "
            f"leave {FUSED_BYTES} of the bytes and {FUSED_KERNELS} of the kernels of elementwise "
            f"operations, a graph {1e6 * GRAPH_GAP_S:g} us between two kernels, both no waits."
        )
    lines = [before, "", *_table(rows, compiled, bool(measured)), "", *after]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the table, and write results/model.json and .md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--vits", nargs="+", choices=VITS, default=USUAL)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--members", nargs="+", type=int, default=sorted({m for m, _ in PACKS}))
    parser.add_argument(
        "--between-ms", type=float, default=BETWEEN_MS, help="of a member between two epochs"
    )
    parser.add_argument("--top", type=int, default=0, help="kinds of operations to list")
    parser.add_argument("--compiled", action="store_true", help="what compiling is assumed to give")
    parser.add_argument("--name", default="model", help="of the result files")
    options = parser.parse_args()
    if reason := why_not():
        print(reason)
        return 1
    pretend()
    measured = json.loads(FIGURES.read_text()) if FIGURES.exists() else None
    rows = []
    for vit, method, (members, unequal) in product(options.vits, options.methods, PACKS):
        if members in options.members:
            log = run(method, vit, members, unequal)
            found = row(
                log,
                method,
                vit,
                members,
                unequal=unequal,
                between_ms=options.between_ms,
                measured=measured["steps"] if measured else (),
            )
            print(found, *top(steady_step(log), options.top), sep="\n  ", flush=True)
            rows.append(found)
    text = _page(rows, options.between_ms, options.compiled, measured)
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": MACHINE, **vars(options), "rows": [asdict(r) for r in rows]}
    (RESULTS / f"{options.name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / f"{options.name}.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
