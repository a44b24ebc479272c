"""A worker without torch, with the interface of `tcpa_core.training.worker.Worker`.

Its objective is cheap. It trains nothing and keeps a real checkpoint, so that everything around a
worker can be tested: placing, stopping early, failing, dying, resuming. What it should do wrong
stands in `stub.json` of the study folder, written before the study starts; so does "slots", the
most trials that it may be given at once, "refuses", why a GPU cannot be used, by its number,
"models", of each the speeds of its packs, and "sick", how many workers a GPU ends as soon as they
are given a trial.
"""

import json
import math
import os
import platform
import queue
import random
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from search.study.description import read_description
from tcpa_core.config import Flat
from tcpa_core.errors import DataError, DeviceError, StorageError
from tcpa_core.record.events import Ended, Epoch, Event, Started, Tested
from tcpa_core.record.values import Device, EpochReport, Pulse, Status, TrialResult
from tcpa_core.training.commands import Command, Extend, Limit, Stop, Submit, Test

SLOTS = 4
"""Trials that a worker may be given at once where `stub.json` does not say; as many as a driver
gives that is not told either."""


@dataclass
class _Job:
    params: dict[str, Any]
    until_epoch: int
    test_at_end: bool
    alone: bool = False
    epoch: int = 0

    @property
    def epochs(self) -> int:
        return int(self.params["train.epochs"])


def num_trainable(params: Flat) -> int:
    """More at a larger learning rate."""
    return int(1000 * params["optim.lr"]) + 1


def accuracy(params: dict[str, Any], epoch: int, noise: float = 0.0) -> float:
    """Best at a learning rate of 0.01, rising with the epochs, in [0, 1].

    Args:
        noise: Standard deviation between seeds, which differs from point to point.
    """
    distance = abs(math.log10(params["optim.lr"]) + 2)
    draw = random.Random(f"{params['optim.lr']:.12g}/{params['seed']}")
    best = max(0.0, 1 - 0.3 * distance) + noise * draw.gauss(0, 1)
    return best * (1 - math.exp(-epoch)) - 0.001 * params["seed"]


class StubWorker:
    """Trains every trial it holds by one epoch per call of `work`."""

    def __init__(self, study_dir: Path, cache_dir: Path | None, device: str) -> None:
        self._study = Path(study_dir)
        self._device = device
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._jobs: dict[str, _Job] = {}
        self._together: int | None = None
        self._longest_s: float | None = None
        self._doing = Pulse()
        plan = self._study / "stub.json"
        self._plan: dict[str, Any] = json.loads(plan.read_text()) if plan.exists() else {}
        self._slots: int = self._plan.get("slots", SLOTS)
        if self._plan.get("broken"):
            raise RuntimeError("the stub was told not to start")

    def take(self, command: Command) -> None:
        self._commands.put(command)

    @property
    def _gpu(self) -> str:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "") if self._device == "cuda" else "cpu"

    def prove(self, precisions: Collection[str]) -> Device:
        ended = self._study / f"ended-{self._gpu}"
        if ended.exists() and len(ended.read_text()) in self._plan.get("fails_proof_after", ()):
            ended.write_text(ended.read_text() + "x")
            raise DeviceError("it fails a first product")
        if why := self._plan.get("refuses", {}).get(self._gpu):
            raise DeviceError(why)
        name = f"model {self._gpu}" if "models" in self._plan else "stub"
        return Device(
            host=platform.node(), id=self._device, name=name, memory_bytes=2**30, free_bytes=2**29
        )

    def fingerprints(self, data: Sequence[Any], backbones: Sequence[Any]) -> dict[str, list[str]]:
        """What the study has recorded, unless told what is on which node."""
        recorded = read_description(self._study)["fingerprints"]
        here = self._plan.get("nodes", {}).get(ray.get_runtime_context().get_node_id(), {})
        if "lacks" in here:
            raise DataError(here["lacks"])
        first = {name: text.split("+")[0] for name, text in recorded.items()} | here
        return {"data": [first["data"]] * len(data), "weights": [first["weights"]] * len(backbones)}

    def expect(self, data: Mapping[Any, str], weights: Mapping[Any, str]) -> None:
        self._expects = True

    def probe(self, trials: Sequence[Flat], share: float) -> list[dict[int, float]]:
        found = self._plan["models"][self._gpu]
        return [{int(members): speed for members, speed in found.items()} for _ in trials]

    def pulse(self) -> Pulse:
        return self._doing

    @property
    def idle(self) -> bool:
        return self._commands.empty() and not any(map(self._may_train, self._jobs.values()))

    def work(self) -> list[Event]:
        ends = self._plan.get("sick", {}).get(self._gpu, 0)
        if ends and not self._commands.empty() and self._counts(f"ended-{self._gpu}", ends):
            if self._plan.get("filled"):
                raise DeviceError("trial 00000 finds no room; end the other processes.")
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        events = self._read_commands()
        assert len(self._jobs) <= self._slots, "more trials than slots"
        ready = {t: j for t, j in self._jobs.items() if self._may_train(j)}
        alone = {t: j for t, j in ready.items() if j.alone}
        together = dict(list((alone or ready).items())[: 1 if alone else self._together])
        if together:
            self._doing = Pulse(
                signs=self._doing.signs + 1,
                is_idle=False,
                trials=tuple(together),
                epoch=max(job.epoch for job in together.values()) + 1,
                usual_s=self._longest_s,
            )
            started = time.monotonic()
            self._break_down(together)
            time.sleep(self._plan.get("epoch_s", 0.0))
            self._longest_s = max(self._longest_s or 0.0, time.monotonic() - started)
        for trial, job in together.items():
            job.alone = False
            events += self._train(trial, job)
        self._doing = replace(self._doing, is_idle=True)
        return events

    @staticmethod
    def _may_train(job: _Job) -> bool:
        return job.epoch < min(job.until_epoch, job.epochs)

    def _read_commands(self) -> list[Event]:
        events: list[Event] = []
        while not self._commands.empty():
            events += self._carry_out(self._commands.get())
        return events

    def _carry_out(self, command: Command) -> list[Event]:
        match command:
            case Submit():
                return self._submit(command)
            case Extend(trial=trial, until_epoch=until_epoch) if trial in self._jobs:
                self._jobs[trial].until_epoch = max(self._jobs[trial].until_epoch, until_epoch)
            case Stop(trial=trial) if trial in self._jobs:
                return [self._end(trial, "pruned")]
            case Test(trial=trial, params=params):
                value = self._accuracy(params, params["train.epochs"])
                return [Tested(trial=trial, test_loss=1 - value, test_accuracy=value)]
            case Limit(members=members):
                self._together = members
        return []

    def _submit(self, command: Submit) -> list[Event]:
        trial = command.trial
        assert trial not in self._jobs, f"trial {trial} submitted twice"
        job = self._jobs[trial] = _Job(
            command.params, command.until_epoch, command.test_at_end, command.alone
        )
        saved = self._checkpoint(trial)
        job.epoch = json.loads(saved.read_text())["epoch"] if saved.exists() else 0
        costs = {"num_trainable": num_trainable(job.params)} if command.tells_costs else None
        started = Started(trial=trial, device=self._device, epoch=job.epoch, costs=costs)
        events: list[Event] = [started]
        events += [self._report(trial, job, n + 1) for n in range(job.epoch)]
        if job.epoch >= job.epochs:
            events.append(self._end(trial, "completed"))
        return events

    def _train(self, trial: str, job: _Job) -> list[Event]:
        job.epoch += 1
        self._misbehave(trial, job.epoch)
        if job.params["optim.lr"] > self._plan.get("diverges_above", math.inf):
            return [self._end(trial, "failed", reason="train_loss is nan at epoch 1")]
        saved = self._checkpoint(trial)
        part = saved.with_suffix(".part")
        try:
            saved.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"epoch": job.epoch}))
            part.replace(saved)  # it may be killed at any moment
        except OSError as err:
            raise StorageError.of(saved, err) from err
        self._misbehave(trial, job.epoch, after_saving=True)
        events: list[Event] = [self._report(trial, job, job.epoch)]
        if job.epoch >= job.epochs:
            events.append(self._end(trial, "completed"))
        return events

    def _accuracy(self, params: dict[str, Any], epoch: int) -> float:
        return accuracy(params, epoch, self._plan.get("noise", 0.0))

    def _report(self, trial: str, job: _Job, epoch: int) -> Epoch:
        value = self._accuracy(job.params, epoch)
        report = EpochReport(
            epoch=epoch,
            train_loss=1 - value,
            ce_loss=1 - value,
            match_loss=0.0,
            val_loss=1 - value,
            val_accuracy=value,
            lr=job.params["optim.lr"],
            duration_s=0.001,
            images_per_s=1000.0,
        )
        return Epoch(trial=trial, report=report)

    def _break_down(self, together: dict[str, _Job]) -> None:
        """Hang or die of a trial, or of more trials at once than fit."""
        hang = self._plan.get("hang", {})
        job = together.get(hang.get("trial", ""))
        if job and job.epoch + 1 == hang["epoch"] and self._counts("hangs", hang.get("times", 99)):
            if hang.get("deaf"):
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(3600)
        if len(together) > self._plan.get("fits", math.inf):
            os.kill(os.getpid(), signal.SIGKILL)

    def _counts(self, what: str, times: int) -> bool:
        marker = self._study / what
        count = marker.read_text().count("x") if marker.exists() else 0
        marker.write_text("x" * (count + 1))
        return count < times

    def _misbehave(self, trial: str, epoch: int, after_saving: bool = False) -> None:
        """Die in the middle of an epoch, as often as told."""
        orders = self._plan.get("die", {})
        if [trial, epoch, after_saving] != [orders.get(k) for k in ("trial", "epoch", "saved")]:
            return
        if self._counts("deaths", orders["times"]):
            os._exit(1)

    def _end(self, trial: str, status: Status, reason: str = "") -> Ended:
        job = self._jobs.pop(trial)
        value = self._accuracy(job.params, job.epoch)
        measured = status != "failed" and job.epoch > 0
        result = TrialResult(
            status=status,
            reason=reason,
            best_epoch=job.epoch if measured else None,
            num_epochs=job.epoch,
            val_accuracy=value if measured else None,
            val_loss=1 - value if measured else None,
            test_accuracy=value if job.test_at_end and status == "completed" else None,
            num_trainable=num_trainable(job.params),
            num_trainable_no_head=1,
            flops_per_image=1e6,
            duration_s=0.001 * job.epoch,
            device=self._device,
        )
        return Ended(trial=trial, result=result)

    def _checkpoint(self, trial: str) -> Path:
        return self._study / "checkpoints" / trial / "last.json"


def say_slots(study_dir: Path, slots: int) -> None:
    """Have stub workers of a study refuse more trials than this."""
    plan = study_dir / "stub.json"
    orders = json.loads(plan.read_text()) if plan.exists() else {}
    plan.write_text(json.dumps({**orders, "slots": slots}))


def make_worker(study_dir: Path, cache_dir: Path | None, device: str) -> StubWorker:
    """What `Placement.worker_factory` names."""
    return StubWorker(study_dir, cache_dir, device)
