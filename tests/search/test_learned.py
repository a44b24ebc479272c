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
from spaces.space import Space
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


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("lr,accuracy\n1,2\n", "no column 'val_accuracy'"),
        ("val_accuracy\n0.5\n", "no column 'optim.lr'"),
        ("optim.lr;val_accuracy\n0.1;0.5\n", "no column"),
        ("optim.lr,val_accuracy\n", "no row"),
        ("", "no row"),
    ],
)
def test_a_table_without_a_column_or_row_is_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "old.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match):
        learn([str(path)], make_space(axes=AXES), tmp_path)


def told_of(path: Path, text: str, space: Space) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    path.write_text(text)
    lesson = learn([str(path)], space, path.parent)
    return [(one.source, one.params) for one in lesson.told], lesson.left_out


def test_what_a_row_does_not_say_is_no_default(tmp_path: Path) -> None:
    told, left = told_of(
        tmp_path / "t.csv", "optim.lr,val_accuracy\n,0.7\n0.02,70\n", make_space(axes=AXES)
    )
    assert not told
    assert left == {
        "optim.lr has no value": ["t.csv:2"],
        "val_accuracy is a share between 0 and 1": ["t.csv:3"],
    }


def test_a_table_of_a_spreadsheet_or_of_pandas_is_read(tmp_path: Path) -> None:
    """A mark before the first column; whole numbers with a point; settings of other chains."""
    axes = {
        "methods": {"choice": [["linear"], ["vpt"]]},
        "vpt.num_prompts": {"int": [2, 8]},
    }
    space = make_space(base={"vpt.deep": False}, axes=axes)
    text = "\ufeffmethods,vpt.num_prompts,seed,val_accuracy\n[linear],,0.0,0.5\n[vpt],4.0,,0.6\n"
    told, left = told_of(tmp_path / "t.csv", text, space)
    assert told == [
        ("t.csv:2", {"methods": ["linear"]}),
        ("t.csv:3", {"methods": ["vpt"], "vpt.num_prompts": 4}),
    ]
    assert not left


def test_a_fraction_and_a_constraint_are_checked_where_the_point_lies(tmp_path: Path) -> None:
    pool, count, other = "tcpa.num_image_prompts", "tcpa.top_k_image", "tcpa.num_cls_prompts"
    axes = {
        pool: {"int": [8, 40]},
        other: {"int": [4, 40]},
        count: {"fraction_of": pool, "range": [0.25, 0.5]},
    }
    space = make_space(base={"methods": ["tcpa"]}, axes=axes, constraints=[f"{other} <= {pool}"])
    text = f"{pool},{count},{other},val_accuracy\n16,8,10,0.9\n16,16,10,0.9\n16,8,20,0.9\n"
    told, left = told_of(tmp_path / "t.csv", text, space)
    assert [name for name, _ in told] == ["t.csv:2"]
    assert left == {
        f"{count} is outside its axis": ["t.csv:3"],
        f"{other} is outside its axis": ["t.csv:4"],
    }
    lesson = learn([str(tmp_path / "t.csv")], space, tmp_path)
    (known,) = Sampled(space, "s", learned=lesson.told)._points.study.get_trials()
    assert known.params[f"{count}/{pool}"] == pytest.approx(0.475)


def test_a_study_s_own_table_says_what_was_stopped_early(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text(
        "status,optim.lr,num_epochs,train.epochs,val_accuracy\n"
        "completed,0.01,6,6,0.7\npruned,0.02,2,6,0.9\nfailed,0.03,,6,0.1\npruned,0.04,,6,0.9\n"
    )
    lesson = learn([str(path)], make_space(axes=AXES), tmp_path)
    assert [(one.source, one.epoch, one.note) for one in lesson.told] == [
        ("trials.csv:2", None, ""),
        ("trials.csv:3", 2, "stopped after 2 epochs"),
    ]
    assert sorted(name for names in lesson.left_out.values() for name in names) == [
        "trials.csv:4", "trials.csv:5",
    ]  # fmt: skip


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
