"""Losses of a short trial of every method, to the last bit: proof that a change left numbers alone.

    python -m scripts.trajectories                 print them as JSON
    python -m scripts.trajectories --against REV   train here and at REV, and compare

The second makes a checkout of REV in a temporary folder and trains there with the same Python,
libraries and number of threads; it ends with 1 where a bit differs. The values of the last version
are kept in tests/tcpa_core/trajectories.json (see test_trajectories.py); a change that is meant to
change numbers writes that file again and says why in its commit.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
SPLITS = {"train": 16, "val": 6, "test": 6}
"""Images per class."""
CLASSES = 4
SETTINGS: Mapping[str, Any] = {
    "data.name": "folder",
    "train.epochs": 2,
    "train.batch_size": 32,
    "train.precision": "fp32",
}
CASES: Mapping[str, Mapping[str, Any]] = {
    "damvp": {"damvp.max_clusters": 2},
    "lion": {"lion.gradient": "one_step"},
    "tcpa": {"tcpa.random_epochs": 1},
    "vpt": {"vpt.prompt_dropout": 0.1, "train.dropout": 0.1},
}
"""Settings of a method that make it use what it has of its own."""
COMPARED = ("train_loss", "ce_loss", "match_loss", "val_loss", "val_accuracy", "lr")

Trajectory = list[dict[str, str]]
"""By epoch: hexadecimal floats by name."""


def write_images(folder: Path) -> Path:
    """A data set of noise over one shade per class, always the same."""
    random = np.random.default_rng(0)
    for split, count in SPLITS.items():
        for label in range(CLASSES):
            place = folder / split / f"class_{label}"
            place.mkdir(parents=True)
            for number in range(count):
                shade = random.normal(60 * label + 30, 40, (32, 32, 3))
                pixels = shade.clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def trajectory(method: str, images: Path, cache: Path) -> Trajectory:
    """What every epoch of a method's trial measures."""
    from tcpa_core import EpochReport, run_trial

    found: Trajectory = []

    def note(report: EpochReport) -> None:
        found.append({name: float(getattr(report, name)).hex() for name in COMPARED})

    flat = {**SETTINGS, "methods": [method], "data.root": str(images), **CASES.get(method, {})}
    run_trial(flat, on_epoch=note, cache_dir=cache, device="cpu")
    return found


def all_trajectories(folder: Path) -> dict[str, Trajectory]:
    """By method."""
    from tcpa_core import plugins

    torch.set_num_threads(1)  # sums are added up in another order by more
    images = write_images(folder / "images")
    names = plugins.names("tcpa_core.methods")
    return {name: trajectory(name, images, folder / "cache") for name in names}


def machine() -> str:
    """What the last bits depend on."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    model = next((line for line in lines if line.startswith("model name")), platform.processor())
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {model.partition(': ')[2]}, {capability}"


def compare(revision: str) -> int:
    """Train here and at another revision, one after the other; 1 where a bit differs."""
    from scripts.checkouts import checkout  # which a checkout that runs this file may lack

    with checkout(revision) as other:
        found = [_trained_in(place) for place in (ROOT, other)]
    here, there = found
    for name in sorted(here.keys() | there.keys()):
        same = "equal" if here.get(name) == there.get(name) else "DIFFERENT"
        print(f"{name:<14} {same if name in here and name in there else 'only on one side'}")
    common = here.keys() & there.keys()
    return int(any(here[name] != there[name] for name in common))


def _trained_in(checkout: Path) -> dict[str, Trajectory]:
    """Run this very file with the packages of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
    found: dict[str, Trajectory] = json.loads(done.stdout)["trajectories"]
    return found


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Losses of one trial per method, to the bit.")
    parser.add_argument("--against", metavar="REV", help="compare with this revision")
    revision = parser.parse_args().against
    if revision:
        return compare(revision)
    with tempfile.TemporaryDirectory() as folder:
        found = all_trajectories(Path(folder))
    print(json.dumps({"machine": machine(), "trajectories": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
