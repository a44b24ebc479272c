"""A whole search, start-up included: `tcpa search` against a plain Tune + Optuna + MLflow script.

Both sample the same space, stop early with ASHA at the same rungs, train the same core on digits
with vit_nano, and write MLflow. The script (`benchmarks.plain_search`) runs one trial per process
and core, as its libraries' documentation shows. The two run in turn, once per seed.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.harness import Row, ratios, write
from search.study.folder import StudyDir
from tcpa_core.record.events import Epoch

SPACE = {
    "name": "bench",
    "base": {"backbone.name": "vit_nano", "data.name": "digits", "train.batch_size": 64},
    "axes": {
        "methods": {"choice": [["linear"], ["vpt"], ["tcpa"], ["cvpt"]]},
        "optim.lr": {"float": [1e-3, 3e-2], "log": True},
        "vpt.num_prompts": {"choice": [1, 5, 10, 20]},
        "tcpa.num_cls_prompts": {"int": [4, 16]},
        "tcpa.num_image_prompts": {"int": [8, 24]},
        "tcpa.top_k_image": {"int": [1, 8]},
        "tcpa.top_k_cls": {"int": [1, 4]},
        "cvpt.num_prompts": {"choice": [1, 5, 10, 20]},
    },
    "objective": {"metric": "val_accuracy", "goal": "maximize"},
    "scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 3},
}
"""The axes of `benchmarks.plain_search`."""


def run_ours(folder: Path, trials: int, epochs: int, seed: int) -> float:
    """Search and return the best val accuracy."""
    space = SPACE | {
        "base": {**SPACE["base"], "train.epochs": epochs},  # type: ignore[dict-item]
        "sampler": {"name": "tpe", "seed": seed},
        "budget": {"trials": trials},
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(space))
    arguments = ["search", str(path), "--root", str(folder / "studies")]
    subprocess.run(
        [sys.executable, "-m", "search.cli", *arguments], check=True, stdout=subprocess.DEVNULL
    )
    events = list(StudyDir.open(folder / "studies", "bench").events())
    best: float = max(e.report.val_accuracy for e in events if isinstance(e, Epoch))
    ended = sum(e.kind in ("completed", "pruned") for e in events)
    assert ended == trials, f"{ended} of {trials} trials ended"
    return best


def run_plain(folder: Path, trials: int, epochs: int, seed: int) -> float:
    """Run the script and return the best val accuracy."""
    command = [sys.executable, "-m", "benchmarks.plain_search", "--out", str(folder)]
    command += ["--trials", str(trials), "--epochs", str(epochs), "--seed", str(seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == 0 and found["trials"] == trials, found
    return float(found["best"])


def compare(epochs: int, options: argparse.Namespace) -> tuple[list[Row], dict[str, float]]:
    """Ratios of the wall time, and trials per hour, of searches of at most so many epochs."""
    times: dict[str, list[float]] = {"plain script": [], "tcpa search": []}
    best: dict[str, list[float]] = {name: [] for name in times}
    for seed in options.seeds:
        for name, run in (("plain script", run_plain), ("tcpa search", run_ours)):
            folder = Path(tempfile.mkdtemp(prefix="tcpa-bench-"))
            started = time.perf_counter()
            best[name].append(run(folder, options.trials, epochs, seed))
            times[name].append(time.perf_counter() - started)
            shutil.rmtree(folder)
            took = f"{times[name][-1]:.1f} s, best {best[name][-1]:.4f}"
            print(f"{epochs} epochs, seed {seed}, {name}: {took}", flush=True)
    group = f"{options.trials} trials of at most {epochs} epochs, digits, vit_nano"
    notes = "; ".join(
        f"{name}: best {', '.join(f'{value:.3f}' for value in values)}"
        for name, values in best.items()
    )
    hours = {
        f"{name}, {epochs} epochs": options.trials * 3600 / statistics.median(seconds)
        for name, seconds in times.items()
    }
    return ratios(group, times, "plain script", notes), hours


def main() -> None:
    """Measure and write results/search.json, .md and .png."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--epochs", nargs="+", type=int, default=[2, 3], help="of a trial")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    rows, hours = [], {}
    for epochs in options.epochs:
        found, rates = compare(epochs, options)
        rows += found
        hours |= rates
    write("search", rows, title="A whole search", extra={"trials_per_hour": hours})


if __name__ == "__main__":
    main()
