"""A study on disk: its folder, description, journal and lock. One writer, the driver."""

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from search.study.address import below, local_folder, recorded_uri
from search.study.description import (
    Description,
    new_description,
    read_description,
    write_description,
)
from search.study.journal import Journal
from search.study.lock import SAID_S, Driver, DriverLock
from search.study.outline import Outline
from search.study.storage import SHORT_PATIENCE_S, Storage, fetch_folder, refused_by_name
from search.study.storage_keeper import StorageKeeper
from search.study.storage_lock import StorageLock
from spaces.load import stored_space
from spaces.space import Space
from tcpa_core.errors import (
    RecordError,
    RunningError,
    StorageError,
    StudyError,
    TakenError,
    nearest,
)
from tcpa_core.record import files
from tcpa_core.record.events import Event, Extended, read_journal
from tcpa_core.record.state import StudyState

_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_UNFINISHED = f".{files.DESCRIPTION}"
"""What `write_description` leaves if it is killed."""
_NAME_RULE = "study name must be 1 to 64 of a-z, 0-9, _ and -"


def trial_name(number: int) -> str:
    """Name of a study's trial by its place in the plan, from 0."""
    return f"{number:05d}"


def named_trial(text: str) -> str:
    """The name of a trial that a user may have written as a number, "3" for "00003"."""
    return trial_name(int(text)) if re.fullmatch("[0-9]{1,18}", text) else text


def check_name(name: str) -> None:
    """Refuse what no study can be called.

    Raises:
        StudyError: It is no such name.
    """
    if not _NAME.fullmatch(name):
        raise StudyError(f"{_NAME_RULE}, got {name!r}; give another one with --study.")


class StudyDir:
    """The folder ROOT/STUDY. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = DriverLock(path / files.LOCK, path.name)
        self._keeper: StorageKeeper | None = None
        self._storage: str | None = None

    @property
    def name(self) -> str:
        """The study's name: that of its folder."""
        return self.path.name

    @property
    def journal_path(self) -> Path:
        """The append-only record."""
        return self.path / files.JOURNAL

    @property
    def storage(self) -> str | None:
        """Storage address of the studies that this one belongs to; None: it lies here alone."""
        if self._storage is None and os.path.isfile(self.path / files.DESCRIPTION):
            with suppress(RecordError):  # whoever needs the description says what is wrong with it
                self._storage = self.document().get("storage")
        return self._storage

    @storage.setter
    def storage(self, address: str) -> None:
        self._storage = address

    @property
    def address(self) -> str | None:
        """The study's own storage address."""
        return below(self.storage, self.name) if self.storage else None

    @classmethod
    def check_free(cls, root: Path, name: str, storage: str | None = None) -> Path:
        """The folder that a new study would get.

        A folder of that name in which nothing is yet is free: its maker was killed.

        Args:
            storage: Address in which the study is to lie, too.

        Raises:
            TakenError: There is a study of that name.
            StudyError: The name is not a valid one, something else has it, or `root` cannot be
                written, or refuses the storage.
            StorageError: The storage does not answer.
        """
        check_name(name)
        root = local_folder(root)
        path = root / name
        _refuse_link(path)
        if os.path.isfile(path / files.DESCRIPTION):
            raise TakenError(
                f"study {name!r} exists already in {root}; continue it with --resume or 'tcpa "
                f"resume {name}', or choose another name with --study."
            )
        if path.exists() and (why := _why_not_free(path)):
            raise StudyError(why)
        # The root may not exist yet: what counts is the folder in which it would be made.
        parent = next(p for p in (root, *root.absolute().parents) if os.path.exists(p))
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise StudyError(f"--root: {parent} cannot be written; choose a folder of yours.")
        if storage:
            _check_free_in(storage, name)
        return path

    @classmethod
    def create(
        cls,
        root: Path,
        name: str,
        space: Space,
        fingerprints: Mapping[str, str],
        tracking_uri: str,
        images: Mapping[str, Any] | None = None,
        storage: str | None = None,
    ) -> Self:
        """Make the folder with its study.yaml; of several commands that try, one makes it.

        Args:
            fingerprints: Identities of data and weights.
            tracking_uri: Where MLflow mirrors it, without secrets; "": the database of `root`.
            images: "data", what is in each data set (`DataSummary.as_dict`) and the settings that
                choose it; "preprocessing", what becomes of images in front of each backbone;
                of a confirmation "confirms".
            storage: Address in which the study lies, too, without secrets.

        Raises:
            TakenError: There is a study of that name, perhaps since a moment ago.
            StudyError: As `check_free`, or the disk is full.
        """
        study = cls(cls.check_free(root, name, storage))
        # Whole before it has its name: nobody meets a part of it, and only one can be moved there.
        made = study.path.with_name(f".{name}.{uuid.uuid4().hex[:8]}")
        recorded = {
            "fingerprints": dict(fingerprints),
            **{"data": [], "preprocessing": [], **(images or {})},
            "tracking_uri": recorded_uri(tracking_uri, root),
            **({"storage": storage} if storage else {}),
        }
        try:
            made.mkdir(parents=True)
            write_description(made, new_description(name, space, recorded))
            (study.path / _UNFINISHED).unlink(missing_ok=True)
            made.rename(study.path)
            if study.address:
                _send_first(study)
        except OSError as err:
            if err.errno in (errno.ENOTEMPTY, errno.EEXIST):
                cls.check_free(root, name)  # says what has been there first
            raise StudyError(
                f"{study.path} cannot be written ({err.strerror or err}); make room or give "
                "another folder with --root."
            ) from err
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return study

    @classmethod
    def open(cls, root: Path, name: str) -> Self:
        """An existing study.

        Raises:
            StudyError: There is none of that name.
        """
        root = local_folder(root)
        study = cls(root / name)
        if not _NAME.fullmatch(name) or not os.path.isfile(study.path / files.DESCRIPTION):
            raise StudyError(_why_none(root, name))
        _refuse_link(study.path)
        # A folder or a file of somebody else's there would fail later, in the middle of a verb.
        journal = study.journal_path
        if journal.exists() and not (journal.is_file() and os.access(journal, os.R_OK)):
            raise StudyError(f"{journal} is not a file that can be read; restore it or its rights.")
        return study

    def document(self) -> Description:
        """study.yaml as plain values.

        Raises:
            RecordError: It lacks something, or is of another schema.
        """
        return read_description(self.path)

    def space(self) -> Space:
        """The space as it was resolved when the study was made."""
        return stored_space(self.document()["space"], source=f"study {self.name}")

    def outline(self) -> Outline:
        """What a look at the study needs of that space; the rest of it is not checked.

        Raises:
            ConfigError: The space is damaged where it was read.
        """
        document = self.document()
        known = {"most_trials": document.get("most_trials")}
        try:
            return Outline.model_validate({**document["space"], **known})
        except ValidationError:  # as an earlier version wrote it; else `space` says what is wrong
            return Outline.model_validate({**self.space().as_dict(), **known})

    def fingerprints(self) -> dict[str, str]:
        """Identities of the data and weights that the study goes on with: the last accepted."""
        document = self.document()
        found: dict[str, str] = dict(document["fingerprints"])
        for change in document.get("accepted_changes", ()):
            found |= change["found"] if change["study"] == self.name else {}
        return found

    def extend(self, trials: int) -> None:
        """Allow a search more trials; 'tcpa resume' then goes on.

        Raises:
            StudyError: It is an ablation, has no limit of trials, or another driver runs it.
        """
        # Refused before the lock is taken: what is wrong stays wrong whoever runs the study.
        document = self.document()
        budget = document["space"].get("budget", {})
        if document["kind"] != "search" or budget.get("trials") is None:
            raise StudyError(
                f"{self.name} has no budget of trials to extend (it is {_a(document['kind'])}); "
                "only a search with budget.trials can be extended."
            )
        self.lock()
        try:
            budget["trials"] += trials
            write_description(self.path, document)
            journal = Journal(self.journal_path)
            try:
                journal.append(Extended(trials=trials))
            finally:
                journal.close()
            self.send()
        except OSError as err:
            raise StorageError.of(self.path, err) from err
        finally:
            self.unlock()

    def driver(self) -> Driver | None:
        """The driver that runs the study now; None: nobody does."""
        found = self._lock.holder()
        if found is None and self.address:
            return StorageLock(Storage(self.address, SHORT_PATIENCE_S), self.name).holder()
        return found

    def idle(self) -> AbstractContextManager[bool]:
        """Keep drivers of this folder away while it is changed; False: one runs."""
        return self._lock.idle()

    def is_held_by(self, driver: Driver) -> bool:
        """Whether a process here holds the lock as that driver; a container has its own pids."""
        return self._lock.is_open_in(driver.pid)

    def events(self) -> Iterator[Event]:
        """The journal's events in order; none before the first driver started."""
        if self.journal_path.exists():
            yield from read_journal(self.journal_path)

    def state(self, metric: str | None = None, others: Sequence[str] = ()) -> StudyState:
        """What the journal says, as of `StudyState`.

        Raises:
            RecordError: It is damaged.
        """
        return StudyState.of(self.events(), metric, others)

    def trial_folder(self, trial: str) -> Path:
        """The folder of a trial's checkpoints, with those that lie in the study's storage.

        Raises:
            StorageError: The storage does not answer.
        """
        folder = self.path / files.CHECKPOINTS / trial
        if self.address:
            there = Storage(self.address, SHORT_PATIENCE_S)
            fetch_folder(there, f"{files.CHECKPOINTS}/{trial}", folder)
        return folder

    def lock(self, say: Callable[[str], None] = lambda text: None) -> str:
        """Become the study's only driver until `unlock` or the end of the process.

        A study that lies in a storage is kept there from here on.

        Args:
            say: Called with a sentence when it takes long.

        Returns:
            A sentence where the lock of a dead driver was taken over, else "".

        Raises:
            RunningError: Another driver runs; it is named.
            StorageError: The folder cannot be written, or the storage does not answer.
        """
        return self._kept(self._lock.take(), say)

    def send(self) -> None:
        """Bring the storage of a study that lies in one up to date; it is locked.

        Raises:
            StorageError: The storage does not answer.
        """
        if self._keeper:
            self._keeper.send()

    def taken_over_by(self) -> Driver | None:
        """As `lost_to`; asked before every event that is recorded.

        Raises:
            StorageError: The storage has not answered for too long.
        """
        if self._keeper and self._keeper.failure:
            raise self._keeper.failure
        return self.lost_to

    @contextmanager
    def held(
        self, wait_s: float = 0.0, say: Callable[[str], None] = lambda line: None
    ) -> Iterator[None]:
        """Be the study's only driver meanwhile, as of `DriverLock.take_when_free`."""
        until, said = time.monotonic() + wait_s, 0.0
        self._lock.take_when_free(wait_s, say)
        while True:
            try:
                self._kept("", say)
                break
            except RunningError as err:  # on another host, as the storage says
                if time.monotonic() >= until:
                    raise
                if time.monotonic() - said >= SAID_S:
                    said = time.monotonic()
                    say(f"waiting: {err}")
            self._lock.take_when_free(wait_s, say)
        try:
            yield
        finally:
            self.unlock()

    def _kept(self, note: str, say: Callable[[str], None]) -> str:
        """Keep the study in its storage from here on, if it lies in one; its lock is ours.

        Args:
            note: What was taken over by the lock of the folder.

        Returns:
            The same, or what was taken over by the lock in the storage.

        Raises:
            RunningError: A driver of another host runs; the lock is given back.
            StorageError: The storage does not answer; the lock is given back.
        """
        try:
            if self.address and self._keeper is None and self._lock.me:
                keeper = StorageKeeper(self.path, Storage(self.address))
                # Who had the lock of this very folder, which its death has freed, is dead.
                before = self._lock.before
                keeper.begin(self._lock.me, lambda other: other == before, say)
                self._keeper = keeper
        except BaseException:
            self._lock.release()
            raise
        return (self._keeper.taken_over if self._keeper else "") or note

    def unlock(self) -> None:
        """Let another driver take over."""
        if self._keeper and self._lock.depth == 1:
            self._keeper.end()
            self._keeper = None
        self._lock.release()

    @property
    def lost_to(self) -> Driver | None:
        """Who took the study from this driver, because it showed no sign of life for too long."""
        return self._lock.lost_to or (self._keeper.lost_to if self._keeper else None)


def _why_none(root: Path, name: str) -> str:
    """Why a root has no study of a name, and which one may be meant."""
    found = root.glob(f"*/{files.DESCRIPTION}") if root.is_dir() else ()
    known = sorted(p.parent.name for p in found if not p.parent.name.startswith("."))
    if name in known:
        return f"{root / name}: {_NAME_RULE}, got {name!r}; rename the folder."
    if _NAME.fullmatch(name) and os.path.isfile(root / name / files.JOURNAL):
        return f"{root / name} has a journal but no study.yaml; restore the file."
    listed = f" Studies there: {', '.join(known)}." if known else ""
    return f"no study {name!r} in {root}{nearest(name, known)}.{listed}"


def _why_not_free(path: Path) -> str:
    """Why a folder without a study.yaml cannot become a study; "": it can."""
    if os.path.isfile(path / files.JOURNAL):
        return _why_none(path.parent, path.name)
    what = "is not a folder"
    if path.is_dir():
        found = sorted(set(os.listdir(path)) - {_UNFINISHED})
        if not found:
            return ""
        what = f"holds {', '.join(found[:3])} and no study"
    return f"{path} {what}; remove it or choose another name with --study."


def _check_free_in(storage: str, name: str) -> None:
    with refused_by_name():
        found = Storage(below(storage, name), SHORT_PATIENCE_S).stat(files.DESCRIPTION)
    if found:
        raise TakenError(
            f"study {name!r} exists already in {storage}; continue it with --resume or 'tcpa "
            f"resume {name} --storage {storage}', or choose another name with --study."
        )


def _send_first(study: StudyDir) -> None:
    """Put a study that was made into its storage; where that cannot be, it was not made."""
    try:
        with refused_by_name():
            there = Storage(str(study.address), SHORT_PATIENCE_S)
            there.send(study.path / files.DESCRIPTION, files.DESCRIPTION)
    except StudyError:
        shutil.rmtree(study.path, ignore_errors=True)
        raise


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise StudyError(
            f"{path} is a symbolic link; a study is a folder of its own. Give the folder in which "
            "it really lies with --root."
        )


def _a(kind: str) -> str:
    return "an ablation" if kind == "ablation" else f"a {kind}"
