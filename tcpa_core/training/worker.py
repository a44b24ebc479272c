"""A worker owns one device and trains the trials it is given in packs, epoch by epoch.

It keeps backbones, data and packs warm between trials. It knows no platform: commands come in from
any thread, journal-ready events come out of `work`.
"""

import platform
import queue
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tcpa_core.chain import pack_key, splits_batch
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.errors import (
    DamagedCheckpointError,
    OutOfMemoryError,
    StorageError,
    TcpaError,
)
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.record.values import Pulse, Status, TrialResult
from tcpa_core.settings import BackboneConfig
from tcpa_core.training.commands import Command, Extend, Limit, Stop, Submit, Test
from tcpa_core.training.pack import (
    Diverged,
    Member,
    Pack,
    TrialData,
    is_out_of_memory,
    load_trial_data,
)
from tcpa_core.training.probe import pack_size, recorded_size

Event = dict[str, Any]


@dataclass(slots=True)
class _Job:
    """A member with what the scheduler allows it."""

    member: Member
    until_epoch: int
    test_at_end: bool
    alone: bool
    """Its next epoch is trained before all others and by itself."""

    @property
    def may_train(self) -> bool:
        return not self.member.is_done and self.member.epoch < self.until_epoch


@dataclass(slots=True)
class _Group:
    """The jobs of one pack."""

    pack: Pack
    jobs: dict[str, _Job] = field(default_factory=dict)
    limit: int | None = None
    """Most members to train together: what a probe found best, or what memory allows."""
    longest_s: float | None = None
    """Longest epoch so far."""


class Worker:
    """Trains trials on one device.

    Args:
        study_dir: Checkpoints go to study_dir/checkpoints/<trial>/.
        cache_dir: Decoded images; None: the user's cache folder.
        device: A torch device.
    """

    def __init__(self, study_dir: Path, cache_dir: Path | None, device: str) -> None:
        self._checkpoints = Path(study_dir) / "checkpoints"
        self._cache_dir = cache_dir
        self._device = device
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._backbones: dict[BackboneConfig, Backbone] = {}
        self._data: dict[tuple[Any, ...], TrialData] = {}
        self._groups: dict[tuple[Any, ...], _Group] = {}
        self._turn = 0
        self._together: int | None = None
        self._signs = 0
        self._doing = Pulse()

    def take(self, command: Command) -> None:
        """Note a command, from any thread; `work` carries commands out in their order."""
        self._commands.put(command)

    def pulse(self) -> Pulse:
        """What is done at the moment; from any thread."""
        return replace(self._doing, signs=self._signs)

    def probe(self, trials: Sequence[Flat], share: float) -> list[dict[int, float]]:
        """Measure packs of some settings (see `tcpa_core.training.probe`).

        Args:
            trials: Settings by dotted path.
            share: Share of the machine's memory that this worker may count on.

        Returns:
            For each, images per second by number of members, up to the best number; {} where only
            a pack of one is possible.
        """
        speeds = []
        for flat in trials:
            config = TrialConfig.from_flat(flat)
            group = self._group(config)
            found = pack_size(group.pack, config, cache_dir=self._cache_dir, share=share)
            group.limit = found.members
            speeds.append({n: v for n, v in found.images_per_s.items() if n <= found.members})
        return speeds

    @property
    def num_members(self) -> int:
        """Trials held now, commands still to be read not counted."""
        return sum(len(group.jobs) for group in self._groups.values())

    @property
    def idle(self) -> bool:
        """True when `work` has nothing to do until another command comes."""
        return self._commands.empty() and not any(
            job.may_train for group in self._groups.values() for job in group.jobs.values()
        )

    def work(self) -> list[Event]:
        """Read the commands, then train one epoch of one pack.

        Returns:
            Events in the order in which they happened; [] when there was nothing to do.

        Raises:
            StorageError: Checkpoints or the image cache cannot be written; every trial would meet
                it, so that it fails none.
        """
        self._doing = Pulse(is_idle=False)
        try:
            events = self._read_commands()
            chosen = self._choose()
            if chosen is not None:
                events += self._train(*chosen)
            return events
        finally:
            self._doing = Pulse()

    def _choose(self) -> tuple[_Group, list[_Job]] | None:
        """The pack whose turn it is and those of its trials that train, the least trained first."""
        ready = {
            id(group): (group, jobs)
            for group in self._groups.values()
            if (jobs := [job for job in group.jobs.values() if job.may_train])
        }
        for group, jobs in ready.values():
            for job in jobs:
                if job.alone:
                    return group, [job]
        if not ready:
            return None
        self._turn += 1
        group, jobs = list(ready.values())[self._turn % len(ready)]
        limits = [n for n in (group.limit, self._together) if n is not None]
        return group, sorted(jobs, key=lambda job: job.member.epoch)[: min(limits, default=None)]

    def _read_commands(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return events
            events += self._carry_out(command)
            self._sign()

    def _carry_out(self, command: Command) -> list[Event]:
        match command:
            case Submit():
                return self._submit(command)
            case Extend():
                return self._extend(command)
            case Stop(trial=trial):
                found = self._find(trial)
                return [self._end(found[0], trial, "pruned")] if found else []
            case Test():
                return self._test(command)
            case Limit(members=members):
                self._together = members
                return []

    def _sign(self, *_: object) -> None:
        """Show that work goes on."""
        self._signs += 1

    def _submit(self, command: Submit) -> list[Event]:
        trial = command.trial
        try:
            config = TrialConfig.from_flat(command.params, place=f"trial {trial}")
            group = self._group(config)
            folder = self._checkpoints / trial
            member, note = self._member(group.pack, folder, trial, config)
        except TcpaError as err:
            if getattr(err.__cause__, "errno", None) in StorageError.ERRNOS:
                raise StorageError(f"{err} Then 'tcpa resume'.") from err
            result = TrialResult(status="failed", reason=str(err), device=self._device)
            return [_event("failed", trial, asdict(result))]
        group.jobs[trial] = _Job(member, command.until_epoch, command.test_at_end, command.alone)
        fields: dict[str, Any] = {
            "device": self._device,
            "epoch": member.epoch,
            "preprocessing": group.pack.backbone.preprocessing(config.data).as_dict(),
        }
        if note:
            fields["note"] = note
        started = _event("started", trial, fields)
        # What was trained before may not have arrived: its receiver drops what it knows.
        told = [_event("epoch", trial, asdict(report)) for report in member.reports]
        return [started, *told, *self._finish(group)]

    def _member(
        self, pack: Pack, folder: Path, trial: str, config: TrialConfig
    ) -> tuple[Member, str]:
        """The trial as its checkpoint left it, or fresh; and what there is to say about that.

        A damaged checkpoint is set aside and the trial begins anew, which gives the same numbers.
        """
        last = folder / "last.safetensors"
        if not last.exists():
            return pack.new_member(trial, config), ""
        try:
            return pack.restore(folder, trial, config), ""
        except DamagedCheckpointError as err:
            last.replace(folder / "damaged.safetensors")
            return pack.new_member(trial, config), f"begins anew: {err}"

    def _extend(self, command: Extend) -> list[Event]:
        found = self._find(command.trial)
        if found:
            found[1].until_epoch = max(found[1].until_epoch, command.until_epoch)
        return []

    def _test(self, command: Test) -> list[Event]:
        trial = command.trial
        config = TrialConfig.from_flat(command.params, place=f"trial {trial}")
        pack = self._group(config).pack
        member = pack.restore(self._checkpoints / trial, trial, config)
        loss, accuracy = pack.test([member])[0]
        return [_event("tested", trial, {"test_loss": loss, "test_accuracy": accuracy})]

    def _train(self, group: _Group, jobs: list[_Job]) -> list[Event]:
        members = [job.member for job in jobs]
        self._doing = Pulse(
            is_idle=False,
            trials=tuple(member.trial for member in members),
            epoch=max(member.epoch for member in members) + 1,
            usual_s=group.longest_s,
        )
        started = time.perf_counter()
        fault: Exception | None = None
        try:
            outcomes = group.pack.run_epoch(members)
        except Exception as err:
            if self._device != "cpu" and not is_out_of_memory(err):
                raise  # a fault of the device may have spoilt it for everybody
            fault = err.with_traceback(None)  # whose frames hold on to what the epoch needed
        if fault is not None:
            return self._shrink(group, jobs, fault)
        group.longest_s = max(group.longest_s or 0.0, time.perf_counter() - started)
        events = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            trial = job.member.trial
            job.alone = False
            if isinstance(outcome, Diverged):
                events.append(self._end(group, trial, "failed", reason=outcome.reason))
            else:
                group.pack.save(job.member, self._checkpoints / trial)
                events.append(_event("epoch", trial, asdict(outcome)))
        return events + self._finish(group)

    def _shrink(self, group: _Group, jobs: list[_Job], err: Exception) -> list[Event]:
        """After a fault: fewer members together, then a batch in parts; then the culprit fails.

        Nobody has lost more than this epoch's try.
        """
        short = is_out_of_memory(err)
        trials = [job.member.trial for job in jobs]
        if len(jobs) > 1:
            group.limit = len(jobs) // 2
            limit = "one" if group.limit == 1 else f"at most {group.limit}"
            text = (
                f"{len(jobs)} trials do not fit into the memory of {self._where} together; they "
                f"are now trained {limit} at a time"
            )
            return [_notice(text, trials)] if short else []
        pack, member = group.pack, jobs[0].member
        size = min(member.config.train.batch_size, len(pack.data.train))
        if short and pack.parts < size and splits_batch(member.config):
            pack.parts = min(2 * pack.parts, size)
            text = (
                f"a batch of {size} does not fit into the memory of {self._where} (trial "
                f"{trials[0]}); it is trained in {pack.parts} parts, which changes results by "
                "rounding only"
            )
            return [_notice(text, trials)]
        if short:
            fits = pack.largest_batch(member.config)
            advice = f"a batch of {fits} fits" if fits else "not even one image fits"
            err = OutOfMemoryError(
                f"one step does not fit into the memory of {self._where} (trial {trials[0]}, "
                f"train.batch_size={member.config.train.batch_size}: {err}); {advice}: lower "
                f"{'train.batch_size' if fits else 'backbone.img_size'} or the number of prompts."
            )
        reason = f"{type(err).__name__}: {err}"
        return [self._end(group, member.trial, "failed", reason=reason)]

    @property
    def _where(self) -> str:
        return f"{self._device} on {platform.node()}"

    def _finish(self, group: _Group) -> list[Event]:
        """Complete the jobs of a pack that have trained their last epoch."""
        done = [job for job in group.jobs.values() if job.member.is_done]
        to_test = [job.member for job in done if job.test_at_end]
        tested = dict(
            zip(
                (m.trial for m in to_test), group.pack.test(to_test) if to_test else (), strict=True
            )
        )
        return [
            self._end(group, job.member.trial, "completed", test=tested.get(job.member.trial))
            for job in done
        ]

    def _end(
        self,
        group: _Group,
        trial: str,
        status: Status,
        *,
        reason: str = "",
        test: tuple[float, float] | None = None,
    ) -> Event:
        member = group.jobs.pop(trial).member
        result = group.pack.result(member, status, reason=reason, test=test)
        return _event(status, trial, asdict(result))

    def _find(self, trial: str) -> tuple[_Group, _Job] | None:
        for group in self._groups.values():
            if trial in group.jobs:
                return group, group.jobs[trial]
        return None

    def _group(self, config: TrialConfig) -> _Group:
        """The pack for a configuration, with its backbone and data, built on first use."""
        key = (config.backbone, config.data, config.train.precision, *pack_key(config))
        if key not in self._groups:
            pack = Pack(*self._backbone_and_data(config), on_step=self._sign)
            known = recorded_size(pack, config, cache_dir=self._cache_dir)
            self._groups[key] = _Group(pack, limit=known.members if known else None)
        return self._groups[key]

    def _backbone_and_data(self, config: TrialConfig) -> tuple[Backbone, TrialData]:
        if config.backbone not in self._backbones:
            self._backbones[config.backbone] = load_backbone(
                config.backbone, device=self._device, recorded=True
            )
        backbone = self._backbones[config.backbone]
        key = (config.backbone, config.data)
        if key not in self._data:
            self._data[key] = load_trial_data(
                config,
                backbone,
                device=self._device,
                cache_dir=self._cache_dir,
                progress=self._sign,
            )
        return backbone, self._data[key]


def _notice(text: str, trials: Sequence[str]) -> Event:
    return {"kind": "notice", "text": text, "trials": list(trials)}


def _event(kind: str, trial: str, fields: dict[str, Any]) -> Event:
    return {"kind": kind, "trial": trial, **fields}
