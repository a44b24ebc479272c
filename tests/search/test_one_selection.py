"""One selected point: the trial that is tested, report, confirm, status, live view and ablate."""

import io
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from reports.build import build_report
from reports.records.journal import load_journal
from reports.summary import select
from reports.tables import frame_of, trial_table
from search.study.folder import StudyDir
from search.study.journal import Journal
from search.tracking.mirror import sync
from search.verbs.confirm import best_points, chosen_point
from search.verbs.progress import Watch
from search.verbs.status import show_status
from spaces.selection import Results
from tests.journals import recorded, write
from tests.search.conftest import make_space, run_stubs

MakeStudy = Callable[..., StudyDir]
SEEDS = [0, 1, 2]
VAL_LOSS = {"metric": "val_loss", "goal": "minimize"}
LRS = [0.001, 0.002, 0.004, 0.008, 0.016]


def fill(study: StudyDir, points: dict[float, list[Any]]) -> None:
    """A journal of points, by learning rate, with the outcome of each seed: the objective's value,
    or a status; None: it has not ended."""
    metric = study.space().objective[0].metric
    journal, number = Journal(study.journal_path), 0
    write(journal, {"kind": "study", "name": study.name})
    for lr, outcomes in points.items():
        for seed, outcome in enumerate(outcomes):
            trial = f"{number:05d}"
            params = {"methods": ["linear"], "optim.lr": lr, "seed": seed}
            write(journal, 
                {"kind": "planned", "trial": trial, "params": params, "digest": f"{lr}/{seed}",
                 "point": f"{lr}", "seed": seed, "labels": {"cells": []}, "origin": "sampler",
                 "draw": {}}
            )  # fmt: skip
            kind = outcome if isinstance(outcome, str) else "completed"
            value = 0.99 if kind == "pruned" else None if isinstance(outcome, str) else outcome
            measured = {"val_accuracy": 0.5, "val_loss": 0.5, metric: value}
            about = {"status": kind, "reason": "", "num_epochs": 1, "duration_s": 1.0}
            if outcome is not None:
                write(journal, {"kind": kind, "trial": trial, **about, **measured})
            number += 1
    journal.close()


def test_everyone_selects_the_same_trials(make_study: MakeStudy) -> None:
    draw = random.Random(0)
    for number in range(20):
        changes: dict[str, Any] = {"seeds": SEEDS}
        if number % 2:
            changes["objective"] = VAL_LOSS
        study = make_study(make_space(**changes), name=f"s{number}")
        fill(study, random_points(draw))
        check_one(study)


def random_points(draw: random.Random) -> dict[float, list[Any]]:
    """Outcomes of five points; more or fewer of them poor."""
    odd: list[Any] = ["failed", "pruned", math.nan, math.inf, None]
    share = draw.choice([0.1, 0.5, 0.9])
    return {
        lr: [draw.choice(odd) if draw.random() < share else round(draw.random(), 2) for _ in SEEDS]
        for lr in LRS
    }


def check_one(study: StudyDir) -> None:
    """What is tested, and everything that names a best point, agree."""
    space = study.space()
    found = Results.of(space, study.state()).ranking().selected
    text, shown = io.StringIO(), Watch("s", space, None, Console(file=io.StringIO()))
    show_status(study, Console(file=text, width=500))
    for event in study.events():
        shown(event)
    records = load_journal(study.path)
    reported = select(frame_of(trial_table(records)), records.study)
    if found is None:
        assert reported is None and "best" not in text.getvalue()
        assert shown._best_line() == "-"
        return
    assert reported is not None
    assert (reported.trials, reported.value) == (found.trials, found.value)
    assert f"best {space.objective[0].metric} {found.text()[:-1]}" in text.getvalue()
    assert f"{space.objective[0].metric} {found.text()[:-1]}" in shown._best_line()
    value, settings = best_points(study, 1)["point 1"]
    planned = {e["trial"]: e["params"] for e in recorded(study) if e["kind"] == "planned"}
    lrs = {planned[trial]["optim.lr"] for trial in found.trials}
    assert (value, {settings["optim.lr"]}) == (found.value, lrs)
    assert chosen_point(study, study.path.parent)[0] == settings
    assert reported.settings["optim.lr"] == settings["optim.lr"]


@pytest.mark.parametrize("rest", ["failed", "pruned", math.nan, None])
def test_a_point_whose_other_seeds_are_lost_is_not_selected(
    make_study: MakeStudy, rest: Any
) -> None:
    study = make_study(make_space(seeds=SEEDS))
    fill(study, {0.1: [0.90, 0.91, 0.92], 0.2: [0.95, rest, rest], 0.3: [0.80, 0.81, 0.80]})
    check_one(study)
    best = best_points(study, 3)
    assert [settings["optim.lr"] for _, settings in best.values()] == [0.1, 0.3, 0.2]
    assert [value for value, _ in best.values()] == pytest.approx([0.91, 0.80333333, 0.95])
    text = io.StringIO()
    show_status(study, Console(file=text, width=500))
    assert "best val_accuracy 0.9100 over 3 seeds (trials 00000, 00001, 00002)" in text.getvalue()
    assert "1 of 3 points with a value lack it for some of the 3 seeds" in text.getvalue()


def test_the_test_numbers_of_the_selected_point_are_reported(make_study: MakeStudy) -> None:
    study = make_study(make_space(seeds=SEEDS))
    fill(study, {0.1: [0.90, 0.91, 0.92], 0.2: [0.95, "failed", "failed"]})
    selected = Results.of(study.space(), study.state()).ranking().selected
    assert selected is not None
    journal = Journal(study.journal_path)
    for i, trial in enumerate(selected.trials):
        write(journal, {"kind": "tested", "trial": trial, "test_loss": 0.5,
                        "test_accuracy": 0.8 + i / 100})  # fmt: skip
    write(journal, {"kind": "finished"})
    journal.close()
    summary = build_report(study.path)
    assert summary.selected is not None
    assert summary.selected.test_accuracy == pytest.approx(0.81)
    assert any("1 of 2 points with a value lack it" in note for note in summary.notes)
    assert "over 3 seed(s); test accuracy 81.00 %" in "\n".join(summary.lines())
    assert "test accuracy 81.00 %" in Path(summary.html).read_text()


@pytest.mark.integration
def test_the_tested_trials_are_those_that_are_reported(
    local_ray: None, make_study: MakeStudy
) -> None:
    """With noise between seeds, early stopping and failures, as they come from workers."""
    asha = {"name": "asha", "grace_epochs": 1, "reduction_factor": 3}
    space = make_space(seeds=SEEDS, scheduler=asha, budget={"trials": 30})
    study = make_study(space, noise=0.05, diverges_above=0.05)
    assert run_stubs(space, study).finished
    check_one(study)
    tested = [event for event in recorded(study) if event["kind"] == "tested"]
    summary = build_report(study.path)
    assert summary.selected is not None
    assert {event["trial"] for event in tested} == set(summary.selected.trials)
    mean = sum(event["test_accuracy"] for event in tested) / len(tested)
    assert summary.selected.test_accuracy == pytest.approx(mean)


@pytest.mark.integration
def test_mlflow_names_the_selected_trials(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(make_space(seeds=SEEDS))
    fill(study, {0.1: [0.90, 0.91, 0.92], 0.2: [0.95, "failed", math.nan], 0.3: [0.8, 0.8, 0.8]})
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    sync(study.path, uri, artifact_root=tmp_path / "artifacts")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None
    key = "tags.`tcpa.kind` = 'study'"
    (own,) = client.search_runs([experiment.experiment_id], key)
    assert own.data.tags["tcpa.selected"] == "00000, 00001, 00002"
    assert own.data.tags["tcpa.selected_value"] == (
        "val_accuracy 0.9100 over 3 seeds (trials 00000, 00001, 00002)"
    )
