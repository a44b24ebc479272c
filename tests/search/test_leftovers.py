"""What killed workers leave on a node: it goes when the study has it, and nobody is at it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from search.workers.leftovers import Presence, clear
from search.workers.trial_files import TrialFiles
from tcpa_core.errors import StorageError
from tcpa_core.record.events import Epoch
from tcpa_core.record.files import BEST, LAST, PREDICTIONS, REGIONS
from tcpa_core.record.values import EpochReport
from tcpa_core.training.checkpoint import save_checkpoint
from tcpa_core.training.commands import Submit
from tests.search.test_checkpoint_desk import REPORT, Desk

TRIAL = "00002"
WORKER = """
import sys
from pathlib import Path
from search.workers.leftovers import Presence
presence = Presence(Path(sys.argv[1]))
presence.enter()
print("present", flush=True)
sys.stdin.read()
"""


@contextmanager
def killed_at_the_end(folder: Path) -> Iterator[None]:
    """Another process of the node that is present, and killed after that."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"present\n"
            yield
        finally:
            process.kill()


def trained(study: Path, epoch: int, *names: str) -> Path:
    """The folder of the trial, with files as after an epoch."""
    folder = study / "checkpoints" / TRIAL
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        save_checkpoint(folder / name, {"state:x": torch.full((1,), epoch)}, {"epoch": epoch})
    return folder


def test_the_last_worker_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    study, node = tmp_path / "study", tmp_path / "node"
    desk = Desk(study)
    left = trained(node, 2, LAST)
    (left / f".{LAST}.77").touch()  # it was being written
    trained(study, 6, BEST, LAST)  # the trial went on elsewhere
    other = TrialFiles(node, desk)
    other.bring(Submit(trial="00004", params={}, until_epoch=1))
    with killed_at_the_end(node):
        TrialFiles(node, desk).close()
        assert left.exists(), "it may be that of a worker that lives"
        other.close()
        assert left.exists()
    TrialFiles(node, desk).close()  # it has had no trial itself
    assert not node.exists() and not desk.sent
    assert {path.name for path in (study / "checkpoints" / TRIAL).iterdir()} == {BEST, LAST}


@pytest.mark.parametrize(
    ("kept", "epoch"),
    [((), 0), ((LAST,), 2), ((BEST, LAST), 1)],
    ids=["nothing", "a file less", "fewer epochs"],
)
def test_what_the_study_lacks_stays(tmp_path: Path, kept: tuple[str, ...], epoch: int) -> None:
    study, node = tmp_path / "study", tmp_path / "node"
    left = trained(node, 2, BEST, LAST)
    before = {path.name: path.read_bytes() for path in left.iterdir()}
    trained(study, epoch, *kept)
    TrialFiles(node, Desk(study)).close()
    assert {path.name: path.read_bytes() for path in left.iterdir()} == before
    trained(study, 2, BEST, LAST)
    TrialFiles(node, Desk(study)).close()
    assert not node.exists()


def test_predictions_and_what_cannot_be_read_stay_until_the_study_has_them(tmp_path: Path) -> None:
    study, node = tmp_path / "study", tmp_path / "node"
    left, kept = trained(node, 2, LAST), trained(study, 2, LAST)
    for name in (PREDICTIONS, REGIONS, "damaged.safetensors"):
        (left / name).write_bytes(b"here")
        clear(node, Desk(study).bring)
        assert left.exists()
        (kept / name).write_bytes(b"here")
    (left / LAST).write_bytes(b"torn")
    clear(node, Desk(study).bring)
    assert left.exists()
    trained(node, 2, LAST)
    clear(node, Desk(study).bring)
    assert not node.exists()


def test_a_trial_that_the_study_refuses_keeps_no_other_there(tmp_path: Path) -> None:
    study, node = tmp_path / "study", tmp_path / "node"
    left = trained(node, 2, LAST)
    odd = left.with_name("no name of a trial")
    odd.mkdir()
    trained(study, 2, LAST)
    TrialFiles(node, Desk(study)).close()
    assert [path.name for path in (node / "checkpoints").iterdir()] == [odd.name]


def test_a_worker_that_comes_while_the_folder_goes_is_present_in_a_new_one(tmp_path: Path) -> None:
    study, node = tmp_path / "study", tmp_path / "node"
    trained(node, 2, LAST)
    trained(study, 2, LAST)
    presence = Presence(node)
    comes = threading.Thread(target=presence.enter)

    def bring(trial: str, folder: Path) -> None:
        comes.start()
        while comes.is_alive() and _times_open(node / ".workers") < 2:  # till it waits
            time.sleep(0.01)
        Desk(study).bring(trial, folder)

    clear(node, bring)
    comes.join()
    left = trained(node, 2, LAST)
    clear(node, Desk(study).bring)
    assert left.exists()
    presence.leave()
    clear(node, Desk(study).bring)
    assert not node.exists()


def _times_open(path: Path) -> int:
    links = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(link) == str(path.resolve()) for link in links)


def test_what_a_fault_kept_from_being_carried_stays(tmp_path: Path) -> None:
    class Gone(Desk):
        def keep(self, trial: str, path: Path) -> None:
            raise ConnectionError("the driver is gone")

    node = tmp_path / "node"
    files = TrialFiles(node, Gone(tmp_path / "study"))
    files.bring(Submit(trial=TRIAL, params={}, until_epoch=9))
    left = trained(node, 2, LAST)
    files.keep([Epoch(trial=TRIAL, report=EpochReport(**dict.fromkeys(REPORT, 1)))])
    with pytest.raises(StorageError):
        files.close()
    assert left.exists()
