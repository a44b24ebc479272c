"""Trials per GPU-hour of a search of the size of VTAB-1k, three ways.

- ours: a worker trains packs, with checkpoints after every epoch and all events;
- a process per trial: the same training, each trial alone in a process of its own;
- literal: such a process with the step as published programs compute it (`benchmarks/literal.py`).

Some epochs are measured. A whole trial is its beginning (start of the process, loading, the first
epoch), as many steady epochs as it has, and its end (the test); a pack's time is divided among its
members.
"""

import itertools
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks import literal
from benchmarks._gpu import one_trial
from benchmarks._gpu.bench import Bench, Finding, Value, wait
from benchmarks._gpu.cases import trial
from benchmarks.step import Pair
from tcpa_core.config import Flat
from tcpa_core.record.events import Ended, Event
from tcpa_core.training import pack
from tcpa_core.training.commands import Submit
from tcpa_core.training.worker import Worker

METHOD = "tcpa"
TARGETS = {"ViT-B": 290.0, "ViT-Ti": 3000.0}
"""Trials per GPU-hour that an H200 is to reach."""
LITERAL_TARGET = 0.30
"""Share of the literal trial's time that ours may take."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a group of trials that run together."""

    trials: int
    start: float
    """Until the end of the first epoch."""
    epoch: float
    """A steady one, validation included."""
    end: float
    """From the last epoch's end to the result."""

    def per_trial(self, epochs: int) -> float:
        """Seconds of the device for one whole trial."""
        return (self.start + (epochs - 1) * self.epoch + self.end) / self.trials


def run(bench: Bench) -> None:
    """The three, for each backbone."""
    for vit, most in bench.form.most_members.items():
        with bench.trying(vit):
            _run(bench, vit, most)


def _run(bench: Bench, vit: str, most: int) -> None:
    flat = trial(METHOD, {**bench.settings(vit), "train.epochs": bench.form.epochs}).flat()
    bench.data(vit)  # decoded once for all
    packed = _packed(bench, vit, flat, most)
    alone = _alone(bench, flat)
    published = _literal(bench, vit, alone)
    epochs = bench.form.trial_epochs
    best = packed.per_trial(epochs)
    for name, times in {
        f"packs of {packed.trials}": packed,
        "a process per trial": alone,
        "literal, a process per trial": published,
    }.items():
        seconds = times.per_trial(epochs)
        bench.tell(
            Finding(
                what=f"{vit}, {name}",
                values={
                    "vit": vit,
                    "trials per GPU-hour": 3600 / seconds,
                    "ours is faster by": seconds / best,
                    "beginning s": times.start,
                    "epoch ms": 1e3 * times.epoch,
                    "end s": times.end,
                },
            )
        )
    target = TARGETS.get(vit)
    if bench.is_gpu and target is not None:
        reached = {"trials per GPU-hour": 3600 / best, "target": target}
        bench.tell(Finding(what=f"{vit}: target", values=reached, ok=3600 / best >= target))


def _packed(bench: Bench, vit: str, flat: Flat, most: int) -> Times:
    """A worker's trials: as many together as its probe finds best, `most` at most."""
    study = bench.folder / f"study {vit}"
    shutil.rmtree(study, ignore_errors=True)
    worker = Worker(study, bench.cache, bench.device)
    (speeds,) = worker.probe([flat], 1.0)
    members = min(most, max(speeds, default=1))
    with _epochs_noted() as spans:
        began = _mark(bench)
        for m in range(members):
            params = {**flat, "seed": m}
            trial = Submit(
                trial=str(m), params=params, until_epoch=bench.form.epochs, test_at_end=True
            )
            worker.take(trial)
        told = [event for event in _all_events(worker) if isinstance(event, Ended)]
        ended = _mark(bench)
    shutil.rmtree(study)
    wrong = [event.result for event in told if event.result.status != "completed"]
    if wrong or len(told) != members or len(spans) != bench.form.epochs:
        raise RuntimeError(f"{len(told)} of {members} trials ended, {len(spans)} epochs: {wrong}")
    begins = [start for start, _ in spans]
    epoch_s = statistics.median(b - a for a, b in itertools.pairwise(begins[1:]))
    in_steps = statistics.median(stop - start for start, stop in spans[1:])
    values: dict[str, Value] = {
        "vit": vit,
        "members": members,
        "epoch ms": 1e3 * epoch_s,
        "of it in steps": in_steps / epoch_s,
        "rest ms a member": 1e3 * (epoch_s - in_steps) / members,
    }
    bench.tell(Finding(what=f"{vit}, an epoch of {members} members", values=values))
    # The last epoch's own time is one of the steady ones.
    return Times(members, begins[1] - began, epoch_s, max(0.0, ended - begins[-1] - epoch_s))


@contextmanager
def _epochs_noted() -> Iterator[list[tuple[float, float]]]:
    """When the training of each epoch began and ended; an epoch ends with a wait for its losses."""
    spans: list[tuple[float, float]] = []
    train = pack.train_epoch  # type: ignore[attr-defined]

    def noted(*args: Any) -> Any:
        began = time.perf_counter()
        found = train(*args)
        spans.append((began, time.perf_counter()))
        return found

    pack.train_epoch = noted  # type: ignore[attr-defined,assignment]
    try:
        yield spans
    finally:
        pack.train_epoch = train  # type: ignore[attr-defined]


def _all_events(worker: Worker) -> Iterator[Event]:
    """Until it has nothing left to do."""
    while not worker.idle:
        yield from worker.work()


def _mark(bench: Bench) -> float:
    wait(bench.device)
    return time.perf_counter()


def _alone(bench: Bench, flat: Flat) -> Times:
    """One process for one trial, with checkpoints as a search needs them."""
    folder = bench.folder / "alone"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.time()
    with one_trial.process(flat, bench.device, bench.cache, folder) as process:
        marks = [line["at"] for line in one_trial.lines(process)]
        if process.wait():
            raise RuntimeError(f"a trial's process ended with code {process.returncode}")
        ended = time.time()
    shutil.rmtree(folder)
    steady = [b - a for a, b in itertools.pairwise(marks)]
    return Times(1, marks[0] - began, statistics.median(steady), ended - marks[-1])


def _literal(bench: Bench, vit: str, alone: Times) -> Times:
    """Epochs of the published step with torch's AdamW; a process begins and ends as above."""
    case: dict[str, Any] = {"methods": [METHOD]}
    pair = Pair(bench.backbone(vit), case, bench.form.batch, 0.0)
    optimizer = torch.optim.AdamW(pair.state.values(), lr=1e-3)
    data = bench.data(vit)

    def loss(indices: torch.Tensor) -> torch.Tensor:
        pair.images, pair.labels = data.train.batch(indices, None), data.train.labels[indices]
        return pair.literal()

    def epoch() -> None:
        for indices in torch.randperm(len(data.train), device=bench.device).split(bench.form.batch):
            optimizer.zero_grad()
            with torch.autocast(bench.device, torch.bfloat16, enabled=bench.is_gpu):
                loss(indices).backward()
            optimizer.step()
        settings = pair.config.method_settings[METHOD]
        places = torch.arange(len(data.val), device=bench.device)
        with torch.no_grad(), torch.autocast(bench.device, torch.bfloat16, enabled=bench.is_gpu):
            for indices in places.split(bench.form.batch):
                images = data.val.batch(indices, None)
                logits, _ = literal.METHODS[METHOD](pair.backbone, settings, pair.state, images)
                F.cross_entropy(logits.float(), data.val.labels[indices]).item()

    seconds = []
    for _ in range(min(3, bench.form.epochs)):
        started = _mark(bench)
        epoch()
        seconds.append(_mark(bench) - started)
    steady = min(seconds)
    return Times(1, alone.start - alone.epoch + steady, steady, alone.end)
