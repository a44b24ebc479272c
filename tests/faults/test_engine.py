"""One driver, one clock, one folder: what a study takes for granted, and what it finds instead."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.driver.driver import run_study
from search.driver.placement import Placement
from search.driver.ray_session import connect
from search.study import lock as locking
from search.study.folder import StudyDir
from search.study.journal import Journal
from search.study.lock import DriverLock
from spaces.load import space_of
from tcpa_core.errors import RecordError, StoppedError, StorageError, StudyError
from tcpa_core.record.events import Event, encode_line
from tests.journals import recorded, write
from tests.search.conftest import FACTORY

ROOT = Path(__file__).parents[2]
SPACE = space_of(
    {
        "name": "small",
        "base": {"methods": ["linear"], "train.epochs": 2},
        "axes": {"optim.lr": {"float": [1e-4, 1e-1], "log": True}},
        "budget": {"trials": 2, "hours": 1.0},
    }
)


@pytest.fixture
def study(tmp_path: Path) -> StudyDir:
    return StudyDir.create(tmp_path, "small", SPACE, {"data": "d", "weights": "w"}, "")


class Clock:
    """The time of day, which somebody sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._offset = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self._offset)

    def set_by(self, seconds: float) -> None:
        self._offset += seconds


class TestClock:
    @pytest.mark.parametrize("by", [-86400.0, 86400.0])
    def test_a_clock_that_is_set_changes_no_spent_time(
        self, study: StudyDir, by: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock(monkeypatch)
        journal = Journal(study.journal_path)
        write(journal, {"kind": "study", "name": "small"})
        clock.set_by(by)
        time.sleep(0.1)
        write(journal, {"kind": "notice", "text": "a"})
        journal.close()
        journal = Journal(study.journal_path)
        write(journal, {"kind": "resumed"})
        clock.set_by(-by)
        time.sleep(0.1)
        write(journal, {"kind": "notice", "text": "b"})
        journal.close()
        assert 0.19 < study.state().spent.hours() * 3600 < 2
        times = [event["t"] for event in recorded(study)]
        assert times[1] > times[0] and times[3] > times[2]

    def test_times_that_go_back_in_a_journal_take_no_time_away(self, study: StudyDir) -> None:
        """As a driver wrote them that read the clock for every line."""
        lines = [("study", 1000.0), ("notice", 1060.0), ("notice", 500.0), ("notice", 530.0)]
        events = [{"n": n, "t": t, "kind": kind} for n, (kind, t) in enumerate(lines)]
        study.journal_path.write_bytes(b"".join(map(encode_line, events)))
        assert study.state().spent.hours() * 3600 == pytest.approx(90)

    def test_time_between_drivers_is_not_spent(self, study: StudyDir) -> None:
        lines = [("study", 0.0), ("finished", 10.0), ("extended", 9000.0), ("resumed", 9900.0),
                 ("finished", 9905.0)]  # fmt: skip
        events = [{"n": n, "t": t, "kind": kind} for n, (kind, t) in enumerate(lines)]
        study.journal_path.write_bytes(b"".join(map(encode_line, events)))
        assert study.state().spent.hours() * 3600 == pytest.approx(15)


class TestNames:
    def test_a_study_that_is_a_link_is_refused(self, study: StudyDir, tmp_path: Path) -> None:
        root = tmp_path / "other"
        root.mkdir()
        (root / "small").symlink_to(study.path)
        (root / "gone").symlink_to(tmp_path / "nowhere")
        with pytest.raises(StudyError, match="other/small is a symbolic link; .*--root"):
            StudyDir.open(root, "small")
        for name in ("small", "gone"):
            with pytest.raises(StudyError, match="is a symbolic link"):
                StudyDir.check_free(root, name)
        assert not (tmp_path / "nowhere").exists()

    def test_a_root_may_be_a_link(self, study: StudyDir, tmp_path: Path) -> None:
        root = tmp_path / "link"
        root.symlink_to(study.path.parent)
        assert StudyDir.open(root, "small").document()["name"] == "small"

    def test_a_lock_that_is_a_link_is_not_followed(self, study: StudyDir, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("keep me")
        (study.path / "driver.lock").symlink_to(victim)
        with pytest.raises(StorageError, match="driver.lock cannot be written"):
            study.lock()
        assert victim.read_text() == "keep me"

    @pytest.mark.parametrize("trial", ["../../up", "/etc", "a/b", "", ".", "a\nb", 7.5])
    def test_a_trial_of_a_journal_never_becomes_a_path(self, study: StudyDir, trial: Any) -> None:
        line = {"n": 0, "t": 1.0, "kind": "started", "trial": trial}
        study.journal_path.write_bytes(encode_line(line))
        with pytest.raises(RecordError, match=r"journal\.jsonl:1: .* is no name of a trial"):
            recorded(study.journal_path)


class Other:
    """A driver in a process of its own that does nothing but hold the lock."""

    CODE = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from search.study.lock import DriverLock\n"
        "DriverLock(Path(sys.argv[1]), 'small').take()\n"
        "print('locked', flush=True)\n"
        "time.sleep(120)\n"
    )

    def __init__(self, study: StudyDir) -> None:
        command = [sys.executable, "-c", self.CODE, str(study.path / "driver.lock")]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"locked\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def other(study: StudyDir) -> Iterator[Other]:
    made = Other(study)
    yield made
    made.kill()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "BEAT_S", 0.05)


class TestTwoDrivers:
    def test_the_second_is_refused_and_a_dead_first_is_replaced(
        self, study: StudyDir, other: Other
    ) -> None:
        first = rf"host {socket.gethostname()}, pid {other.process.pid}, since 20\d\d-\S+"
        with pytest.raises(StudyError, match=rf"another driver: {first}; .*tcpa stop small"):
            study.lock()
        found = study.driver()
        assert found is not None and found.pid == other.process.pid
        other.kill()
        assert study.driver() is None
        said = study.lock()
        assert f"ended unexpectedly: host {socket.gethostname()}, pid {other.process.pid}," in said
        study.unlock()
        assert study.lock() == "", "a lock that was given back is nobody's"
        study.unlock()

    @pytest.mark.usefixtures("fast")
    @pytest.mark.parametrize("by", [0.0, 86400.0, -86400.0])
    def test_a_driver_elsewhere_is_seen_by_its_beats_whatever_the_clocks_say(
        self, study: StudyDir, by: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a file system whose locks do not reach from machine to machine."""
        Clock(monkeypatch).set_by(by)
        path = study.path / "driver.lock"
        path.write_text("host elsewhere, pid 7, since 2026-01-01T00:00:00+00:00\n")
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(0.02):
                os.utime(path)

        heart = threading.Thread(target=beat)
        heart.start()
        try:
            with pytest.raises(StudyError, match="another driver: host elsewhere, pid 7, since"):
                study.lock()
        finally:
            ended.set()
            heart.join()
        assert "took over" in study.lock()
        study.unlock()

    @pytest.mark.usefixtures("fast")
    def test_a_driver_shows_that_it_lives_and_notices_a_takeover(self, study: StudyDir) -> None:
        study.lock()
        path = study.path / "driver.lock"
        os.utime(path, (1, 1))
        wait_for(lambda: path.stat().st_mtime > 1)
        assert study.lost_to is None
        path.write_text("host elsewhere, pid 7, since 2026-01-01T00:00:00+00:00\n")
        wait_for(lambda: study.lost_to is not None)
        study.unlock()
        assert path.read_text().startswith("host elsewhere"), "the lock is not ours any more"

    def test_looking_who_drives_keeps_no_driver_out(self, tmp_path: Path) -> None:
        ended = threading.Event()
        lock = DriverLock(tmp_path / "driver.lock", "small")
        lock.take()
        lock.release()

        def look() -> None:
            while not ended.is_set():
                lock.holder()

        looker = threading.Thread(target=look)
        looker.start()
        try:
            for _ in range(20):
                other = DriverLock(tmp_path / "driver.lock", "small")
                other.take()
                other.release()
        finally:
            ended.set()
            looker.join()


@pytest.mark.integration
@pytest.mark.usefixtures("fast")
def test_a_driver_that_was_replaced_writes_nothing_more(study: StudyDir) -> None:
    (study.path / "stub.json").write_text('{"epoch_s": 0.3}')
    written: list[int] = []

    def replace(event: Event) -> None:
        written.append(event.n or 0)
        if event.kind == "epoch" and study.lost_to is None:
            other = "host elsewhere, pid 7, since 2026-01-01T00:00:00+00:00\n"
            (study.path / "driver.lock").write_text(other)
            wait_for(lambda: study.lost_to is not None)

    placement = Placement(workers=1, worker_factory=FACTORY)
    with (
        connect(None, 1),
        pytest.raises(StoppedError, match="taken the study over.*elsewhere, pid"),
    ):
        run_study(SPACE, study, placement=placement, listeners=[replace])
    events = recorded(study)
    assert [e["n"] for e in events] == written
    assert events[-1]["kind"] in ("epoch", "completed"), "not even that it stopped"


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds; 10 s without it are an error."""
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
