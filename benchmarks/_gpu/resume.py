"""A trial that is killed inside an epoch and resumed, against one that is left alone."""

import shutil
from pathlib import Path

from benchmarks._gpu import one_trial
from benchmarks._gpu.bench import Bench, Finding, relative
from benchmarks._gpu.cases import trial
from tcpa_core.config import TrialConfig
from tcpa_core.record.values import EpochReport
from tcpa_core.training.run_trial import run_trial

EPOCHS = 6
KILLED_AFTER = 2
"""Epochs that the killed process has told of; it is at work on the next one."""


def run(bench: Bench) -> None:
    """Two runs without a fault say how far the device repeats itself at all."""
    vit = next(iter(bench.form.vits))
    for name in bench.form.methods:
        with bench.trying(name):
            config = trial(name, {**bench.settings(vit), "train.epochs": EPOCHS})
            _compare(bench, f"{name}, {vit}", config)


def _compare(bench: Bench, what: str, config: TrialConfig) -> None:
    alone, again = (_train(bench, config, None) for _ in range(2))
    folder = bench.folder / "resumed"
    shutil.rmtree(folder, ignore_errors=True)
    told = 0
    with one_trial.process(config.flat(), bench.device, bench.cache, folder) as process:
        for _ in one_trial.lines(process):
            told += 1
            if told == KILLED_AFTER:
                process.kill()
    resumed = _train(bench, config, folder)
    shutil.rmtree(folder)
    if not EPOCHS - told <= len(resumed) < EPOCHS:
        raise RuntimeError(f"after {told} epochs that were told, {len(resumed)} were trained")
    repeats, follows = _off(again, alone), _off(resumed, alone[-len(resumed) :])
    values = {
        "epochs told": told,
        "trained after the kill": len(resumed),
        "off by": follows,
        "two whole runs differ by": repeats,
    }
    bench.tell(Finding(what=what, values=values, ok=follows <= repeats))


def _train(bench: Bench, config: TrialConfig, folder: Path | None) -> list[EpochReport]:
    """Reports of the epochs that were still to be trained."""
    reports: list[EpochReport] = []
    run_trial(
        config, on_epoch=reports.append, folder=folder, cache_dir=bench.cache, device=bench.device
    )
    return reports


def _off(some: list[EpochReport], others: list[EpochReport]) -> float:
    """Largest relative difference of any loss; 0: equal to the bit."""
    return max(
        relative(getattr(a, name), getattr(b, name))
        for a, b in zip(some, others, strict=True)
        for name in ("train_loss", "val_loss")
    )
