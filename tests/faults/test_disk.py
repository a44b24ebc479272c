"""Disks that are full or read-only: said at once, nothing recorded is damaged, and it goes on."""

import os
import resource
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from search.driver.driver import StudyOutcome, run_study
from search.driver.placement import Placement
from search.driver.ray_session import connect
from search.driver.recorder import Listener
from search.study.folder import StudyDir
from search.study.journal import Journal
from spaces.load import space_of
from tcpa_core.errors import StoppedError, StorageError
from tcpa_core.record.events import FINAL_KINDS, Event
from tcpa_core.training.commands import Submit
from tcpa_core.training.worker import Worker
from tests.journals import recorded, write
from tests.search.conftest import FACTORY

SPACE = space_of(
    {
        "name": "small",
        "base": {"methods": ["linear"], "train.epochs": 6},
        "axes": {"optim.lr": {"float": [1e-4, 1e-1], "log": True}},
        "sampler": {"name": "random"},
        "scheduler": {"name": "none"},
        "budget": {"trials": 12},
    }
)


class Disk:
    """A file system of its own, in memory."""

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        path.mkdir()
        self._run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))

    def fill(self, leave: int) -> None:
        """Leave so many bytes, rounded up to a page."""
        stat = os.statvfs(self.path)
        size = stat.f_bavail * stat.f_frsize - leave
        (self.path / "filler").write_bytes(b"x" * max(0, size))

    def make_room(self) -> None:
        (self.path / "filler").unlink()

    def make(self, how: str) -> None:
        """Let it be "ro" (read-only) or "rw", as soon as nobody is writing a file."""
        for _ in range(200):
            done = subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)])
            if not done.returncode:
                return
            time.sleep(0.01)
        raise AssertionError(f"{self.path} is always busy")

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=False)

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk", "12m")
    yield made
    made.close()


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may grow beyond a size: a write takes what fits, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def note(number: int) -> dict[str, Any]:
    return {"kind": "notice", "text": f"note {number} " + "x" * 40}


@pytest.mark.parametrize("room", [0, 1, 50, 100, 150])
def test_a_line_that_fits_in_part_leaves_no_part(tmp_path: Path, room: int) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    write(journal, note(0))
    whole = path.read_bytes()
    with files_up_to(len(whole) + room):
        with pytest.raises(StorageError, match=r"journal.jsonl cannot be written \(File too large"):
            write(journal, note(1), note(2))
    assert path.read_bytes() == whole
    write(journal, note(3))
    journal.close()
    found = recorded(path, allow_torn_tail=False)
    assert [(e["n"], e["text"][:6]) for e in found] == [(0, "note 0"), (1, "note 3")]


SETTINGS = {"methods": ["linear"], "train.epochs": 3, "train.batch_size": 512}


def drain(worker: Worker) -> list[dict[str, Any]]:
    events = []
    while not worker.idle:
        events += [event.as_dict() for event in worker.work()]
    return events


def test_a_checkpoint_that_cannot_be_written_is_no_fault_of_its_trial(
    tmp_path: Path, disk: Disk
) -> None:
    def worker(folder: Path) -> Worker:
        made = Worker(folder, tmp_path / "cache", "cpu")
        for seed, trial in enumerate(("a", "b")):
            made.take(Submit(trial=trial, params={**SETTINGS, "seed": seed}, until_epoch=3))
        return made

    undisturbed = drain(worker(tmp_path / "whole"))
    first = worker(disk.path)
    events = [event.as_dict() for event in first.work()]
    last = disk.path / "checkpoints" / "a" / "last.safetensors"
    before = last.read_bytes()
    disk.fill(leave=4096)
    with pytest.raises(StorageError, match=r"cannot be written \(No space left.*resume"):
        first.work()
    assert last.read_bytes() == before, "the last good state stays"
    assert not [path for path in last.parent.iterdir() if path.name.startswith(".")]
    disk.make("ro")
    with pytest.raises(StorageError, match="Read-only file system"):
        worker(disk.path).work()
    disk.make("rw")
    disk.make_room()
    events += drain(worker(disk.path))
    for trial in ("a", "b"):
        ends = [
            next(e for e in found if (e["trial"], e["kind"]) == (trial, "completed"))
            for found in (undisturbed, events)
        ]
        assert ends[0]["val_loss"] == ends[1]["val_loss"]


def test_a_cache_that_cannot_be_written_fails_no_trial(tmp_path: Path, disk: Disk) -> None:
    disk.fill(leave=0)
    worker = Worker(tmp_path / "study", disk.path / "cache", "cpu")
    worker.take(Submit(trial="a", params=SETTINGS, until_epoch=1))
    with pytest.raises(StorageError, match=r"cache folder .* \(No space .*TCPA_CACHE"):
        worker.work()
    disk.make_room()
    worker = Worker(tmp_path / "study", disk.path / "cache", "cpu")
    worker.take(Submit(trial="a", params=SETTINGS, until_epoch=1))
    assert [event["kind"] for event in drain(worker)] == ["started", "epoch"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connect(None, 2):
        yield


def run(study: StudyDir, *listeners: Listener) -> StudyOutcome:
    placement = Placement(workers=2, slots=3, worker_factory=FACTORY)
    return run_study(SPACE, study, placement=placement, listeners=listeners)


def after_epochs(count: int, fail: Callable[[], None]) -> Listener:
    """Something that happens while a study runs."""
    seen = 0

    def listen(event: Event) -> None:
        nonlocal seen
        seen += event.kind == "epoch"
        if seen == count and event.kind == "epoch":
            fail()

    return listen


@pytest.mark.integration
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("fault", ["journal and checkpoints full", "checkpoints read-only"])
def test_a_study_stops_and_goes_on_when_there_is_room(
    disk: Disk, tmp_path: Path, fault: str
) -> None:
    full = "full" in fault
    study = StudyDir.create(
        disk.path if full else tmp_path, "small", SPACE, {"data": "d", "weights": "w"}, ""
    )
    if not full:
        (study.path / "checkpoints").symlink_to(disk.path)
    (study.path / "stub.json").write_text('{"epoch_s": 0.1, "slots": 3}')
    fail = (lambda: disk.fill(leave=4096)) if full else (lambda: disk.make("ro"))
    with pytest.raises(StoppedError, match="cannot be written .*Make room .*resume") as caught:
        run(study, after_epochs(7, fail))
    says = "(No space left on device)" if full else "(Read-only file system)"
    assert says in str(caught.value) and "\n" not in str(caught.value)
    before = recorded(study.journal_path, allow_torn_tail=False)
    assert not [e for e in before if e["kind"] in ("failed", "pruned")]
    if full:
        disk.make_room()
    else:
        disk.make("rw")
    assert run(study).finished
    events = recorded(study)
    assert events[: len(before)] == before, "what was recorded stays"
    assert Counter(e["kind"] for e in events if e["kind"] in FINAL_KINDS) == {"completed": 12}
    epochs = Counter((e["trial"], e["epoch"]) for e in events if e["kind"] == "epoch")
    assert len(epochs) == 12 * 6 and set(epochs.values()) == {1}


def test_a_read_only_study_is_not_taken_up(disk: Disk) -> None:
    study = StudyDir.create(disk.path, "small", SPACE, {"data": "d", "weights": "w"}, "")
    disk.make("ro")
    with pytest.raises(StorageError, match=r"driver.lock cannot be written \(Read-only file"):
        run(study)
