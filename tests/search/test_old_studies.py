"""Studies that an earlier version made open, report and go on; `tests/old_studies` holds two.

They were made by the last version before journal events had types (commit 99c11b6): an ablation
that has ended, and a search that was stopped with two of its trials half trained. What that version
made of them when it went on is written down here.
"""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reports.build import build_report
from search import cli
from search.study.folder import StudyDir
from tcpa_core.record.events import decode_line, encode_line
from tcpa_core.record.state import StudyState

OLD = Path(__file__).parents[1] / "old_studies"
NAMES = ("old_ablation", "old_search")
CLOSE = 1e-4
"""Relative difference that another processor may make."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "studies")
    return tmp_path / "studies"


def tcpa(*arguments: str) -> int:
    return cli.app(arguments, standalone_mode=False) or 0


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_read_and_would_be_written_so_again(name: str) -> None:
    for line in (OLD / name / "journal.jsonl").read_bytes().splitlines(keepends=True):
        assert encode_line(decode_line(line, "x").as_dict()) == line


def test_status_of_an_old_study(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        tcpa("status", name, "--root", str(root))
    assert capsys.readouterr().out.splitlines() == [
        "old_ablation: 4 completed; last event: finished.",
        "ablation, finished: 4 of 4 trials ended, 4 of 4 epochs, elapsed 26 s",
        "best val_accuracy 0.1301 over 2 seeds (trials 00001, 00003)",
        "  its setting: components=prompts",
        "  its test_accuracy: 0.1178",
        f"next: tcpa report old_ablation --root {root}",
        "old_search: 2 interrupted, 6 pruned; last event: stopped.",
        "search, stopped: 6 of 8 trials ended, 13 of about 16 epochs, elapsed 43 s, about 3 s left "
        "at its pace so far",
        "  trial 00001: epoch 2/4, val_accuracy 0.3569, lr 0.00334, 1 prompts, seed 1",
        "  trial 00006: epoch 3/4, val_accuracy 0.7398, lr 0.0228, 4 prompts, seed 0",
        "leading val_accuracy 0.7398 at epoch 3 of 4 (trial 00006, interrupted: lr 0.0228, 4 "
        "prompts, seed 0)",
        "stopped early: 4 after epoch 1, 2 after epoch 2",
        f"next: tcpa resume old_search --root {root}",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_old_study_is_reported(name: str, root: Path) -> None:
    summary = build_report(root / name)
    trials = pq.read_table(root / name / "tables" / "trials.parquet").to_pylist()
    epochs = pq.read_table(root / name / "tables" / "epochs.parquet").num_rows
    state = StudyDir.open(root, name).state("val_loss")
    assert summary.html.is_file()
    statuses = {name: one.status for name, one in state.trials.items()}
    assert {t["trial"]: t["status"] for t in trials} == statuses
    assert epochs == len(list(state.reports()))


@pytest.mark.parametrize("trial", ["00001", "1"])
def test_a_replay_says_that_the_trial_is_of_a_version_with_other_numbers(
    trial: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its dropout was drawn from generators, today's follows from counters."""
    assert tcpa("replay", "old_ablation", trial, "--root", str(root)) == 1
    said = capsys.readouterr().out
    assert "numbers DIFFER by more than 0.0001: largest relative difference 3.7e-04." in said
    assert "planned by a version of TCPA Search that gives other numbers" in said


@pytest.mark.integration
def test_an_old_study_goes_on_as_it_would_have(root: Path) -> None:
    study = StudyDir.open(root, "old_search")
    before = study.state()
    assert tcpa("resume", study.name, "--root", str(root)) == 0
    events = list(study.events())
    after = StudyState.of(events)
    assert [event.kind for event in events[37:]].count("planned") == 0, "its budget was planned"
    assert after.counts() == {"completed": 1, "pruned": 7} and after.is_finished
    ended = {name: after.trials[name] for name in before.unfinished()}
    assert {name: (one.status, one.epoch) for name, one in ended.items()} == {
        "00001": ("pruned", 2),
        "00006": ("completed", 4),
    }
    values = [
        (one.result.val_accuracy, one.result.val_loss) for one in ended.values() if one.result
    ]
    assert values[0] == pytest.approx((0.35687732342007433, 2.0089024398406643), rel=CLOSE)
    assert values[1] == pytest.approx((0.7397769516728625, 0.8873429280674591), rel=CLOSE)
    assert after.trials["00006"].test_accuracy == pytest.approx(0.7622222222222222, rel=CLOSE)
