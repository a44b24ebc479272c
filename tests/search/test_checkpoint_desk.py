"""Checkpoints that travel through Ray: in parts, once, and to no other place."""

from dataclasses import fields
from pathlib import Path

import pytest

from search.study.token import put_token, remove_tokens, shares
from search.workers.checkpoint_desk import CheckpointDesk
from search.workers.trial_files import TrialFiles
from tcpa_core.errors import StorageError, StudyError
from tcpa_core.record.events import Ended, Epoch
from tcpa_core.record.values import EpochReport, TrialResult
from tcpa_core.training.commands import Submit

REPORT = [field.name for field in fields(EpochReport)]


class Desk:
    """Carries files to a desk, as through Ray."""

    def __init__(self, folder: Path) -> None:
        self.desk = CheckpointDesk(folder)
        self.sent: list[str] = []

    def bring(self, trial: str, folder: Path) -> None:
        for name, _ in self.desk.files(trial):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.desk.read(trial, name, 0))

    def keep(self, trial: str, path: Path) -> None:
        self.sent.append(f"{trial}/{path.name}")
        self.desk.write(trial, path.name, "key", 0, path.read_bytes(), True)


def test_parts_become_a_file_when_the_last_has_come(tmp_path: Path) -> None:
    desk = CheckpointDesk(tmp_path)
    desk.write("00001", "last.safetensors", "a", 0, b"old", True)
    desk.write("00001", "last.safetensors", "b", 0, b"12", False)
    desk.write("00001", "last.safetensors", "b", 0, b"12", False)
    assert desk.files("00001") == [("last.safetensors", 3)]
    for _ in range(2):  # the answer was lost: it comes again
        desk.write("00001", "last.safetensors", "b", 2, b"34", True)
    assert desk.read("00001", "last.safetensors", 0) == b"1234"
    assert desk.read("00001", "last.safetensors", 3) == b"4"
    assert [path.name for path in (tmp_path / "checkpoints" / "00001").iterdir()] == [
        "last.safetensors"
    ]
    assert desk.files("00002") == []


@pytest.mark.parametrize("name", ["..", "../x", "a/b", ".hidden", "", "x" * 65])
def test_what_is_no_name_is_no_path(tmp_path: Path, name: str) -> None:
    desk = CheckpointDesk(tmp_path)
    for trial, file in ((name, "last.safetensors"), ("00001", name)):
        with pytest.raises(StudyError, match="is no name of a trial or of one of its files"):
            desk.write(trial, file, "key", 0, b"", True)
    with pytest.raises(StudyError, match="is no name"):
        desk.files(name)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    with pytest.raises(StorageError, match="checkpoints/00001/last.safetensors cannot be written"):
        CheckpointDesk(tmp_path).write("00001", "last.safetensors", "key", 0, b"", True)


def test_files_are_carried_before_the_end_of_a_trial_is_told(tmp_path: Path) -> None:
    desk, here = Desk(tmp_path / "driver"), tmp_path / "node"
    files = TrialFiles(here, desk)
    files.bring(Submit(trial="00001", params={}, until_epoch=1))
    folder = here / "checkpoints" / "00001"
    folder.mkdir(parents=True)
    for name in ("last.safetensors", "best.safetensors", ".last.safetensors.77"):
        (folder / name).write_text(name)
    report = Epoch(trial="00001", report=EpochReport(**dict.fromkeys(REPORT, 1)))
    files.keep([report])
    assert not desk.sent  # it trains on, and was begun a moment ago
    files.keep([Ended(trial="00001", result=TrialResult(status="completed"))])
    # best before last, as a worker writes them
    assert desk.sent == ["00001/best.safetensors", "00001/last.safetensors"]
    assert not folder.exists()
    other = TrialFiles(tmp_path / "other", desk)
    other.bring(Submit(trial="00001", params={}, until_epoch=2))
    brought = tmp_path / "other" / "checkpoints" / "00001"
    assert (brought / "last.safetensors").read_text() == "last.safetensors"
    (brought / "last.safetensors").write_text("longer than before")
    other.keep([report])
    other.close()  # at an orderly end of the worker
    assert desk.sent[2:] == ["00001/best.safetensors", "00001/last.safetensors"]
    assert not (tmp_path / "other").exists()


def test_a_token_is_seen_by_whoever_has_the_folder(tmp_path: Path) -> None:
    first = put_token(tmp_path)
    assert shares(tmp_path, first) and not shares(tmp_path / "other", first)
    second = put_token(tmp_path)
    assert shares(tmp_path, second) and not shares(tmp_path, first)
    remove_tokens(tmp_path)
    assert not shares(tmp_path, second) and not list(tmp_path.iterdir())
