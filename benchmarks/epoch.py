"""What the host does between two epochs of a pack while the device waits for it.

A worker trains a pack of full size whose arithmetic is a sleep of known length, so that all other
work is real: members taken from and put on the device, checkpoints with their fsync, events. The
time between the end of one epoch's arithmetic and the start of the next is what the device waits.
The CPU seconds of the thread that trains are the part of it that no other work on the machine
changes.

    python -m benchmarks.epoch --against REV    before (REV) and after (here) take turns

Each side is a process of its own with the packages of its checkout.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.harness import Row, as_worker, ratios, write
from tcpa_core.config import Flat
from tcpa_core.record.events import Epoch
from tcpa_core.training import pack
from tcpa_core.training.commands import Extend, Submit
from tcpa_core.training.evaluation import Evaluation, Scores
from tcpa_core.training.worker import Worker

ROOT = Path(__file__).parents[1]
VITS = {"Ti": "vit_tiny_patch16_224", "B": "vit_base_patch16_224"}
ARITHMETIC_MS = {"Ti": 5.0, "B": 74.0}
"""Of an epoch of 1,000 images of one member at the limit of an H200, see the documentation."""
STEPS = 16
EPOCHS_OF_A_TRIAL = 100


def settings(vit: str, member: int) -> Flat:
    """TCPA with 10 + 20 prompts: 560,650 trained parameters on ViT-B and ten classes."""
    return {
        "methods": ["tcpa"],
        "seed": member,
        "data.name": "digits",
        "backbone.name": VITS[vit],
        "backbone.weights": "random",
        "backbone.img_size": 32,
        "tcpa.num_cls_prompts": 10,
        "tcpa.num_image_prompts": 20,
        "tcpa.top_k_cls": 5,
        "tcpa.top_k_image": 5,
        "train.epochs": EPOCHS_OF_A_TRIAL,
    }


class Moment(NamedTuple):
    """Seconds on two clocks."""

    wall: float
    cpu: float
    """Of the thread that asks, which is the one that trains."""


class Span(NamedTuple):
    """From when to when the device is busy."""

    begun: Moment
    ended: Moment


def now() -> Moment:
    """This moment."""
    return Moment(time.perf_counter(), time.thread_time())


@dataclass
class Arithmetic:
    """Stands for the kernels of an epoch: sleeps, and notes when it began and ended."""

    member_s: float
    """Length of an epoch, by member."""
    spans: list["Span"]

    def train_epoch(self, stacks: Any, *_: Any) -> tuple[torch.Tensor, list[float]]:
        """In the place of `tcpa_core.training.epoch.train_epoch`."""
        begun, members = now(), len(stacks.members)
        time.sleep(self.member_s * members)
        self.spans.append(Span(begun, now()))
        return torch.ones(STEPS, 3, members), [1e-3] * members

    def score(self, model: Any, split: str) -> Scores:
        """In the place of `Evaluation.score`: each member has a new best every other epoch."""
        epoch, members = len(self.spans), range(model.num_members)
        rises = [(epoch + m) % 2 for m in members]
        accuracy = [r * (0.1 + epoch / 1000) for r in rises]
        return Scores([1.0] * len(rises), accuracy, torch.zeros(len(rises), 1, dtype=torch.int16))


def serve(options: argparse.Namespace) -> None:
    """Train rounds of epochs, one for each line that is read; print what each took as JSON."""
    torch.set_num_threads(options.threads)
    arithmetic = Arithmetic(options.arithmetic_ms / 1000, [])
    pack.train_epoch = arithmetic.train_epoch  # type: ignore[assignment]
    Evaluation.score = lambda _, *args: arithmetic.score(*args)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        worker = Worker(Path(folder), None, options.device)
        trials = [f"{m:05d}" for m in range(options.members)]
        for m, trial in enumerate(trials):
            worker.take(Submit(trial=trial, params=settings(options.vit, m), until_epoch=0))
        drain(worker)
        until = 0
        for _ in sys.stdin:
            until += options.epochs
            arithmetic.spans.clear()
            for trial in trials:
                worker.take(Extend(trial=trial, until_epoch=until))
            begun = time.perf_counter()
            told = drain(worker)
            whole = time.perf_counter() - begun
            assert told == options.epochs * options.members, "every epoch is told"
            print(json.dumps(measured(arithmetic.spans, whole, options.members)), flush=True)


def drain(worker: Worker) -> int:
    """Work until there is nothing left; the epochs that were told."""
    told = 0
    while not worker.idle:
        told += sum(isinstance(event, Epoch) for event in worker.work())
    return told


def measured(spans: Sequence[Span], whole: float, members: int) -> dict[str, float]:
    """Seconds of a round, all by member and epoch."""
    gaps = [(before.ended, after.begun) for before, after in pairwise(spans)]
    return {
        "waits": statistics.fmean(after.wall - before.wall for before, after in gaps) / members,
        "cpu": statistics.fmean(after.cpu - before.cpu for before, after in gaps) / members,
        "whole": whole / members / len(spans),
    }


def child(checkout: Path, arguments: Sequence[str]) -> "subprocess.Popen[str]":
    """This file with the packages of a checkout."""
    # Without -P, the folder of this file would give its modules in the place of Python's own.
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "--serve", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.Popen(
        command, cwd=checkout, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def take_turns(sides: dict[str, Path], options: argparse.Namespace) -> dict[str, list[Any]]:
    """What the rounds of each side measured."""
    passed = {"vit", "members", "epochs", "arithmetic_ms", "threads", "device", "folder"}
    arguments = [
        text
        for name in sorted(passed)
        for text in (f"--{name.replace('_', '-')}", str(getattr(options, name)))
    ]
    found: dict[str, list[Any]] = {name: [] for name in sides}
    children = {name: child(place, arguments) for name, place in sides.items()}
    try:
        for index in range(1 + options.rounds):
            for name, process in children.items():
                assert process.stdin and process.stdout
                print("go", file=process.stdin, flush=True)
                line = process.stdout.readline()
                if not line:
                    raise SystemExit(f"the side '{name}' ended before its round did")
                if index:  # the first one only warms up
                    found[name].append(json.loads(line))
    finally:
        for process in children.values():
            process.communicate()
    return found


def main() -> None:
    """Measure and write results/epoch.json, .md and .png."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--against", metavar="REV", help="measure this revision, too")
    parser.add_argument("--vit", choices=VITS, default="B")
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=6, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arithmetic-ms", type=float, help="of a member's epoch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where checkpoints go")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arithmetic_ms is None:
        options.arithmetic_ms = ARITHMETIC_MS[options.vit]
    if options.serve:
        serve(options)
        return
    as_worker()
    with ExitStack() as stack:
        sides = {}
        if options.against:
            from scripts.checkouts import checkout

            sides[options.against] = stack.enter_context(checkout(options.against))
        found = take_turns({**sides, "here": ROOT}, options)
    write("epoch", rows_of(found, options), title="Host seconds between epochs that a device waits")


def rows_of(found: dict[str, list[Any]], options: argparse.Namespace) -> list[Row]:
    """By side, seconds of a member and epoch."""
    baseline = next(iter(found))
    group = (
        f"TCPA 10 + 20, ViT-{options.vit}, {options.members} members, "
        f"{options.arithmetic_ms:g} ms of arithmetic each"
    )
    rows = []
    named = {"the device waits": "waits", "CPU of that": "cpu", "whole epoch": "whole"}
    for what, name in named.items():
        times = {side: [each[name] for each in rounds] for side, rounds in found.items()}
        rows += ratios(f"{group}: {what}", times, baseline)
    for side, rounds in found.items():
        waits, cpu = ([1000 * each[name] for each in rounds] for name in ("waits", "cpu"))
        print(
            f"{group}: {side} lets the device wait {statistics.median(waits):.2f} ms a member and "
            f"epoch ({min(waits):.2f} to {max(waits):.2f}), {statistics.median(cpu):.2f} of it at "
            "work"
        )
    return rows


if __name__ == "__main__":
    main()
