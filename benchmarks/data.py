"""The data plane against `ImageFolder` and `DataLoader`: CPU seconds of an epoch.

Both deliver the same training images, resized, normalised and batched, without training. Ours
decodes once into the cache; the first epoch is shown apart from the later ones.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.harness import Row, as_worker, ratios, write
from tcpa_core.data.base import load_dataset
from tcpa_core.settings import DataConfig
from tcpa_core.training.image_source import ImageSource


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
    options = parser.parse_args()
    torch.set_num_threads(1)
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
