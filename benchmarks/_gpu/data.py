"""How fast images come: from the device's memory, from the host's, and from JPEG files."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks._gpu.bench import Bench, Finding, wait
from benchmarks._gpu.inputs import image_folder
from benchmarks.data import plain_epoch
from tcpa_core.config import TrialConfig
from tcpa_core.data.base import load_dataset
from tcpa_core.training import image_source
from tcpa_core.training.image_source import ImageSource

ROUNDS = 5


def run(bench: Bench) -> None:
    """Images per second that arrive on the device, nothing else being done."""
    vit = next(iter(bench.form.vits))
    with bench.trying("ImageFolder + DataLoader"):
        root = image_folder(bench.form, bench.folder)
        epoch = plain_epoch(Path(root), bench.backbone(vit).img_size, bench.form.batch)
        _tell(bench, "ImageFolder + DataLoader, one process", bench.form.train, epoch, rounds=1)
    with bench.trying("pixels on the device"):
        source = bench.data(vit).train
        _tell(bench, "pixels on the device", len(source), _epoch(bench, source))
    with bench.trying("pixels in host memory"):
        source = _source_on_host(bench, vit)
        _tell(bench, "pixels in host memory", len(source), _epoch(bench, source))


def _epoch(bench: Bench, source: ImageSource) -> Callable[[], object]:
    order = torch.randperm(len(source)).to(bench.device)

    def run() -> None:
        for indices in order.split(bench.form.batch):
            source.batch(indices, None)

    return run


def _source_on_host(bench: Bench, vit: str) -> ImageSource:
    """The training split as it is where its pixels do not fit into the device's memory."""
    config, backbone = TrialConfig.from_flat(bench.settings(vit)).data, bench.backbone(vit)
    split = load_dataset(config, backbone.img_size, cache_dir=bench.cache).splits["train"]
    share, image_source.RESIDENT_SHARE = image_source.RESIDENT_SHARE, 0.0
    try:
        stats = backbone.norm_stats(config.norm_stats)
        return ImageSource(split, config, backbone.img_size, *stats, bench.device)
    finally:
        image_source.RESIDENT_SHARE = share


def _tell(
    bench: Bench, what: str, images: int, epoch: Callable[[], object], rounds: int = ROUNDS
) -> None:
    seconds = []
    for _ in range(rounds):
        wait(bench.device)
        started = time.perf_counter()
        epoch()
        wait(bench.device)
        seconds.append(time.perf_counter() - started)
    speed = images / min(seconds)
    values = {"images/s": speed, "ms a batch": 1e3 * bench.form.batch / speed}
    bench.tell(Finding(what=what, values=values))
