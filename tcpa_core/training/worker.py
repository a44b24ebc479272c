"""A worker owns one device and trains the trials it is given in packs, epoch by epoch.

It keeps backbones, data and packs warm between trials. It knows no platform: commands come in from
any thread, events for the journal come out of `work`.

Whoever calls `work` saves and tells one epoch while a thread of the worker trains the next, so that
the device waits for no disk. What is told is on disk, always.
"""

import platform
import queue
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from tcpa_core.config import Flat, TrialConfig
from tcpa_core.errors import (
    DamagedCheckpointError,
    DataError,
    DeviceError,
    MethodError,
    NodeError,
    StorageError,
    TcpaError,
    WeightsError,
)
from tcpa_core.record.events import Ended, Epoch, Event, Notice, Parent, Started, Tested
from tcpa_core.record.files import CHECKPOINTS, LAST
from tcpa_core.record.values import Device, Pulse, Status, TrialResult
from tcpa_core.settings import BackboneConfig, DataConfig
from tcpa_core.training.commands import Command, Extend, Limit, Stop, Submit, Test
from tcpa_core.training.device import proved
from tcpa_core.training.divergence import Diverged
from tcpa_core.training.expected_files import ExpectedFiles
from tcpa_core.training.faults import cannot_begin, describe, is_device_fault
from tcpa_core.training.groups import Group, Job, Turns
from tcpa_core.training.member import Member
from tcpa_core.training.memory import is_filled_by_others, is_out_of_memory, retry_with_room
from tcpa_core.training.probe import PackSize, pack_size
from tcpa_core.training.recovery import GiveUp, recover
from tcpa_core.training.saved_member import (
    LARGE_EVERY_S,
    begun_member,
    nbytes,
    restore_member,
    restored_or_new,
    save_member,
    save_selected,
)
from tcpa_core.training.saved_predictions import writing_predictions
from tcpa_core.training.scored import Scored
from tcpa_core.training.stand_ins import StandIns
from tcpa_core.training.warm_packs import WarmPacks

SAVERS = 4
"""Files that are written at once: a disk takes several in little more time than one."""


@dataclass(slots=True)
class Turn:
    """What the training thread did between two looks at its commands."""

    events: list[Event] = field(default_factory=list)
    """In their order. They may be told once all of `files` are written."""
    files: list[Callable[[], Notice | None]] = field(default_factory=list)
    """Write what the events speak of, and say what is not worth more than a notice."""
    doing: Pulse = field(default_factory=Pulse)
    """While these are written."""
    is_of_suspect: bool = False
    """A suspect was trained by itself."""


class Worker:
    """Trains trials on one device.

    Args:
        study_dir: Checkpoints go to study_dir/checkpoints/<trial>/.
        cache_dir: Decoded images; None: the user's cache folder.
        device: A torch device.
    """

    def __init__(self, study_dir: Path, cache_dir: Path | None, device: str) -> None:
        self._checkpoints = Path(study_dir) / CHECKPOINTS
        self._cache_dir = cache_dir
        self._device = device
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._packs = WarmPacks(cache_dir, device, lambda: self._sign())
        self._turns = Turns()
        self._trainer = ThreadPoolExecutor(1, "train")
        self._savers = ThreadPoolExecutor(SAVERS, "save")
        self._expected = ExpectedFiles()
        self._ahead: Future[Turn] | None = None
        """Begun before it was asked for."""
        self._now = Turn()
        self._saving = Pulse()
        # Written by the thread that trains and read by the one that answers a watchdog: each is one
        # reference, so that no lock is needed and a pulse never waits for a step.
        self._signs = 0
        self._doing = Pulse()

    def take(self, command: Command) -> None:
        """Note a command, from any thread; `work` carries commands out in their order."""
        self._commands.put(command)

    def pulse(self) -> Pulse:
        """What is done at the moment; from any thread."""
        training, saving = self._doing, self._saving
        return replace(saving if training.is_idle else training, signs=self._signs)

    def use(self, stand_ins: StandIns) -> None:
        """Say what stands for files that this machine may lack; before anything is loaded."""
        self._packs.stand_ins = stand_ins

    def prove(self, precisions: Collection[str]) -> Device:
        """Show that torch can train on the device (see `tcpa_core.training.device`).

        Raises:
            DeviceError: It cannot.
        """
        return proved(self._device, precisions)

    def fingerprints(
        self, data: Sequence[DataConfig], backbones: Sequence[BackboneConfig]
    ) -> dict[str, list[str]]:
        """Identities of data sets and weights as they are here; no picture is decoded.

        What is absent is sent here, where something stands for it (see `use`).

        Returns:
            "data" and "weights", each in the order given.

        Raises:
            DataError: A data set cannot be read.
            WeightsError: Weights cannot be read.
        """

        def sign(*_: object) -> None:
            self._sign()

        files, cache = self._packs.stand_ins, self._cache_dir
        return {
            "data": [files.data_fingerprint(config, cache, sign) for config in data],
            "weights": [files.weights_fingerprint(config, cache, sign) for config in backbones],
        }

    def expect(self, data: Mapping[DataConfig, str], weights: Mapping[BackboneConfig, str]) -> None:
        """Say what data and weights have to be whenever they are loaded, by their fingerprints."""
        self._expected = ExpectedFiles(data, weights)

    def probe(self, trials: Sequence[Flat], share: float) -> list[dict[int, float]]:
        """Measure packs of some settings (see `tcpa_core.training.probe`).

        Args:
            trials: Settings by dotted path.
            share: Share of the machine's memory that this worker may count on.

        Returns:
            For each, images per second by number of members, up to the best number; {} where only
            a pack of one is possible, or where its trials will fail by their settings.

        Raises:
            MethodError: Code of a method failed: all its trials would.
            DeviceError: Others have filled the device.
        """
        return [self._probe(TrialConfig.from_flat(flat), share) for flat in trials]

    def _probe(self, config: TrialConfig, share: float) -> dict[int, float]:
        def measure() -> tuple[Group, PackSize]:
            group = self._packs.group(config)
            return group, pack_size(group.pack, config, cache_dir=self._cache_dir, share=share)

        try:
            group, found = retry_with_room(measure, self._packs.make_room)
        except MethodError:
            raise
        except TcpaError:
            # Its trials will fail with this sentence; one whose step is too large trains its batch
            # in parts.
            return {}
        except Exception as err:
            if is_device_fault(err):
                raise
            raise cannot_begin(err, "a trial", config, torch.device(self._device)) from err
        group.limit, group.pack.execution = found.members, found.execution
        return {n: v for n, v in found.images_per_s.items() if n <= found.members}

    @property
    def idle(self) -> bool:
        """True when `work` has nothing to do until another command comes."""
        return self._ahead is None and not self._has_work()

    def _has_work(self) -> bool:
        # Looked at between two turns only: jobs belong to the thread that trains.
        return not self._commands.empty() or any(
            job.may_train for group in self._packs.groups for job in group.jobs.values()
        )

    def work(self) -> list[Event]:
        """Read the commands and train one epoch of one pack, if that was not done ahead; then have
        the next epoch begun and save this one meanwhile.

        Returns:
            Events in the order in which they happened; [] when there was nothing to do, or nothing
            that is on disk yet (see `SaveClock`).

        Raises:
            StorageError: Checkpoints or the image cache cannot be written; every trial would meet
                it, so that it fails none.
            NodeError: Files here are not those of `expect`; nor does that fail a trial.
        """
        ahead, self._ahead = self._ahead or self._trainer.submit(self._turn), None
        turn = ahead.result()
        self._saving = turn.doing
        try:
            # A suspect's epoch is told first: if the worker dies of the next one, it is not to be
            # counted against a trial that has shown to be harmless.
            if self._has_work() and not turn.is_of_suspect:
                self._ahead = self._trainer.submit(self._turn)
            written = [self._savers.submit(write) for write in turn.files]
            wait(written)  # for all of them: after a fault, nothing goes on behind it
            return [*turn.events, *(found for each in written if (found := each.result()))]
        finally:
            self._saving = Pulse()

    def _turn(self) -> Turn:
        """Read the commands and train one epoch of one pack; in the thread that trains."""
        self._now = turn = Turn()
        self._doing = Pulse(is_idle=False)
        try:
            turn.events += self._read_commands()
            chosen = self._turns.next(self._packs.groups)
            if chosen is not None:
                turn.events += self._train(*chosen)
            turn.doing = self._doing
            return turn
        finally:
            self._doing = Pulse()

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
            # Extend and Stop may come after the trial's end, which their sender did not know of.
            case Extend(trial=trial, until_epoch=until_epoch):
                if found := self._packs.find(trial):
                    found[1].until_epoch = max(found[1].until_epoch, until_epoch)
                return []
            case Stop(trial=trial):
                found = self._packs.find(trial)
                return self._end(found[0], trial, "pruned") if found else []
            case Test():
                return self._test(command)
            case Limit(members=members):
                self._turns.together = members
                return []

    def _sign(self) -> None:
        """Show that work goes on."""
        self._signs += 1

    def _submit(self, command: Submit) -> list[Event]:
        trial = command.trial
        try:
            config = TrialConfig.from_flat(command.params, place=f"trial {trial}")
            group, member, note = self._load(trial, config, command.parent)
        except TcpaError as err:
            self._raise_if_of_machine(err)
            result = TrialResult(status="failed", reason=str(err), device=self._device)
            return [Ended(trial=trial, result=result)]
        group.jobs[trial] = Job(
            member, command.until_epoch, command.test_at_end, command.alone, command.keep_every
        )
        started = Started(
            trial=trial,
            device=self._device,
            epoch=member.epoch,
            preprocessing=group.pack.backbone.preprocessing(config.data).as_dict(),
            note=note,
            costs=group.pack.costs(member) if command.tells_costs else None,
        )
        # What was trained before may not have arrived: its receiver drops what it knows.
        told = [Epoch(trial=trial, report=report) for report in member.reports]
        return [started, *told, *self._finish(group)]

    def _raise_if_of_machine(self, err: TcpaError) -> None:
        """Raise an error that another trial would meet here, too, and this one nowhere else."""
        if isinstance(err, DeviceError | NodeError):
            raise err
        if getattr(err.__cause__, "errno", None) in StorageError.ERRNOS:
            raise StorageError(f"{err} Then 'tcpa resume'.") from err
        if isinstance(err, DataError | WeightsError):
            self._expected.check_again(self._packs.stand_ins, self._cache_dir, self._sign)

    def _load(
        self, trial: str, config: TrialConfig, parent: Parent | None
    ) -> tuple[Group, Member, str]:
        """The group of a trial, the trial as it stands, and what there is to say about that.

        Args:
            parent: What it begins from where it has no checkpoint; None: from its seed.

        Raises:
            DeviceError: Others have filled the device.
            NodeError: Data or weights are not those that the study was planned with.
            TcpaError: Any other is the trial's fault: its settings, files, methods or size.
            Exception: The device has failed.
        """

        folder = self._checkpoints / trial

        def load() -> tuple[Group, Member, str]:
            group = self._packs.group(config)
            data, backbone = group.pack.data, group.pack.backbone
            self._expected.check_loaded(config, data.fingerprint, backbone.fingerprint)

            def begin() -> Member:
                if parent is None:
                    return group.pack.new_member(trial, config)
                return begun_member(folder, trial, config, parent)

            return group, *restored_or_new(folder, trial, config, begin)

        try:
            return retry_with_room(load, self._packs.make_room)
        except TcpaError:
            raise
        except Exception as err:
            if is_device_fault(err):
                raise
            raise cannot_begin(err, f"trial {trial}", config, torch.device(self._device)) from err

    def _test(self, command: Test) -> list[Event]:
        """Score a trial, or say why that cannot be done: nothing else depends on it."""
        trial = command.trial
        try:
            config = TrialConfig.from_flat(command.params, place=f"trial {trial}")
            group, member, scored = retry_with_room(
                lambda: self._score(trial, config), self._packs.make_room
            )
        except DamagedCheckpointError as err:
            last = self._checkpoints / trial / LAST
            what = f"cannot be read ({err.__cause__})" if last.exists() else "is missing"
            reason = f"{last} {what}; restore that file"
        except TcpaError as err:
            self._raise_if_of_machine(err)
            reason = str(err)
        except Exception as err:
            if is_device_fault(err):
                raise
            reason = describe(err)
        else:
            self._keep_predictions(group, [member], [scored])
            return [scored.tested(trial)]
        return [Tested(trial=trial, test_loss=None, test_accuracy=None, reason=reason)]

    def _score(self, trial: str, config: TrialConfig) -> tuple[Group, Member, Scored]:
        group = self._packs.group(config)
        data, backbone = group.pack.data, group.pack.backbone
        self._expected.check_loaded(config, data.fingerprint, backbone.fingerprint)
        member = restore_member(self._checkpoints / trial, trial, config)
        return group, member, group.pack.test([member])[0]

    def _keep_predictions(
        self, group: Group, members: Sequence[Member], scored: Sequence[Scored]
    ) -> None:
        """Have written what members that are scored take each image for."""
        folders = [self._checkpoints / member.trial for member in members]
        retry = partial(retry_with_room, make_room=lambda: self._packs.make_room(group))
        for write in writing_predictions(group.pack, members, scored, folders, retry):
            self._now.files.append(partial(_or_notice, write))

    def _train(self, group: Group, jobs: list[Job]) -> list[Event]:
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
            outcomes = retry_with_room(
                lambda: group.pack.run_epoch(members), lambda: self._packs.make_room(group)
            )
        except Exception as err:
            if is_device_fault(err):
                raise  # it may have spoilt the process for everybody
            fault = err.with_traceback(None)  # whose frames hold on to what the epoch needed
        if fault is not None:
            return self._recover(group, jobs, fault)
        group.longest_s = max(group.longest_s or 0.0, time.perf_counter() - started)
        self._now.is_of_suspect = any(job.alone for job in jobs)
        events: list[Event] = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.alone = False
            if isinstance(outcome, Diverged):
                trial = job.member.trial
                events += self._end(group, trial, "failed", reason=outcome.reason)
            else:
                job.member = outcome
        return [*events, *self._save_due(), *self._finish(group)]

    def _save_due(self) -> list[Event]:
        """Have all trials written, of whatever group, whose time it is."""
        events: list[Event] = []
        for group in self._packs.groups:
            for job in group.jobs.values():
                rests = job.is_to_keep or not job.may_train
                if job.saved.is_due(job.member, rests=rests):
                    events += self._save(group, job)
                elif job.saved.epoch < job.member.epoch and not group.has_told_size:
                    group.has_told_size = True
                    events.append(_notice_of_size(job.member))
        return events

    def _save(self, group: Group, job: Job) -> list[Event]:
        """Have a trial written and then told: what the journal knows can be taken up again."""
        member, told = job.member, job.saved.epoch
        job.saved.note(member)
        save = partial(save_member, keep=True) if job.is_to_keep else save_member
        self._now.files.append(self._writing(save, group, member))
        new = (report for report in member.reports if report.epoch > told)
        return [Epoch(trial=member.trial, report=report) for report in new]

    def _end(
        self,
        group: Group,
        trial: str,
        status: Status,
        *,
        reason: str = "",
        test: Scored | None = None,
    ) -> list[Event]:
        """Let a trial go once all that it has trained is written."""
        job = group.jobs[trial]
        events = self._save(group, job) if job.saved.is_due(job.member, rests=True) else []
        if not job.member.is_done:  # else `save_member` does it
            self._now.files.append(self._writing(save_selected, group, job.member))
        return [*events, group.end(trial, status, reason=reason, test=test)]

    def _writing(
        self, save: Callable[..., None], group: Group, member: Member
    ) -> Callable[[], None]:
        folder, pack = self._checkpoints / member.trial, group.pack
        return partial(save, member, folder, pack.backbone, pack.data)

    def _recover(self, group: Group, jobs: list[Job], fault: Exception) -> list[Event]:
        trials = [job.member.trial for job in jobs]
        found = recover(group, jobs, fault, f"{self._device} on {platform.node()}")
        if isinstance(found, GiveUp):
            if is_out_of_memory(fault) and is_filled_by_others(torch.device(self._device)):
                raise DeviceError(found.reason)
            return self._end(group, trials[0], "failed", reason=found.reason)
        if found.notice is None:
            return []
        return [Notice(text=found.notice, trials=trials)]

    def _finish(self, group: Group) -> list[Event]:
        """Complete the jobs of a pack that have trained their last epoch."""
        done = [job for job in group.jobs.values() if job.member.is_done]
        to_test = [job.member for job in done if job.test_at_end]
        scores = retry_with_room(
            lambda: group.pack.test(to_test) if to_test else [],
            lambda: self._packs.make_room(group),
        )
        if to_test:
            self._keep_predictions(group, to_test, scores)
        tested = {m.trial: score for m, score in zip(to_test, scores, strict=True)}
        return [
            event
            for job in done
            for event in self._end(
                group, job.member.trial, "completed", test=tested.get(job.member.trial)
            )
        ]


def _or_notice(write: Callable[[], str]) -> Notice | None:
    text = write()
    return Notice(text=text) if text else None


def _notice_of_size(member: Member) -> Notice:
    size = f"{nbytes(member) / 1e9:.1f} GB"
    return Notice(
        text=f"a checkpoint of trial {member.trial} has {size}: as long as such trials train on, "
        f"they are saved and told every {LARGE_EVERY_S / 60:.0f} minutes at most; what was trained "
        "since is lost where a worker is",
        trials=[member.trial],
    )
