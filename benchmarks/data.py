"""The data plane against `ImageFolder` and `DataLoader`: CPU seconds of an epoch.

Both deliver the same training images, resized, normalised and batched, without training. Ours
decodes once into the cache; the first epoch is shown apart from the later ones.

    python -m benchmarks.data --against REV --opening-gb 4

adds this checkout beside another revision, in processes of their own that take turns: epochs of
batches of small and of large pictures, an epoch of training, what the cache takes, and what opening
an entry of it takes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.harness import Row, as_worker, ratios, write
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.data._cache import open_or_build
from tcpa_core.data.base import load_dataset
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import DataConfig
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.trial_data import load_trial_data

ROOT = Path(__file__).parents[1]
SMALL, LARGE = 32, 300
"""Sides of the pictures of CIFAR, and of pictures that are made smaller."""
WAYS: dict[str, tuple[int, Flat]] = {
    "32 px, squashed": (SMALL, {}),
    "32 px, cropped": (SMALL, {"data.resize": "short_side"}),
    "300 px, squashed": (LARGE, {}),
    "300 px, cropped": (LARGE, {"data.resize": "short_side"}),
}
TRAINED = 32
"""Images of an epoch of training."""


def make_images(root: Path, count: int, side: int) -> None:
    """JPEG photographs of noise and gradients, ten classes, in the layout of ImageFolder."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 200, side)[:, None, None] + np.zeros((side, side, 3))
    for split, number in (("train", count), ("val", 20), ("test", 20)):
        for i in range(number):
            folder = root / split / f"class{i % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = ramp + random.normal(0, 25, (side, side, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.jpg")


def plain_epoch(root: Path, img_size: int, batch: int) -> Callable[[], int]:
    """An epoch of ImageFolder and DataLoader in this process, so that its CPU time is seen."""
    change = transforms.Compose(
        [
            transforms.Resize(
                (img_size, img_size), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ]
    )
    loader = DataLoader(ImageFolder(root / "train", change), batch_size=batch, shuffle=True)
    return lambda: sum(len(images) for images, _ in loader)


def our_epoch(root: Path, img_size: int, batch: int, cache: Path) -> Callable[[], int]:
    """An epoch of our source; the data set is opened anew, as a new process would."""

    def run() -> int:
        cfg = DataConfig(name="folder", root=str(root))
        data = load_dataset(cfg, img_size, cache_dir=cache)
        stats = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        source = ImageSource(data.splits["train"], cfg, img_size, *stats, "cpu")
        order = torch.randperm(len(source))
        return sum(len(source.batch(indices)) for indices in order.split(batch))

    return run


def source_epoch(root: Path, img_size: int, batch: int, cache: Path) -> Callable[[], int]:
    """An epoch of a source that is open already: every epoch after a worker's first."""
    cfg = DataConfig(name="folder", root=str(root))
    data = load_dataset(cfg, img_size, cache_dir=cache)
    stats = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    source = ImageSource(data.splits["train"], cfg, img_size, *stats, "cpu")

    def run() -> int:
        order = torch.randperm(len(source))
        return sum(len(source.batch(indices)) for indices in order.split(batch))

    return run


def cpu_seconds(run: Callable[[], int], rounds: int) -> list[float]:
    """CPU seconds of every round."""
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return seconds


class Side:
    """What is measured of the packages of one checkout.

    Args:
        folder: With the pictures of `make_images` by their side; the cache is made there.
        options: As of the command.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._cache = Path(tempfile.mkdtemp(dir=folder))
        self._options = options
        self.measures: dict[str, Callable[[], float]] = {}
        for name, (side, settings) in WAYS.items():
            self.measures[f"batches of {name}"] = self._batches(side, settings)
        for name in ("32 px, squashed", "300 px, squashed"):
            self.measures[f"training of {name}"] = self._training(*WAYS[name])
        if options.opening_gb:
            for side in (options.img_size, SMALL):
                what = f"opening {options.opening_gb:g} GB of {side} px"
                self.measures[what] = self._opening(side)

    def cache_bytes(self) -> float:
        """Bytes that the cache takes of a small picture."""
        cache = Path(tempfile.mkdtemp(dir=self._folder))
        cfg = TrialConfig.from_flat(self._settings(SMALL, {})).data
        splits = load_dataset(cfg, self._options.img_size, cache_dir=cache).splits
        files = (path.stat() for path in (cache / "pixels").glob("*.pixels"))
        return sum(file.st_blocks * 512 for file in files) / sum(map(len, splits.values()))

    def _settings(self, side: int, settings: Flat) -> Flat:
        where = {"data.name": "folder", "data.root": str(self._folder / str(side))}
        return {"methods": ["linear"], **where, **settings}

    def _batches(self, side: int, settings: Flat) -> Callable[[], float]:
        img_size = self._options.img_size
        cfg = TrialConfig.from_flat(self._settings(side, settings)).data
        split = load_dataset(cfg, img_size, cache_dir=self._cache).splits["train"]
        stats = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        source = ImageSource(split, cfg, img_size, *stats, "cpu")

        def run() -> float:
            started = time.process_time()
            for indices in torch.randperm(len(split)).split(self._options.batch):
                source.batch(indices)
            return time.process_time() - started

        return run

    def _training(self, side: int, settings: Flat) -> Callable[[], float]:
        config = TrialConfig.from_flat(
            {
                **self._settings(side, settings),
                "methods": ["vpt"],
                "data.flip": True,
                "backbone.name": "vit_tiny_patch16_224",
                "backbone.weights": "random",
                "backbone.img_size": self._options.img_size,
                "train.batch_size": 16,
                "train.epochs": 1000,
            }
        )
        backbone = load_backbone(config.backbone)
        data = load_trial_data(config, backbone, cache_dir=self._cache)
        data.train.labels, data.val.labels = data.train.labels[:TRAINED], data.val.labels[:4]
        pack = Pack(backbone, data)
        members: list[Any] = [pack.new_member("0", config)]

        def run() -> float:
            started = time.process_time()
            members[:] = pack.run_epoch(members)
            assert isinstance(members[0], Member), members
            return time.process_time() - started

        return run

    def _opening(self, side: int) -> Callable[[], float]:
        image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        count = int(self._options.opening_gb * 1e9) // image.size
        opened = partial(
            open_or_build, self._cache / f"{side}", "key", count, lambda i: image, None, "made"
        )
        opened()

        def run() -> float:
            started = time.process_time()
            opened()
            return time.process_time() - started

        return run


def serve(folder: Path, options: argparse.Namespace) -> None:
    """Answer the names of measures, one a line, with CPU seconds."""
    torch.set_num_threads(1)
    side = Side(folder, options)
    print(json.dumps({"measures": list(side.measures), "bytes": side.cache_bytes()}), flush=True)
    for line in sys.stdin:
        print(side.measures[line.strip()](), flush=True)


def compared(options: argparse.Namespace) -> Iterator[Row]:
    """Rows of this checkout beside another revision."""
    from scripts.checkouts import checkout

    with ExitStack() as stack:
        sides = {options.against: stack.enter_context(checkout(options.against)), "here": ROOT}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        for side in (SMALL, LARGE):
            make_images(folder / str(side), options.images, side)
        children = {name: stack.enter_context(_child(at, folder)) for name, at in sides.items()}
        told = {name: json.loads(_line(child)) for name, child in children.items()}
        for name, found in told.items():
            print(
                f"{name}: {found['bytes']:,.0f} bytes of the cache for a picture of {SMALL} px at "
                f"{options.img_size} px: {found['bytes'] * 5e4 / 1e9:.2f} GB for 50,000"
            )
        for measure in told["here"]["measures"]:
            times: dict[str, list[float]] = {name: [] for name in sides}
            for index in range(1 + options.rounds):
                for name, child in children.items():
                    seconds = float(_line(child, measure))
                    if index:  # the first one only warms up
                        times[name].append(seconds)
            yield from _told(measure, times, options)
        for child in children.values():
            child.communicate()


def _told(
    measure: str, times: Mapping[str, list[float]], options: argparse.Namespace
) -> Iterator[Row]:
    images = {"batches": options.images, "training": TRAINED}.get(measure.split()[0])
    for row in ratios(f"{measure}, CPU seconds", times, options.against):
        each = f", {1e6 * row.seconds / images:,.0f} µs an image" if images else ""
        print(f"{measure}: {row.variant} {row.seconds:.4f} s{each}, x {row.ratio:.3f}")
        yield row


def _child(checkout: Path, folder: Path) -> "subprocess.Popen[str]":
    """This file with the packages of a checkout."""
    # Without -P, the folder of this file would give its modules in the place of Python's own.
    command = [sys.executable, "-P", str(Path(__file__).resolve()), *sys.argv[1:]]
    return subprocess.Popen(
        [*command, "--serve", str(folder)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _line(child: "subprocess.Popen[str]", asked: str = "") -> str:
    assert child.stdin and child.stdout
    if asked:
        print(asked, file=child.stdin, flush=True)
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"a side ended before it answered {asked!r}")
    return line


def main() -> None:
    """Measure and write results/data.json, .md and .png."""
    as_worker()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--root", type=Path, help="image folder with train/; default: made up")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--side", type=int, default=300, help="of the made-up images")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", metavar="REV", help="compare with this revision instead")
    parser.add_argument("--opening-gb", type=float, default=0.0, help="with --against")
    parser.add_argument("--folder", help="where --against makes its files")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        serve(options.serve, options)
        return
    if options.against:
        write("data_sides", list(compared(options)), title="Data plane beside another revision")
        return
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder) / "images"
        if options.root is None:
            make_images(root, options.images, options.side)
        cache = Path(folder) / "cache"
        sizes = (root, options.img_size, options.batch)
        plain = plain_epoch(*sizes)
        count = plain()
        times: dict[str, list[float]] = {"ImageFolder + DataLoader": []}
        times["first epoch, cache built"] = cpu_seconds(our_epoch(*sizes, cache), 1)
        times["first epoch of a process, cache there"] = []
        times["every later epoch"] = []
        reopened, warm = our_epoch(*sizes, cache), source_epoch(*sizes, cache)
        for _ in range(options.rounds):
            for name, run in zip(
                ("ImageFolder + DataLoader", *list(times)[2:]), (plain, reopened, warm), strict=True
            ):
                times[name] += cpu_seconds(run, 1)
    base = times["ImageFolder + DataLoader"]
    group = f"{count} JPEG images to {options.img_size} px, CPU seconds of an epoch"
    rows: list[Row] = []
    for name, seconds in times.items():
        speed = f"{count / min(seconds):,.0f} images/s"
        pair = {"ImageFolder + DataLoader": base[: len(seconds)], name: seconds}
        rows += [
            r for r in ratios(group, pair, "ImageFolder + DataLoader", speed) if r.variant == name
        ]
    for row in rows:
        print(f"{row.variant}: 1/{1 / row.ratio:.1f} of the CPU time, {row.notes}")
    write("data", rows, title="Data plane")


if __name__ == "__main__":
    main()
