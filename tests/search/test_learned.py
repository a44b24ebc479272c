"""Earlier results for a sampler: what is told as it is, what as stopped early, what is left out."""

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.proposals.learned import learn
from search.proposals.sampled import Sampled
from search.study.folder import StudyDir
from search.study.journal import Journal
from tcpa_core.errors import ConfigError
from tcpa_core.record.events import (
    Ended,
    Learned,
    Planned,
    StudyBegun,
    decode_line,
    encode_line,
)
from tcpa_core.record.values import TrialResult
from tests.journals import event
from tests.search.conftest import PRINTS, make_space

AXES = {"optim.lr": {"float": [1e-3, 1e-1], "log": True}}


def study(root: Path, name: str, **changes: Any) -> StudyDir:
    """A search that has completed three trials, of which one has lr 0.3."""
    base = {"methods": ["linear"], "train.epochs": 6, **changes}
    space = make_space(base=base, axes={"optim.lr": {"float": [1e-3, 1.0], "log": True}})
    made = StudyDir.create(root, name, space, PRINTS, "")
    journal = Journal(made.journal_path)
    journal.append(StudyBegun(name=name))
    for number, lr in enumerate((0.002, 0.02, 0.3)):
        config = space.config({"optim.lr": lr}, 0)
        trial = f"{number:05d}"
        known = {"digest": trial, "point": trial, "origin": "sampler"}
        result = TrialResult(status="completed", val_accuracy=0.5 + number / 10, num_epochs=6)
        journal.append(
            Planned.of(trial, config, draw={"optim.lr": lr}, **known),
            Ended(trial=trial, result=result),
        )
    journal.close()
    return made


def test_a_value_outside_an_axis_is_left_out_and_said(tmp_path: Path) -> None:
    study(tmp_path, "a")
    space = make_space(axes=AXES)
    lesson = learn(["a"], space, tmp_path)
    assert [(one.source, one.values, one.note) for one in lesson.told] == [
        ("a/00000", [0.5], ""),
        ("a/00001", [0.6], ""),
    ]
    assert "a/00002: left out, as optim.lr is outside its axis" in lesson.lines
    sampled = Sampled(space, "s", learned=lesson.told)
    known = sampled._points.study.get_trials()
    assert [(t.params, t.value, t.state) for t in known] == [
        ({"optim.lr": 0.002}, 0.5, TrialState.COMPLETE),
        ({"optim.lr": 0.02}, 0.6, TrialState.COMPLETE),
    ]
    for one in lesson.told:
        line = encode_line(one.as_dict() | {"t": 1.0})
        assert isinstance(decode_line(line, "x"), Learned)
        assert encode_line(decode_line(line, "x").as_dict()) == line


def test_another_fidelity_ranks_behind_every_completed_trial(tmp_path: Path) -> None:
    study(tmp_path, "short", **{"train.epochs": 3})
    space = make_space(axes=AXES)
    lesson = learn(["short"], space, tmp_path)
    assert {one.note for one in lesson.told} == {"train.epochs was 3, here 6"}
    assert any("told as stopped early, as train.epochs was 3, here 6" in x for x in lesson.lines)
    (first, _) = Sampled(space, "s", learned=lesson.told)._points.study.get_trials()
    assert first.state is TrialState.PRUNED and first.intermediate_values == {3: 0.5}


def test_what_was_stopped_early_is_told_with_the_epochs_that_it_had(tmp_path: Path) -> None:
    """Its value is that of its last epoch, not the best one of its record."""
    made = study(tmp_path, "old")
    journal = Journal(made.journal_path)
    config = made.space().config({"optim.lr": 0.05}, 0)
    known = {"digest": "9", "point": "9", "origin": "sampler"}
    result = TrialResult(status="pruned", val_accuracy=0.4, num_epochs=2)
    journal.append(
        Planned.of("00009", config, draw={"optim.lr": 0.05}, **known),
        *(event({"kind": "epoch", "trial": "00009", "epoch": epoch, "val_accuracy": value})
          for epoch, value in ((1, 0.4), (2, 0.3))),
        Ended(trial="00009", result=result),
    )  # fmt: skip
    journal.close()
    lesson = learn(["old"], make_space(axes=AXES), tmp_path)
    one = lesson.told[-1]
    assert (one.source, one.values, one.epoch) == ("old/00009", [0.3], 2)
    assert "old/00009: told as stopped early, as stopped after 2 epochs" in lesson.lines
    *_, last = Sampled(make_space(axes=AXES), "s", learned=lesson.told)._points.study.get_trials()
    assert (last.state, last.intermediate_values) == (TrialState.PRUNED, {2: 0.3})


def test_a_table_is_read_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_text("optim.lr,val_accuracy,who\n0.01,0.7,me\n5,0.9,me\n0.02,,me\nx,0.1,me\n")
    lesson = learn([str(path)], make_space(axes=AXES), tmp_path)
    assert [(one.source, one.params["optim.lr"], one.values) for one in lesson.told] == [
        ("old.csv:2", 0.01, [0.7])
    ]
    assert sorted(name for names in lesson.left_out.values() for name in names) == [
        "old.csv:3", "old.csv:4", "old.csv:5",
    ]  # fmt: skip
    path.write_text("lr,accuracy\n1,2\n")
    with pytest.raises(ConfigError, match="no column 'val_accuracy'"):
        learn([str(path)], make_space(axes=AXES), tmp_path)


def test_a_sampler_draws_by_what_it_was_given(tmp_path: Path) -> None:
    """Every given result is far better at 0.01: TPE, which has enough of them, draws there."""
    rows = [f"{0.01 * 1.01**n},{0.9 - n / 1000}" for n in range(12)]
    rows += [f"{0.09 - n / 1000},0.1" for n in range(30)]
    path = tmp_path / "t.csv"
    path.write_text("optim.lr,val_accuracy\n" + "\n".join(rows))
    far = []
    for learns in (True, False):
        found = []
        for seed in range(12):
            space = make_space(axes=AXES, sampler={"name": "tpe", "seed": seed})
            told = learn([str(path)] if learns else [], space, tmp_path).told
            assert len(told) == 42 * learns
            first = Sampled(space, "s", learned=told).propose(0)
            assert first is not None
            found.append(abs(math.log10(first.config.optim.lr / 0.0106)))
        far.append(sum(found) / len(found))
    assert far[0] < 0.7 * far[1], far
