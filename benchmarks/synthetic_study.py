"""Write a study folder as a search or an ablation would, from made-up but plausible numbers.

    python -m benchmarks.synthetic_study DIR --trials 10000 --epochs 50

writes DIR (study.yaml and journal.jsonl), makes its report and prints where the time and memory go.
The journal differs from a real one in its numbers only: trials fail, are stopped early and are
unfinished at the shares below. Nothing is trained and the numbers say nothing about any method.
"""

import argparse
import json
import math
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tcpa_core.record.events import encode_line
from tcpa_core.record.values import EpochReport, TrialResult

FAILED, UNFINISHED = 0.02, 0.01
ROWS = {
    "VPT": {"tcpa.split_roles": False, "tcpa.match_tokens": False},
    "+R-TCPA": {"tcpa.split_roles": True, "tcpa.match_tokens": False},
    "+R+T-TCPA": {"tcpa.split_roles": True, "tcpa.match_tokens": True},
}
GAIN = {"VPT": 0.0, "+R-TCPA": 0.012, "+R+T-TCPA": 0.021}
BASE: dict[str, Any] = {
    "backbone.name": "vit_nano",
    "backbone.weights": None,
    "backbone.img_size": None,
    "data.name": "digits",
    "data.root": None,
    "data.val_fraction": 0.2,
    "optim.name": "adamw",
    "optim.lr": 1e-3,
    "optim.weight_decay": 0.01,
    "optim.warmup_fraction": 0.1,
    "train.batch_size": 64,
    "train.selection": "best_val",
    "train.precision": "auto",
    "methods": ["linear"],
}
AXES = {
    "methods": {"choice": [["linear"], ["vpt"], ["tcpa"], ["cvpt"]]},
    "optim.lr": {"float": [5e-4, 2e-2], "log": True},
    "optim.weight_decay": {"float": [1e-4, 1e-1], "log": True},
    "train.label_smoothing": {"float": [0.0, 0.2]},
    "vpt.num_prompts": {"choice": [1, 5, 10, 20, 50], "when": {"methods": "vpt"}},
    "tcpa.num_cls_prompts": {"int": [4, 32], "when": {"methods": "tcpa"}},
    "tcpa.num_image_prompts": {"int": [8, 40], "when": {"methods": "tcpa"}},
    "tcpa.mask_mode": {"choice": ["post", "pre"], "when": {"methods": "tcpa"}},
    "cvpt.num_prompts": {"choice": [1, 5, 10, 20, 50], "when": {"methods": "cvpt"}},
}


def write_study(
    folder: Path,
    *,
    trials: int,
    epochs: int,
    kind: str = "search",
    seed: int = 0,
    failed: float = FAILED,
    unfinished: float = UNFINISHED,
    stopped: float = 0.6,
) -> Path:
    """Write study.yaml and journal.jsonl into a new folder; its name is the study's name.

    Args:
        folder: Must not exist.
        trials: Number of trials. An ablation has three rows; each trial more is a further seed.
        epochs: Epochs of a full trial.
        kind: "search" or "ablation".
        seed: Of the made-up numbers.
        failed: Share of trials that fail.
        unfinished: Share of trials without a final event.
        stopped: Share of a search's trials that the scheduler stops early.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    space: dict[str, Any] = {
        "name": folder.name,
        "base": {"train.epochs": epochs},
        "objective": [{"metric": "val_accuracy", "goal": "maximize"}],
    }
    if kind == "search":
        space |= {"axes": AXES, "seeds": [0], "budget": {"trials": trials}}
    else:
        space["seeds"] = list(range(math.ceil(trials / len(ROWS))))
        space["ablation"] = {"design": "components", "rows": ROWS, "baseline": "VPT"}
    document = {
        "schema": 1,
        "name": folder.name,
        "kind": kind,
        "created": "2025-11-03T09:00:00+00:00",
        "versions": {"tcpa-search": "0.1.0", "torch": "2.11.0", "timm": "1.0.20"},
        "git": None,
        "space": space,
        "fingerprints": {"data": "synthetic", "weights": "synthetic"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    clock = 1_762_160_400.0
    with (folder / "journal.jsonl").open("wb") as file:
        events = _events(rng, folder.name, trials, epochs, kind, failed, unfinished, stopped)
        for number, event in enumerate(events):
            clock += 0.05
            file.write(encode_line({"n": number, "t": round(clock, 3), **event}))
    return folder


def _events(
    rng: np.random.Generator,
    name: str,
    trials: int,
    epochs: int,
    kind: str,
    failed: float,
    unfinished: float,
    stopped: float,
) -> Iterator[dict[str, Any]]:
    yield {"kind": "study", "name": name, "study_kind": kind, "source": "synthetic"}
    for index in range(trials):
        planned, peak = _plan(rng, index, epochs, kind)
        yield planned
        yield {"kind": "started", "trial": planned["trial"], "worker": "w0", "device": "cpu"}
        fate = rng.random()
        stops = kind == "search" and rng.random() < stopped
        length = max(1, epochs // 3 ** rng.integers(1, 4)) if stops else epochs
        if fate < failed + unfinished:
            length = max(1, int(length * rng.random()))
        reports = list(_curve(rng, peak, epochs, length))
        yield from ({"kind": "epoch", "trial": planned["trial"], **asdict(r)} for r in reports)
        if fate >= failed + unfinished:
            yield _final(planned, reports, "pruned" if length < epochs else "completed", rng)
        elif fate < failed:
            reason = f"train_loss is nan at epoch {length}, step {12 * length}; lower optim.lr"
            yield {
                "kind": "failed",
                "trial": planned["trial"],
                **asdict(TrialResult(status="failed", reason=reason, num_epochs=length)),
            }
    if kind == "search":
        yield {"kind": "finished"}


def _plan(
    rng: np.random.Generator, index: int, epochs: int, kind: str
) -> tuple[dict[str, Any], float]:
    """A planned event, and the accuracy that its setting would reach without noise."""
    params = {**BASE, "train.epochs": epochs}
    cells: list[dict[str, Any]] = []
    if kind == "ablation":
        seed, order = divmod(index, len(ROWS))
        row = list(ROWS)[order]
        params |= {"methods": ["tcpa"], "tcpa.num_cls_prompts": 18, **ROWS[row]}
        cells = [{"factor": "components", "level": row, "order": order, "baseline": order == 0}]
        # One offset per seed for all rows: replicates are paired.
        peak = 0.90 + GAIN[row] + 0.01 * float(np.random.default_rng(seed).normal())
    else:
        seed = 0
        params |= _suggest(rng)
        peak = _quality(params)
    params["seed"] = seed
    identity = json.dumps({k: v for k, v in params.items() if k != "seed"}, sort_keys=True)
    point = sha256(identity.encode()).hexdigest()[:16]
    planned = {
        "kind": "planned",
        "trial": f"{index:05d}",
        "params": params,
        "digest": sha256(f"{identity}{seed}".encode()).hexdigest()[:16],
        "point": point,
        "seed": seed,
        "labels": {"cells": cells},
        "origin": "design" if kind == "ablation" else "sampler",
        "draw": {},
    }
    return planned, peak


def _suggest(rng: np.random.Generator) -> dict[str, Any]:
    method = str(rng.choice(["linear", "vpt", "tcpa", "cvpt"]))
    point: dict[str, Any] = {
        "methods": [method],
        "optim.lr": float(10 ** rng.uniform(math.log10(5e-4), math.log10(2e-2))),
        "optim.weight_decay": float(10 ** rng.uniform(-4, -1)),
        "train.label_smoothing": float(rng.uniform(0, 0.2)),
    }
    if method in ("vpt", "cvpt"):
        point[f"{method}.num_prompts"] = int(rng.choice([1, 5, 10, 20, 50]))
    if method == "tcpa":
        point["tcpa.num_cls_prompts"] = int(rng.integers(4, 33))
        point["tcpa.num_image_prompts"] = int(rng.integers(8, 41))
        point["tcpa.mask_mode"] = str(rng.choice(["post", "pre"]))
    return point


def _quality(params: dict[str, Any]) -> float:
    level = {"linear": 0.80, "vpt": 0.87, "tcpa": 0.91, "cvpt": 0.89}[params["methods"][0]]
    off_peak = math.log10(params["optim.lr"]) + 2.4
    pool = params.get("tcpa.num_image_prompts", 24)
    return level - 0.08 * off_peak**2 - 0.0001 * (pool - 24) ** 2


def _curve(
    rng: np.random.Generator, peak: float, epochs: int, length: int
) -> Iterator[EpochReport]:
    noise = rng.normal(0, 0.006, size=(length, 2))
    rate = 3.5 / epochs
    for epoch in range(1, length + 1):
        rise = 1 - math.exp(-rate * epoch)
        accuracy = min(1.0, max(0.0, 0.1 + (peak - 0.1) * rise + noise[epoch - 1, 0]))
        loss = 2.3 * (1 - 0.93 * rise) + abs(noise[epoch - 1, 1])
        yield EpochReport(
            epoch=epoch,
            train_loss=loss + 0.02,
            ce_loss=loss,
            match_loss=0.02,
            val_loss=loss * 1.1,
            val_accuracy=accuracy,
            lr=1e-3 * (1 + math.cos(math.pi * epoch / epochs)) / 2,
            duration_s=0.5,
            images_per_s=2300.0,
        )


def _final(
    planned: dict[str, Any], reports: list[EpochReport], status: str, rng: np.random.Generator
) -> dict[str, Any]:
    best = max(reports, key=lambda r: r.val_accuracy)
    tested = status == "completed"
    is_linear = planned["params"]["methods"] == ["linear"]
    no_head = 0 if is_linear else int(18 * 192 * 12 * (1 + rng.random()))
    result = TrialResult(
        status="completed" if tested else "pruned",
        reason="" if tested else f"stopped by asha at epoch {len(reports)}",
        best_epoch=best.epoch,
        num_epochs=len(reports),
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
        test_accuracy=best.val_accuracy - 0.01 + rng.normal(0, 0.005) if tested else None,
        test_loss=best.val_loss + 0.02 if tested else None,
        num_trainable=no_head + 1930,
        num_trainable_no_head=no_head,
        flops_per_image=1.08e8,
        duration_s=sum(r.duration_s for r in reports),
        peak_memory_bytes=412_000_000,
        device="cpu",
    )
    return {"kind": status, "trial": planned["trial"], **asdict(result)}


def add_trials(folder: Path, trials: int, epochs: int, *, seed: int = 1) -> None:
    """Append whole trials to a search's journal, as its driver does while it runs."""
    rng = np.random.default_rng(seed)
    journal = folder / "journal.jsonl"
    with journal.open("rb") as file:
        first = sum(b'"kind":"planned"' in line[:64] for line in file)
    events = list(_events(rng, folder.name, trials, epochs, "search", 0.0, 0.0, 0.0))
    with journal.open("ab") as file:
        for number, event in enumerate(events[1:-1]):
            event = {"n": number, "t": 1.8e9 + number, **event}
            file.write(encode_line({**event, "trial": f"{first + int(event['trial']):05d}"}))


def main() -> None:
    """Write a study, make its report twice, print seconds per step and the peak memory."""
    cpu = time.process_time()
    from reports.build import build_report

    loading = time.process_time() - cpu
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--kind", choices=["search", "ablation"], default="search")
    parser.add_argument("--stopped", type=float, default=0.0, help="share stopped early")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_study(
        args.folder,
        trials=args.trials,
        epochs=args.epochs,
        kind=args.kind,
        seed=args.seed,
        stopped=args.stopped,
    )
    for title in ("first report", "again with 10 trials more"):
        wall, cpu = time.perf_counter(), time.process_time()
        summary = build_report(args.folder)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{title} ({', '.join(f'{n} {status}' for status, n in summary.counts.items())})")
        for step, seconds in summary.seconds.items():
            print(f"  {step:<16}{seconds:8.2f} s")
        print(f"  {'total':<16}{wall:8.2f} s, {cpu:.2f} s of CPU")
        if args.kind == "ablation":
            break
        add_trials(args.folder, 10, args.epochs)
    print(f"loading the package: {loading:.2f} s of CPU, once a process")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    print(summary.html)


if __name__ == "__main__":
    main()
