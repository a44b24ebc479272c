"""A study on disk: folder, lock, description and journal. One writer, the driver."""

import json
import os
import platform
import re
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import yaml

from search.study.address import local_folder, recorded_uri
from search.study.lock import Driver, DriverLock
from spaces.load import stored_space
from spaces.reader import read_stored
from spaces.space import Space
from tcpa_core.errors import RecordError, StorageError, StudyError, nearest
from tcpa_core.record.events import (
    SCHEMA_VERSION,
    Event,
    Extended,
    decode_line,
    encode_line,
    read_journal,
)
from tcpa_core.record.state import StudyState

_DESCRIBED = {"kind": str, "space": dict, "fingerprints": dict, "tracking_uri": str}
"""What study.yaml must say for a driver to go on with the study."""
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_NAME_RULE = "study name must be 1 to 64 of a-z, 0-9, _ and -"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PACKAGES = ("tcpa-search", "torch", "timm", "torchvision", "ray", "optuna", "mlflow", "numpy")


def trial_name(number: int) -> str:
    """Name of a study's trial by its place in the plan, from 0."""
    return f"{number:05d}"


def named_trial(text: str) -> str:
    """The name of a trial that a user may have written as a number, "3" for "00003"."""
    return trial_name(int(text)) if re.fullmatch("[0-9]{1,18}", text) else text


class Journal:
    """Append-only record of a study; a line is on disk before `append` returns.

    Safe to call from several threads of the driver. Opening drops a torn last line, which a killed
    writer never acknowledged.

    Raises:
        RecordError: A line other than the last is damaged.
        StorageError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dropped_bytes = 0
        """Length of a torn last line that was cut off; 0: the journal was whole."""
        self._lock = threading.Lock()
        self._next = 0
        # Time passes within one driver as it does, whoever sets the clock.
        self._epoch = time.time() - time.monotonic()
        if path.exists():
            whole = self._whole_length()
            self.dropped_bytes = path.stat().st_size - whole
            if self.dropped_bytes:
                os.truncate(path, whole)
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as err:
            raise StorageError.of(path, err) from err

    def append(self, *events: Event) -> list[Event]:
        """Write events with one flush to disk.

        Returns:
            The events as written: with their numbers and times.
        """
        with self._lock:
            now = self.now()
            stamped = [replace(event, n=n, t=now) for n, event in enumerate(events, self._next)]
            lines = [encode_line(event.as_dict()) for event in stamped]
            size = self._file.tell()
            try:
                data = memoryview(b"".join(lines))
                while data:  # a disk that becomes full takes a part without an error
                    data = data[self._file.write(data) :]
                os.fsync(self._file.fileno())
            except OSError as err:
                with suppress(OSError):  # no half line: what follows would be unreadable
                    self._file.truncate(size)
                raise StorageError.of(self.path, err) from err
            self._next += len(lines)
        return stamped

    def now(self) -> float:
        """The time that an event would get: Unix time in seconds."""
        return round(self._epoch + time.monotonic(), 3)

    def close(self) -> None:
        """Close the file; nothing can be appended any more."""
        self._file.close()

    def _whole_length(self) -> int:
        """Bytes up to the end of the last whole line."""
        length = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    decode_line(line, f"{self.path.name}:{number}")
                except RecordError:
                    if line.endswith(b"\n"):
                        raise
                    break
                length += len(line)
                self._next = number
        return length


class StudyDir:
    """The folder ROOT/STUDY. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = DriverLock(path / "driver.lock", path.name)

    @property
    def name(self) -> str:
        """The study's name: that of its folder."""
        return self.path.name

    @property
    def journal_path(self) -> Path:
        """The append-only record."""
        return self.path / "journal.jsonl"

    @classmethod
    def check_free(cls, root: Path, name: str) -> Path:
        """The folder that a new study would get.

        Raises:
            StudyError: The name is no file name, is taken, or `root` cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise StudyError(f"{_NAME_RULE}, got {name!r}; give another one with --study.")
        root = local_folder(root)
        path = root / name
        _refuse_link(path)
        if path.exists():
            raise StudyError(
                f"study {name!r} exists already in {root}; continue it with 'tcpa resume {name}' "
                "or choose another name with --study."
            )
        parent = next(p for p in (root, *root.absolute().parents) if os.path.exists(p))
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise StudyError(f"--root: {parent} cannot be written; choose a folder of yours.")
        return path

    @classmethod
    def create(
        cls,
        root: Path,
        name: str,
        space: Space,
        fingerprints: Mapping[str, str],
        tracking_uri: str,
        data: Sequence[Mapping[str, Any]] = (),
        *,
        preprocessing: Sequence[Mapping[str, Any]] = (),
    ) -> Self:
        """Make the folder with its study.yaml.

        Args:
            fingerprints: Identities of data and weights.
            tracking_uri: Where MLflow mirrors it, without secrets; "": the database of `root`.
            data: What is in each data set (`DataSummary.as_dict`), and the settings that choose it.
            preprocessing: What becomes of images in front of each backbone.

        Raises:
            StudyError: As `check_free`, or the disk is full.
        """
        study = cls(cls.check_free(root, name))
        document = {
            "schema": SCHEMA_VERSION,
            "name": name,
            "id": uuid.uuid4().hex,
            "kind": "ablation" if space.ablation else "search",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {"python": platform.python_version(), **versions()},
            "git": _git_state(),
            "space": space.as_dict(),
            "fingerprints": dict(fingerprints),
            "data": list(data),
            "preprocessing": [dict(one) for one in preprocessing],
            "tracking_uri": recorded_uri(tracking_uri, root),
        }
        try:
            study.path.mkdir(parents=True)
            study._write_document(document)
        except OSError as err:
            shutil.rmtree(study.path, ignore_errors=True)
            raise StudyError(
                f"{study.path} cannot be written ({err.strerror or err}); make room or give "
                "another folder with --root."
            ) from err
        return study

    @classmethod
    def open(cls, root: Path, name: str) -> Self:
        """An existing study.

        Raises:
            StudyError: There is none of that name.
        """
        root = local_folder(root)
        study = cls(root / name)
        if not _NAME.fullmatch(name) or not os.path.isfile(study.path / "study.yaml"):
            raise StudyError(_why_none(root, name))
        _refuse_link(study.path)
        journal = study.journal_path
        if journal.exists() and not (journal.is_file() and os.access(journal, os.R_OK)):
            raise StudyError(f"{journal} is no file that can be read; restore it or its rights.")
        return study

    def document(self) -> dict[str, Any]:
        """study.yaml as plain values, with an "id" also where an earlier version gave none."""
        loaded = read_stored(self.path / "study.yaml")
        if not isinstance(loaded, dict) or loaded.get("schema") != SCHEMA_VERSION:
            raise RecordError(f"{self.path}/study.yaml is not a valid study description.")
        for name, kind in _DESCRIBED.items():
            if not isinstance(loaded.get(name), kind):
                raise RecordError(
                    f"{self.path}/study.yaml is not a valid study description: it lacks {name!r}."
                )
        return {**loaded, "id": study_id(loaded)}

    def space(self) -> Space:
        """The space as it was resolved when the study was made."""
        return stored_space(self.document()["space"], source=f"study {self.name}")

    def fingerprints(self) -> dict[str, str]:
        """Identities of the data and weights that the study goes on with: the last accepted."""
        document = self.document()
        found: dict[str, str] = dict(document["fingerprints"])
        for change in document.get("accepted_changes", ()):
            found |= change["found"] if change["study"] == self.name else {}
        return found

    def accept_change(self, change: Mapping[str, Any]) -> None:
        """Record that the study goes on with other data or weights.

        Trials keep the identity that the study gives them, so that a design is not begun anew.

        Args:
            change: What differed, as `search.study.identity.Change` has it; of this study, or of
                the one that it was made from.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.lock()
        try:
            document = self.document()
            document.setdefault("accepted_changes", []).append({"at": at, **change})
            self._write_document(document)
        except OSError as err:
            raise StorageError.of(self.path, err) from err
        finally:
            self.unlock()

    def extend(self, trials: int) -> None:
        """Allow a search more trials; 'tcpa resume' then goes on.

        Raises:
            StudyError: It is an ablation, has no limit of trials, or another driver runs it.
        """
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
            self._write_document(document)
            journal = Journal(self.journal_path)
            try:
                journal.append(Extended(trials=trials))
            finally:
                journal.close()
        except OSError as err:
            raise StorageError.of(self.path, err) from err
        finally:
            self.unlock()

    def driver(self) -> Driver | None:
        """The driver that runs the study now; None: nobody does."""
        return self._lock.holder()

    def is_held_by(self, driver: Driver) -> bool:
        """Whether a process here holds the lock as that driver: other containers count anew."""
        return self._lock.is_open_in(driver.pid)

    def _write_document(self, document: Mapping[str, Any]) -> None:
        text = yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False)
        temporary = self.path / ".study.yaml"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.path / "study.yaml")

    def events(self) -> Iterator[Event]:
        """The journal's events in order; none before the first driver started."""
        if self.journal_path.exists():
            yield from read_journal(self.journal_path)

    def state(self, metric: str | None = None) -> StudyState:
        """What the journal says, as of `StudyState`.

        Raises:
            RecordError: It is damaged.
        """
        return StudyState.of(self.events(), metric)

    @property
    def has_ended(self) -> bool:
        """Whether the last event says that nothing is left to run."""
        return self.state().is_finished

    def lock(self) -> str:
        """Become the study's only driver until `unlock` or the end of the process.

        Returns:
            A sentence where the lock of a dead driver was taken over, else "".

        Raises:
            StudyError: Another driver runs; it is named.
            StorageError: The folder cannot be written.
        """
        return self._lock.take()

    def unlock(self) -> None:
        """Let another driver take over."""
        self._lock.release()

    @property
    def lost_to(self) -> Driver | None:
        """Who took the study from this driver, because it showed no sign of life for too long."""
        return self._lock.lost_to


def study_id(document: Mapping[str, Any]) -> str:
    """What tells a study from every other, whatever their names: 32 hex digits.

    Args:
        document: Its study.yaml. One that an earlier version wrote without an id has the same one
            at every look: a hash of all that it says.

    Raises:
        RecordError: It has one that could not be written by this package.
    """
    text = json.dumps(document, sort_keys=True)
    found = document.get("id") or uuid.uuid5(uuid.NAMESPACE_OID, text).hex
    if not _ID.fullmatch(str(found)):
        raise RecordError(
            f"study.yaml: {found!r} is no id of a study (1 to 64 letters, digits, _ and -)."
        )
    return str(found)


def _why_none(root: Path, name: str) -> str:
    """Why a root has no study of a name, and which one may be meant."""
    known = sorted(p.parent.name for p in root.glob("*/study.yaml")) if root.is_dir() else []
    if name in known:
        return f"{root / name}: {_NAME_RULE}, got {name!r}; rename the folder."
    if _NAME.fullmatch(name) and os.path.isfile(root / name / "journal.jsonl"):
        return f"{root / name} has a journal but no study.yaml; restore the file."
    listed = f" Studies there: {', '.join(known)}." if known else ""
    return f"no study {name!r} in {root}{nearest(name, known)}.{listed}"


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise StudyError(
            f"{path} is a symbolic link; a study is a folder of its own. Give the folder in which "
            "it really lies with --root."
        )


def _a(kind: str) -> str:
    return "an ablation" if kind == "ablation" else f"a {kind}"


def versions() -> dict[str, str]:
    """Installed versions of this package and of those that change results or records."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_state() -> str:
    """Commit of the code that runs, with "+" when it was changed; "" outside a checkout."""
    command: Sequence[str] = ("git", "describe", "--always", "--dirty=+", "--abbrev=12")
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
