"""Trials per hour of packs against one trial after another, and against one process per trial.

Members differ in pool sizes, top-K, learning rate and seed. In the same run every member's losses
are compared with those of its solo run. Warm sequential runs use the same process, backbone and
data; one process per trial starts Python, imports, loads and decodes for every trial.
"""

import argparse
import copy
import json
import subprocess
import sys
from collections.abc import Callable, Sequence

import torch
from timm.models.vision_transformer import VisionTransformer

from benchmarks.harness import CLOCKS, Row, as_worker, interleave, ratios, write
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.trial_data import TrialData, load_trial_data

SOLO = """
import json, sys, torch
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.config import TrialConfig
from tcpa_core.training.pack import Pack
from tcpa_core.training.trial_data import load_trial_data
torch.set_num_threads(int(sys.argv[2]))
config = TrialConfig.from_flat(json.loads(sys.argv[1]))
backbone = load_backbone(config.backbone, device=sys.argv[3])
data = load_trial_data(config, backbone, device=sys.argv[3])
for source in (data.train, data.val, data.test):
    source.labels = source.labels[: int(sys.argv[4])]
pack = Pack(backbone, data)
member = pack.new_member("solo", config)
while not member.is_done:
    (member,) = pack.run_epoch([member])
pack.test([member])
"""
"""What a process that trains and tests one trial runs."""
IMAGES = "training images of whole trials; none: no whole trials"


def load_tiny(device: str) -> Backbone:
    """4 blocks, width 64, 17 tokens, random weights: bound by the number of kernels."""
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=4, num_heads=4, num_classes=0
    )
    return Backbone(vit).to(device)


def settings(method: str, member: int, base: Flat) -> Flat:
    """Member number `member` of a mixed pack."""
    flat: Flat = {
        **base,
        "methods": [method],
        "optim.lr": 1e-3 * 1.3 ** (member % 8),
        "seed": member,
    }
    if method == "tcpa":
        flat |= {
            "tcpa.num_cls_prompts": 4 + member % 5,
            "tcpa.num_image_prompts": 8 + member % 9,
            "tcpa.top_k_image": 3 + member % 4,
        }
    elif method in ("vpt", "cvpt"):
        flat[f"{method}.num_prompts"] = 5 + member % 6
    return flat


def shortened(data: TrialData, train: int | None, val: int | None) -> TrialData:
    """The same data with the first images of each split only, so that a round stays short.

    Args:
        train: Training images; None: all.
        val: Same, of each of the other splits.
    """

    def first(source: ImageSource, count: int | None) -> ImageSource:
        part = copy.copy(source)
        part.labels = source.labels[:count]
        return part

    return TrialData(
        train=first(data.train, train),
        val=first(data.val, val),
        test=first(data.test, val),
        class_names=data.class_names,
        fingerprint=data.fingerprint,
    )


def new_members(pack: Pack, configs: Sequence[TrialConfig]) -> list[Member]:
    """A fresh member per configuration."""
    return [pack.new_member(str(m), config) for m, config in enumerate(configs)]


def train(pack: Pack, members: Sequence[Member], epochs: int) -> list[Member]:
    """The members some epochs later, all trained side by side."""
    for _ in range(epochs):
        outcomes = pack.run_epoch(members)
        members = [outcome for outcome in outcomes if isinstance(outcome, Member)]
        assert len(members) == len(outcomes), outcomes
    return list(members)


def difference(pack: Pack, configs: Sequence[TrialConfig], epochs: int) -> float:
    """Largest relative difference of any member's losses to its solo run."""
    together = train(pack, new_members(pack, configs), epochs)
    worst = 0.0
    for packed in together:
        (alone,) = train(pack, new_members(pack, [packed.config]), epochs)
        for a, b in zip(packed.reports, alone.reports, strict=True):
            for name in ("train_loss", "val_loss"):
                x, y = getattr(a, name), getattr(b, name)
                worst = max(worst, abs(x - y) / abs(y))
    return worst


def compare(
    name: str, backbone: Backbone, method: str, batch: int, options: argparse.Namespace
) -> list[Row]:
    """Packs of several sizes against warm sequential runs, seconds per trial and epoch."""
    base = {"data.name": "digits", "train.batch_size": batch, "train.epochs": 100}
    biggest = [TrialConfig.from_flat(settings(method, m, base)) for m in range(max(options.packs))]
    data = load_trial_data(biggest[0], backbone, device=options.device)
    pack = Pack(backbone, shortened(data, options.steps * batch, options.steps * batch // 4))

    def epoch(size: int) -> Callable[[], None]:
        members = new_members(pack, biggest[:size])

        def run() -> None:
            members[:] = train(pack, members, 1)

        return run

    def sequential() -> None:
        alone[:] = [train(pack, [member], 1)[0] for member in alone]

    rows: list[Row] = []
    for size in options.packs:
        alone = new_members(pack, biggest[:size])
        variants = {"warm sequential": sequential, f"pack of {size}": epoch(size)}
        times = interleave(variants, rounds=options.rounds, clock=options.clock)
        per_trial = {name: [s / size for s in seconds] for name, seconds in times.items()}
        off = difference(pack, biggest[:size], 2) if size <= options.check else None
        gain = [a / b for a, b in zip(*times.values(), strict=True)]
        notes = f"{sorted(gain)[len(gain) // 2]:.2f}x the trials per hour"
        notes += "" if off is None else f", losses within {off:.0e} of solo"
        group = f"{name}, {method}, batch {batch}"
        rows += ratios(group, per_trial, "warm sequential", notes)[1:]
        print(f"{group}, pack of {size}: {notes}", flush=True)
    return rows


def processes(images: int, options: argparse.Namespace) -> list[Row]:
    """Whole trials on vit_nano, start-up included: one process each, warm, and packed.

    Args:
        images: Training images, and at most as many to validate and to test.
    """
    cache = {"data.name": "digits", "train.batch_size": 16, "train.epochs": options.epochs}
    size = options.trials
    flats = [settings("vpt", m, cache) for m in range(size)]
    configs = [TrialConfig.from_flat(flat) for flat in flats]
    backbone = load_backbone(BackboneConfig(), device=options.device)
    data = shortened(load_trial_data(configs[0], backbone, device=options.device), images, images)

    def whole(configs: Sequence[TrialConfig]) -> None:
        pack = Pack(backbone, data)
        members = new_members(pack, configs)
        while not members[0].is_done:
            members = train(pack, members, 1)
        pack.test(members)

    def spawn() -> None:
        for flat in flats[: options.processes]:
            command = [sys.executable, "-c", SOLO, json.dumps(flat), str(options.threads)]
            subprocess.run([*command, options.device, str(images)], check=True)

    def warm() -> None:
        for config in configs[: options.processes]:
            whole([config])

    times = interleave(
        {
            "process per trial": spawn,
            "warm sequential": warm,
            f"pack of {size}": lambda: whole(configs),
        },
        rounds=options.rounds,
        warmup=0,
        clock=options.clock,
    )
    per_trial = {
        name: [s / (size if "pack" in name else options.processes) for s in seconds]
        for name, seconds in times.items()
    }
    group = f"vit_nano, vpt, batch 16, {len(data.train)} images, trials of {options.epochs} epochs"
    rows = ratios(group, per_trial, "process per trial")[1:]
    for row in rows:
        print(f"{group}, {row.variant}: {1 / row.ratio:.2f}x the trials per hour", flush=True)
    return rows


def main() -> None:
    """Measure and write results/pack.json, .md and .png."""
    as_worker()
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--packs", nargs="+", type=int, default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--methods", nargs="+", default=["tcpa", "vpt"])
    parser.add_argument("--tiny-batches", nargs="*", type=int, default=[4, 16, 64])
    parser.add_argument("--nano-batches", nargs="*", type=int, default=[4, 16, 64])
    parser.add_argument("--steps", type=int, default=12, help="training steps per timed epoch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--check", type=int, default=16, help="compare packs up to this size")
    parser.add_argument("--images", nargs="*", type=int, default=[64, 256, 1078], help=IMAGES)
    parser.add_argument("--epochs", type=int, default=5, help="of whole trials")
    parser.add_argument("--trials", type=int, default=16, help="whole trials in one pack")
    parser.add_argument("--processes", type=int, default=2, help="whole trials run one by one")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for method in options.methods:
        for batch in options.tiny_batches:
            rows += compare("tiny ViT", load_tiny(options.device), method, batch, options)
        for batch in options.nano_batches:
            nano = load_backbone(BackboneConfig(), device=options.device)
            rows += compare("vit_nano", nano, method, batch, options)
    for images in options.images:
        rows += processes(images, options)
    write(
        "pack",
        rows,
        title="Packs: seconds per trial / one trial after another",
        extra={"clock": options.clock},
    )


if __name__ == "__main__":
    main()
