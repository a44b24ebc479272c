"""A worker that is killed at any moment of a save: what it had told can be taken up again."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tcpa_core.training.checkpoint import load_checkpoint
from tcpa_core.training.commands import Submit
from tcpa_core.training.worker import Worker

ROOT = Path(__file__).parents[2]
SETTINGS = {"methods": ["linear"], "train.epochs": 4, "train.batch_size": 512}
CODE = """
import json, os, signal, sys, threading
from pathlib import Path
folder, cache, what, number, trials, settings = sys.argv[1:]
calls, lock = 0, threading.Lock()

def deadly(call):
    def run(*args):
        global calls
        with lock:
            calls += 1
            if calls == int(number):
                os.kill(os.getpid(), signal.SIGKILL)
        return call(*args)
    return run

from tcpa_core.training.commands import Submit
from tcpa_core.training.pack import Pack
from tcpa_core.training.worker import Worker
if what == "fsync":
    os.fsync = deadly(os.fsync)
elif what == "rename":
    Path.replace = deadly(Path.replace)
elif what == "renamed":
    replace = Path.replace
    Path.replace = lambda *args: [replace(*args), deadly(lambda: None)()][0]
else:
    Pack.run_epoch = deadly(Pack.run_epoch)
worker = Worker(Path(folder), Path(cache), "cpu")
for seed, trial in enumerate(trials):
    params = {**json.loads(settings), "seed": seed}
    worker.take(Submit(trial=trial, params=params, until_epoch=4))
while not worker.idle:
    for event in worker.work():
        print(json.dumps(event.as_dict()), flush=True)
"""
"""Trains, tells, and kills itself at the n-th call of something."""


def killed(folder: Path, cache: Path, what: str, number: int, trials: str) -> list[dict[str, Any]]:
    """What a worker told before it killed itself."""
    command = [sys.executable, "-c", CODE, str(folder), str(cache), what, str(number), trials]
    done = subprocess.run(
        [*command, json.dumps(SETTINGS)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def finished(folder: Path, cache: Path, trials: str) -> list[dict[str, Any]]:
    """What a worker tells that takes the trials up and brings them to their ends."""
    worker = Worker(folder, cache, "cpu")
    for seed, trial in enumerate(trials):
        worker.take(Submit(trial=trial, params={**SETTINGS, "seed": seed}, until_epoch=4))
    events = []
    while not worker.idle:
        events += [event.as_dict() for event in worker.work()]
    return events


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> dict[str, list[dict[str, Any]]]:
    """What workers tell that nobody kills, by their trials."""
    folder = tmp_path_factory.mktemp("whole")
    return {trials: finished(folder / trials, cache, trials) for trials in ("a", "ab")}


@pytest.mark.parametrize(
    ("what", "number", "trials"),
    [
        ("renamed", 2, "ab"),
        ("renamed", 4, "a"),  # best.safetensors has its place, last.safetensors not yet
        pytest.param("fsync", 2, "a", marks=pytest.mark.faults),
        pytest.param("rename", 3, "a", marks=pytest.mark.faults),
        pytest.param("epoch", 3, "a", marks=pytest.mark.faults),
        pytest.param("rename", 4, "ab", marks=pytest.mark.faults),
    ],
)
def test_what_was_told_is_taken_up(
    tmp_path: Path,
    cache: Path,
    undisturbed: dict[str, list[dict[str, Any]]],
    what: str,
    number: int,
    trials: str,
) -> None:
    told = killed(tmp_path, cache, what, number, trials)
    folder = tmp_path / "checkpoints"
    for event in told:
        if event["kind"] == "epoch":
            info = load_checkpoint(folder / event["trial"] / "last.safetensors")[1]
            assert info["epoch"] >= event["epoch"]
    assert not [event for event in told if event["kind"] == "completed"]
    again = finished(tmp_path, cache, trials)
    for trial in trials:
        both = (again, undisturbed[trials])
        runs = [[e for e in events if e["trial"] == trial] for events in both]
        assert [e["epoch"] for e in runs[0] if e["kind"] == "epoch"] == [1, 2, 3, 4]
        # A pack of other members adds in another order; alone, a trial is the same to the bit.
        for name in ("val_loss", "train_loss"):
            first, second = ([e[name] for e in run if e["kind"] == "epoch"] for run in runs)
            expected = second if len(trials) == 1 else pytest.approx(second, rel=1e-5)
            assert first == expected, name
        leftovers = [path for path in (folder / trial).iterdir() if path.name.startswith(".")]
        best = load_checkpoint(folder / trial / "best.safetensors")[1]
        assert best["selected"]["epoch"] == runs[0][-1]["best_epoch"]
        assert len(leftovers) <= 1, "of the process that was killed"
