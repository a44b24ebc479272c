"""The study's folder, lock and journal."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.study.folder import StudyDir
from search.study.journal import Journal
from tcpa_core.errors import RecordError, StudyError
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
