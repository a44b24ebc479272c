"""The study's folder, lock and journal."""

import errno
import math
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from search.study.folder import StudyDir
from search.study.journal import Journal
from search.study.working_copy import existing
from search.verbs.overview import study_lines
from tcpa_core.errors import RecordError, RunningError, StudyError, TakenError
from tests.journals import recorded, write
from tests.search.conftest import make_space

PRINTS = {"data": "d", "weights": "w"}


def event(number: int) -> dict[str, object]:
    return {"kind": "epoch", "trial": f"{number:05d}", "epoch": number}


def test_journal_numbers_events_and_goes_on_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    write(journal, event(1), event(2))
    journal.close()
    journal = Journal(path)
    write(journal, event(3))
    journal.close()
    events = recorded(path)
    assert [e["n"] for e in events] == [0, 1, 2]
    assert [e["epoch"] for e in events] == [1, 2, 3]
    assert all(e["t"] > 1e9 for e in events)


@pytest.mark.parametrize("tail", [b'{"kind":"ep', b'{"n":2,"crc":"00000000"}', b"\0\0\0\0"])
def test_journal_cuts_a_torn_tail_and_says_so(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    write(journal, event(1))
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    journal = Journal(path)
    assert journal.dropped_bytes == len(tail)
    write(journal, event(2))
    journal.close()
    assert [e["epoch"] for e in recorded(path)] == [1, 2]


def test_journal_with_a_damaged_middle_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    write(journal, event(1), event(2), event(3))
    journal.close()
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"epoch":2', b'"epoch":9'))
    with pytest.raises(RecordError, match=r"journal\.jsonl:2: .*checksum"):
        Journal(path)


def test_full_disk_leaves_the_journal_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    write(journal, event(1))
    whole = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StudyError, match="No space left on device"):
            write(journal, event(2))
    assert path.read_bytes() == whole
    write(journal, event(3))
    journal.close()
    assert [(e["n"], e["epoch"]) for e in recorded(path)] == [(0, 1), (1, 3)]


@pytest.mark.parametrize("name", ["", "a b", "A", "../x", "a" * 65, "ü", "a/b", "."])
def test_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StudyError, match="study name must be"):
        StudyDir.create(tmp_path, name, make_space(), PRINTS, "")
    assert not list(tmp_path.iterdir())


def test_taken_name_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    study = StudyDir.create(tmp_path, "one", make_space(), PRINTS, "")
    before = (study.path / "study.yaml").read_bytes()
    with pytest.raises(StudyError, match="'one' exists already.*tcpa resume one.*--study"):
        StudyDir.create(tmp_path, "one", make_space(budget={"trials": 99}), PRINTS, "")
    assert (study.path / "study.yaml").read_bytes() == before


def test_of_many_that_make_a_study_at_once_one_does(tmp_path: Path) -> None:
    for number in range(20):
        root, together = tmp_path / f"{number}", threading.Barrier(4)

        def make(trials: int, root: Path = root, together: threading.Barrier = together) -> int:
            space = make_space(budget={"trials": trials})
            together.wait()
            with suppress(TakenError):
                StudyDir.create(root, "one", space, PRINTS, "")
                return trials
            return 0

        with ThreadPoolExecutor(4) as pool:
            made = [trials for trials in pool.map(make, range(1, 5)) if trials]
        assert made == [StudyDir.open(root, "one").space().budget.trials]
        assert os.listdir(root) == ["one"] and os.listdir(root / "one") == ["study.yaml"]


@pytest.mark.parametrize("left", [[], [".study.yaml"]])
def test_a_folder_whose_maker_was_killed_is_made_whole(tmp_path: Path, left: list[str]) -> None:
    (tmp_path / "one").mkdir()
    for name in left:
        (tmp_path / "one" / name).write_text("half")
    assert existing(tmp_path, "one") is None
    study = StudyDir.create(tmp_path, "one", make_space(), PRINTS, "")
    assert os.listdir(study.path) == ["study.yaml"]
    assert StudyDir.open(tmp_path, "one").space().budget.trials == 12


@pytest.mark.parametrize(
    ("holds", "says"),
    [
        ("journal.jsonl", "has a journal but no study.yaml; restore the file"),
        ("thesis.tex", r"holds thesis.tex and no study; remove it or choose another name"),
    ],
)
def test_a_folder_of_something_else_is_named_and_left_alone(
    tmp_path: Path, holds: str, says: str
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / holds).write_text("dear")
    for call in (StudyDir.check_free, existing):
        with pytest.raises(StudyError, match=says):
            call(tmp_path, "one")
    with pytest.raises(StudyError, match=says):
        StudyDir.create(tmp_path, "one", make_space(), PRINTS, "")
    assert [(p.name, p.read_text()) for p in (tmp_path / "one").iterdir()] == [(holds, "dear")]
    (tmp_path / "two").write_text("")
    with pytest.raises(StudyError, match="two is not a folder; remove it"):
        StudyDir.create(tmp_path, "two", make_space(), PRINTS, "")


def test_a_study_that_is_being_made_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(path: Path, to: Path) -> None:
        assert (path / "study.yaml").is_file() and not to.exists()
        assert list(study_lines(tmp_path)) == [f"no studies in {tmp_path}."]
        with pytest.raises(StudyError, match=r"no study 'one' in \S+$"):
            StudyDir.open(tmp_path, "one")
        raise KeyboardInterrupt

    with monkeypatch.context() as here, pytest.raises(KeyboardInterrupt):
        here.setattr(Path, "rename", look)
        StudyDir.create(tmp_path, "one", make_space(), PRINTS, "")
    assert not list(tmp_path.iterdir()), "an interrupt leaves nothing"


def test_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StudyError, match=rf"{file} cannot be written"):
        StudyDir.create(file, "one", make_space(), PRINTS, "")


def test_space_comes_back_from_the_folder(tmp_path: Path) -> None:
    space = make_space(seeds=[0, 1], first_points=[{"optim.lr": 0.01}])
    StudyDir.create(tmp_path, "one", space, PRINTS, "")
    study = StudyDir.open(tmp_path, "one")
    assert study.space().as_dict() == space.as_dict()
    assert study.document()["fingerprints"] == PRINTS
    assert {"python", "optuna", "ray"} <= study.document()["versions"].keys()


def test_missing_study_is_answered_with_the_nearest(tmp_path: Path) -> None:
    StudyDir.create(tmp_path, "digits", make_space(), PRINTS, "")
    with pytest.raises(StudyError, match="no study 'digit'.*closest name: 'digits'"):
        StudyDir.open(tmp_path, "digit")


def test_second_driver_is_refused_by_name_until_the_first_is_gone(tmp_path: Path) -> None:
    study = StudyDir.create(tmp_path, "one", make_space(), PRINTS, "")
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from search.study.folder import StudyDir\n"
        "study = StudyDir.open(Path(sys.argv[1]), 'one')\n"
        "study.lock()\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(StudyError, match=f"another driver: .*pid {other.pid}"):
            study.lock()
    finally:
        other.kill()
        other.wait()
    study.lock()  # a dead driver's lock is taken over
    study.unlock()


def test_a_driver_waits_for_another_and_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyDir.create(tmp_path, "one", make_space(), PRINTS, "")
    first = StudyDir(study.path)
    first.lock()
    monkeypatch.setattr("search.study.lock.SAID_S", 0.0)
    monkeypatch.setattr("search.study.lock.POLL_S", 0.0)
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        if len(said) == 3:
            first.unlock()

    with pytest.raises(RunningError, match="'one' is run by another driver: host"):
        study.lock()
    with study.held(math.inf, hear):
        with pytest.raises(RunningError):
            first.lock()
        with study.held():  # again, by who holds it
            pass
        with pytest.raises(RunningError):
            first.lock()
    assert len(set(said)) == 1 and len(said) == 3
    assert re.fullmatch(
        rf"waiting for the driver that runs study 'one': host \S+, pid {os.getpid()}, since \S+; "
        r"'tcpa stop one' ends it, Ctrl-C the waiting\.",
        said[0],
    )
    with first.held(), pytest.raises(RunningError):
        study.held(0.01, said.append).__enter__()


def test_an_interrupt_while_it_is_waited_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyDir.create(tmp_path, "one", make_space(), PRINTS, "")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as here, pytest.raises(KeyboardInterrupt):
        here.setattr("search.study.lock.Driver.read", interrupt)
        study.lock()
    StudyDir(study.path).lock()
