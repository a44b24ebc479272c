"""Event files for TensorBoard: what the journal has, whole, and the same after a repeat."""

import struct
import sys
from pathlib import Path

import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from search.commands.sync import command
from search.study.folder import StudyDir
from search.verbs.event_files import write_events
from tcpa_core.errors import StorageError, StudyError
from tests.search.conftest import make_space
from tests.search.test_tracking import EPOCHS, epoch, events, record


@pytest.fixture
def study(tmp_path: Path) -> StudyDir:
    made = StudyDir.create(tmp_path, "small", make_space(), {"data": "d", "weights": "w"}, "")
    record(made.path, events())
    return made


def records(path: Path) -> list[Event]:
    """Records of a file: length, its checksum, content, its checksum."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def points(path: Path, tag: str) -> list[tuple[int, float]]:
    return [
        (one.step, pytest.approx(value.simple_value, rel=1e-6))
        for one in records(path)
        for value in one.summary.value
        if value.tag == tag
    ]


def test_each_trial_has_its_curve_its_outcome_and_its_settings(
    study: StudyDir, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_events(study, out, Console(quiet=True))
    files = sorted(out.rglob("*tfevents*"))
    assert [path.parent.name for path in files] == [f"0000{n}-tcpa+vpt" for n in range(3)]
    curve = [(n, 0.1 * n) for n in range(1, EPOCHS + 1)]
    assert points(files[0], "epoch/val_accuracy") == curve
    assert points(files[0], "val_accuracy") == [(0, 0.4)]
    assert points(files[0], "test_accuracy") == [(0, 0.38)]
    assert points(files[2], "val_accuracy") == [], "a failed trial has none"
    (start,) = [
        value.metadata.plugin_data.content
        for one in records(files[0])
        for value in one.summary.value
        if value.tag == "_hparams_/session_start_info"
    ]
    settings = HParamsPluginData.FromString(start).session_start_info.hparams
    assert settings["optim.lr"].number_value == 0.1 and settings["seed"].number_value == 3


def test_a_repeat_doubles_nothing_and_a_longer_study_grows(study: StudyDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        write_events(study, out, Console(quiet=True))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(before) == 3, "no part of a file is left"
    write_events(study, out, Console(quiet=True))
    assert {path: path.read_bytes() for path in before} == before
    again = {"kind": "started", "trial": "00001", "device": "cpu", "epoch": 1}
    record(study.path, [again, epoch("00001", 2), epoch("00001", EPOCHS + 1)])
    write_events(study, out, Console(quiet=True))
    longer = next(path for path in before if "00001" in path.parent.name)
    steps = [step for step, _ in points(longer, "epoch/val_accuracy")]
    assert steps == sorted(set(steps)) and steps[-1] == EPOCHS + 1


def test_what_stands_in_the_way_is_said(
    study: StudyDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/small"):
        write_events(study, tmp_path / "file", Console(quiet=True))
    monkeypatch.setitem(sys.modules, "tensorboardX.record_writer", None)
    monkeypatch.delitem(sys.modules, "search.verbs.event_files")
    monkeypatch.delitem(sys.modules, "search.tracking.tensorboard")
    with pytest.raises(StudyError, match=r"pip install 'tcpa-search\[tensorboard\]'"):
        command(study.name, study.path.parent, None, None, None, tmp_path / "out")
