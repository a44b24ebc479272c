"""Where a worker has the checkpoints of its trials, and how they come to where the study lies.

A node that shares the study's folder with the driver writes them there. Any other keeps them below
its cache folder while a trial is there, and carries them: to the driver's folder through Ray, or to
the study's storage. They are carried at the end of a trial, before that is told, when a worker
ends, and every now and then; a trial that goes on elsewhere finds them there. What a lost node had
trained since is trained again. What killed workers leave on a node is removed by the last one that
ends there (`search.workers.leftovers`).
"""

import platform
import shutil
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from search.study.storage import Storage, fetch_folder
from search.study.token import shares
from search.workers.leftovers import Presence, clear
from search.workers.reach import answer
from tcpa_core.errors import StorageError, StudyError
from tcpa_core.record.events import Ended, Epoch, Event, Tested
from tcpa_core.record.files import CHECKPOINTS, DESCRIPTION, LAST, state_after
from tcpa_core.training.commands import Command, Submit, Test

EVERY_S = 20.0
"""Between two times that checkpoints of trials which train on are carried."""
COST = 20
"""Carrying that takes a second is done every so many seconds at most."""
PART_BYTES = 16 * 2**20
"""Of a file that travels through Ray."""
FOLDER = "studies"
"""Below the cache folder of a node."""


class Carrier(Protocol):
    """Takes files of trials to where the study lies, and brings them from there."""

    def bring(self, trial: str, folder: Path, only: str | None = None) -> None:
        """Copy a trial's files to a folder of this node; nothing where there are none.

        Args:
            only: Name of the one that is copied; None: all are.
        """

    def keep(self, trial: str, path: Path) -> None:
        """Copy a file of a trial to the study, where it replaces the old one at once."""


class ThroughRay:
    """To the folder of the driver.

    Args:
        dispatcher: Handle of the study's dispatcher, which runs beside the driver.
    """

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher

    def bring(self, trial: str, folder: Path, only: str | None = None) -> None:
        """As of `Carrier`."""
        actor = self._dispatcher
        for name, size in answer(partial(actor.checkpoints.remote, trial)):
            if only not in (None, name):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f".{name}.brought"
            with temporary.open("wb") as file:
                while file.tell() < size:
                    place = (trial, name, file.tell())
                    file.write(answer(partial(actor.read_checkpoint.remote, *place)))
            temporary.replace(folder / name)

    def keep(self, trial: str, path: Path) -> None:
        """As of `Carrier`."""
        key = uuid.uuid4().hex
        data = memoryview(path.read_bytes())
        for start in range(0, max(1, len(data)), PART_BYTES):
            part = bytes(data[start : start + PART_BYTES])
            is_last = start + PART_BYTES >= len(data)
            given = (trial, path.name, key, start, part, is_last)
            answer(partial(self._dispatcher.write_checkpoint.remote, *given))


class ThroughStorage:
    """To the storage in which the study lies.

    Args:
        address: Of the study.

    Raises:
        StorageError: This node does not reach it.
        StudyError: It reaches another one by that address.
    """

    def __init__(self, address: str) -> None:
        self._storage = Storage(address)
        if self._storage.stat(DESCRIPTION) is None:
            raise StudyError(
                f"the study is not in {address} as this host sees it; give an address that means "
                "the same on every host"
            )

    def bring(self, trial: str, folder: Path, only: str | None = None) -> None:
        """As of `Carrier`."""
        if only is None:
            fetch_folder(self._storage, f"{CHECKPOINTS}/{trial}", folder)
        else:
            self._storage.fetch(f"{CHECKPOINTS}/{trial}/{only}", folder / only)

    def keep(self, trial: str, path: Path) -> None:
        """As of `Carrier`."""
        self._storage.send(path, f"{CHECKPOINTS}/{trial}/{path.name}")


class TrialFiles:
    """The folders of a worker's trials.

    Args:
        study_dir: A worker writes study_dir/checkpoints/<trial>/.
        carrier: Takes the files to the study; None: they lie there already.
        notice: What the user should know of that, said once for each host.
    """

    def __init__(self, study_dir: Path, carrier: Carrier | None = None, notice: str = "") -> None:
        self.study_dir = study_dir
        self.notice = notice
        self._carrier = carrier
        self._presence = Presence(study_dir)
        self._here: set[str] = set()
        """Trials with files on this node."""
        self._grown: set[str] = set()
        """Those that have trained since their files were carried."""
        self._keep_every: dict[str, int] = {}
        """Of trials from which others may begin: after how many epochs each."""
        self._kept: dict[Path, tuple[int, int]] = {}
        """Time and size of files as they were carried."""
        self._due = time.monotonic() + EVERY_S

    def bring(self, command: Command) -> None:
        """Have the files here that a command needs.

        Raises:
            StorageError: They cannot be read or written.
        """
        if self._carrier and isinstance(command, Submit | Test):
            self._here.add(command.trial)
            folder = self._folder(command.trial)
            try:
                self._presence.enter()
                self._carrier.bring(command.trial, folder)
                if isinstance(command, Submit):
                    self._prepare(command, folder)
            except OSError as err:
                raise StorageError.of(folder, err) from err

    def keep(self, events: Iterable[Event]) -> None:
        """Carry the files of trials that have ended, and now and then those of all others.

        Args:
            events: What has happened and is on this node's disk.

        Raises:
            StorageError: A file cannot be read or written.
        """
        if self._carrier is None:
            return
        for event in events:
            match event:
                case Epoch(trial=trial, report=report):
                    self._grown.add(trial)
                    # Others may begin from it, elsewhere, as soon as it is told.
                    if trial in self._keep_every and report.epoch % self._keep_every[trial] == 0:
                        self._keep(trial)
                case Ended(trial=trial) | Tested(trial=trial):
                    self._keep(trial)
                    self._remove(trial)
        if self._grown and time.monotonic() >= self._due:
            self._keep_grown()

    def close(self) -> None:
        """Carry what has not been, and leave nothing on the node: of killed workers neither.

        Raises:
            StorageError: A file cannot be read or written.
        """
        if self._carrier is None:
            return
        self._keep_grown()
        for trial in set(self._here):
            self._remove(trial)
        self._presence.leave()
        with suppress(OSError):  # the study has all that it needs
            clear(self.study_dir, self._carrier.bring)

    def _prepare(self, command: Submit, folder: Path) -> None:
        """Have what a trial begins from, and note which of its own states others may need."""
        assert self._carrier is not None
        if command.keep_every is not None:
            self._keep_every[command.trial] = command.keep_every
        parent = command.parent
        # Into its own folder: that of its parent goes when that one has ended here.
        if parent and not (folder / LAST).exists():
            self._carrier.bring(parent.trial, folder, only=state_after(parent.epoch))

    def _keep_grown(self) -> None:
        begun = time.monotonic()
        for trial in sorted(self._grown):
            self._keep(trial)
        now = time.monotonic()
        self._due = now + max(EVERY_S, COST * (now - begun))

    def _keep(self, trial: str) -> None:
        assert self._carrier is not None
        folder = self._folder(trial)
        try:
            names = sorted(path.name for path in folder.glob("[!.]*"))
            for name in sorted(names, key=LAST.__eq__):  # last, as a worker writes it
                path = folder / name
                stat = path.stat()
                mark = stat.st_mtime_ns, stat.st_size
                if self._kept.get(path) != mark:
                    self._carrier.keep(trial, path)
                    self._kept[path] = mark
        except OSError as err:
            raise StorageError.of(folder, err) from err
        self._grown.discard(trial)

    def _remove(self, trial: str) -> None:
        folder = self._folder(trial)
        shutil.rmtree(folder, ignore_errors=True)
        self._here.discard(trial)
        self._keep_every.pop(trial, None)
        self._kept = {path: mark for path, mark in self._kept.items() if path.parent != folder}

    def _folder(self, trial: str) -> Path:
        return self.study_dir / CHECKPOINTS / trial


@dataclass(frozen=True, slots=True)
class FilesSpec:
    """Where a study keeps its checkpoints."""

    study_id: str = ""
    storage: str | None = None
    """The study's address in a storage; None: they are kept in the driver's folder."""
    token: str = ""
    """File of that folder by which a node knows it; "": there is one node."""
    dispatcher: Any = None
    """Handle of the actor that a node without that folder asks."""
    home: str = ""
    """Host of the driver."""


def trial_files(study_dir: Path, cache_dir: Path | None, spec: FilesSpec) -> TrialFiles:
    """The folders of trials on this node.

    Args:
        study_dir: Folder of the study on the driver's host.
        cache_dir: As of `cache_root`.

    Raises:
        StorageError: The storage cannot be reached from here.
        StudyError: It is another one here.
    """
    from tcpa_core.data.base import cache_root  # loads torch, which the dispatcher does without

    here = cache_root(cache_dir).absolute() / FOLDER / spec.study_id
    if spec.storage:
        return TrialFiles(here, ThroughStorage(spec.storage))
    if not spec.token:
        return TrialFiles(study_dir)
    host = platform.node()
    if shares(study_dir, spec.token):
        notice = f"the study folder {study_dir} is on a path that hosts share: checkpoints go there"
        return TrialFiles(study_dir, notice="" if host == spec.home else notice)
    notice = (
        f"{host} does not share the study folder {study_dir} of {spec.home}: its checkpoints come "
        "back through Ray, at the end of a trial and every few seconds to minutes"
    )
    return TrialFiles(here, ThroughRay(spec.dispatcher), notice)
