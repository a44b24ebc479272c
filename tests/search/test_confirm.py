"""Confirming, extending, stopping and replaying a study."""

import io
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from reports.build import build_report
from reports.frames import load
from reports.verdict import verdict_of
from search.study.folder import StudyDir
from search.study.identity import fingerprints_of
from search.study.journal import Journal
from search.verbs.confirm import (
    Candidate,
    _show,
    best_points,
    confirm,
    confirmation,
    confirms,
)
from search.verbs.replay import replay
from search.verbs.report import report_confirmed
from search.verbs.status import stop_driver
from tcpa_core.config import TrialConfig
from tcpa_core.errors import StudyError
from tcpa_core.training.run_trial import run_trial
from tests.journals import recorded, write
from tests.search.conftest import make_space, run_stubs

MakeStudy = Callable[..., StudyDir]


def write_search(study: StudyDir, values: dict[str, float], seed: int = 0) -> None:
    """A journal with completed trials at these objectives, one point each."""
    journal = Journal(study.journal_path)
    write(journal, {"kind": "study", "name": study.name})
    for i, (trial, value) in enumerate(values.items()):
        params = TrialConfig.from_flat({"optim.lr": 0.01 * (i + 1), "seed": seed}).flat()
        planned = {"trial": trial, "params": params, "digest": trial, "point": f"p{i}"}
        write(
            journal,
            {"kind": "planned", **planned, "seed": seed, "labels": {}, "origin": "x", "draw": {}},
            {"kind": "completed", "trial": trial, "status": "completed", "val_accuracy": value},
        )
    write(journal, {"kind": "finished"})
    journal.close()


def test_best_points_are_ranked(make_study: MakeStudy) -> None:
    study = make_study(make_space())
    write_search(study, {"a": 0.5, "b": 0.9, "c": 0.7})
    best = best_points(study, 2)
    assert [value for value, _ in best.values()] == [0.9, 0.7]
    assert [settings["optim.lr"] for _, settings in best.values()] == [0.02, 0.03]
    assert all("seed" not in settings for _, settings in best.values())


def test_a_confirmation_takes_seeds_the_search_never_had(make_study: MakeStudy) -> None:
    study = make_study(make_space())
    write_search(study, {"a": 0.5, "b": 0.9}, seed=4)
    space = confirmation(study, "stubs_confirm", best_points(study, 2), 3)
    design = space.design()
    assert {point.seed for point in design} == {5, 6, 7}
    assert len(design) == 6
    assert space.ablation is not None
    assert space.ablation.test == "winner" and space.ablation.race
    assert {space.config(p.point, p.seed).optim.lr for p in design} == {0.01, 0.02}


def test_a_comparison_confirms_the_best_point_of_each_method(make_study: MakeStudy) -> None:
    axes = {"methods": {"choice": [["linear"], ["vpt"]]}, "optim.lr": {"choice": [0.1, 0.2, 0.3]}}
    sampler = {"name": "random", "per": "methods"}
    study = make_study(make_space(base={}, axes=axes, sampler=sampler))
    journal = Journal(study.journal_path)
    for i, (method, lr, value) in enumerate(
        [("vpt", 0.1, 0.9), ("vpt", 0.2, 0.8), ("linear", 0.3, 0.4), ("linear", 0.1, 0.5)]
    ):
        config = TrialConfig.from_flat({"methods": [method], "optim.lr": lr})
        planned = {"trial": f"{i}", "params": config.flat(), "digest": f"{i}", "point": f"{i}"}
        write(
            journal,
            {"kind": "planned", **planned, "seed": 0, "labels": {}, "origin": "x", "draw": {}},
            {"kind": "completed", "trial": f"{i}", "status": "completed", "val_accuracy": value},
        )
    journal.close()
    best = best_points(study, 3)
    assert {row: value for row, (value, _) in best.items()} == {"vpt": 0.9, "linear": 0.5}
    ablation = confirmation(study, "stubs_confirm", best, 3).ablation
    assert ablation is not None
    assert (ablation.baseline, ablation.test, ablation.race) == ("vpt", "all", False)


def test_a_confirmation_of_segmentations_is_of_their_task(make_study: MakeStudy) -> None:
    """Rows have all settings, the task too, which must not look like one that varies."""
    study = make_study(make_space(base={"task.name": "segment"}))
    write_search(study, {"a": 0.5, "b": 0.9})
    rows = {}
    for name, lr in (("a", 0.01), ("b", 0.02)):
        flat = TrialConfig.from_flat({"task.name": "segment", "optim.lr": lr}).flat()
        rows[name] = Candidate(0.9, {path: flat[path] for path in flat if path != "seed"})
    space = confirmation(study, "stubs_confirm", rows, 2)
    assert space.base["task.name"] == "segment"
    assert {space.config(p.point, p.seed).task.name for p in space.design()} == {"segment"}


def test_a_confirmation_of_other_points_is_not_taken_up(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(make_space())
    write_search(study, {"a": 0.5, "b": 0.9, "c": 0.7})
    space = confirmation(study, "stubs_confirm", best_points(study, 2), 3)
    StudyDir.create(tmp_path, "stubs_confirm", space, {"data": "d", "weights": "w"}, "")
    with pytest.raises(StudyError, match="stubs_confirm confirms other points or seeds"):
        confirm(study, Console(file=io.StringIO()), top=3, seeds=3)


def test_one_completed_point_cannot_be_confirmed(make_study: MakeStudy) -> None:
    study = make_study(make_space())
    write_search(study, {"a": 0.5})
    with pytest.raises(StudyError, match="1 completed points, two are needed"):
        best_points(study, 2)


def raced(study: StudyDir, values: dict[str, dict[int, float | None]]) -> str:
    """What is shown of a confirmation with these outcomes; None: the trial failed."""
    best = {row: Candidate(0.99, {"methods": ["linear"], "optim.lr": 0.1 * (i + 1)})
            for i, row in enumerate(values)}  # fmt: skip
    space = confirmation(study, "raced", best, 5)
    folder = StudyDir.create(study.path.parent, "raced", space, {}, "")
    journal, number = Journal(folder.journal_path), 0
    for at, (row, found) in enumerate(values.items()):
        for seed, value in found.items():
            trial, status = f"{number:05d}", "failed" if value is None else "completed"
            params = {**best[row].settings, "seed": seed}
            planned = {"trial": trial, "params": params, "digest": trial, "point": row}
            write(journal, 
                {"kind": "planned", **planned, "seed": seed, "origin": "design", "draw": {},
                 "labels": {"cells": [{"factor": "components", "level": row, "order": at,
                                       "baseline": not at}]}},
                {"kind": status, "trial": trial, "status": status, "val_accuracy": value},
            )  # fmt: skip
            number += 1
    write(journal, {"kind": "finished"})
    journal.close()
    text = io.StringIO()
    _show(folder, best, Console(file=text, width=300))
    return text.getvalue()


def test_a_failed_seed_of_the_better_row_leaves_it_open(make_study: MakeStudy) -> None:
    study = make_study(make_space())
    write_search(study, {"a": 0.5, "b": 0.9})
    lost: dict[int, float | None] = {1: 0.95, 2: 0.96, 3: None, 4: 0.95, 5: 0.95}
    whole: dict[int, float | None] = {1: 0.90, 2: 0.91, 3: 0.90, 4: 0.90, 5: 0.91}
    shown = raced(study, {"point 1": lost, "point 2": whole})
    assert "wins" not in shown
    assert (
        "not decided: point 1 has no value for seed 3 and is better than point 2 over the 4 that "
        "both have (+0.0475). Of the rows with every seed, point 2 has the best mean"
    ) in shown
    assert "+0.0860" in shown, "what the search saw less what fresh seeds say"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0.90, 0.91, 0.92, 0.905, 0.9], [0.70, 0.72, 0.71, 0.7, 0.715]),
        ([0.70, 0.72, 0.71, 0.7, 0.715], [0.90, 0.91, 0.92, 0.905, 0.9]),
        ([0.90, 0.80, 0.85, 0.9, 0.8], [0.80, 0.90, 0.84, 0.8, 0.9]),
        ([0.90, 0.90, 0.90, 0.9, 0.9], [0.80, 0.80, 0.80, 0.8, 0.8]),
        ([0.90, None, 0.92, 0.905, 0.9], [0.89, 0.91, 0.90, 0.9, 0.91]),
        ([0.90, 0.91], [0.70, 0.72]),
    ],
)
def test_terminal_and_page_say_the_same(
    first: list[float | None], second: list[float | None], make_study: MakeStudy
) -> None:
    """Who won, or that it is not decided, in the very same words."""
    study = make_study(make_space())
    write_search(study, {"a": 0.5, "b": 0.9})
    rows = {"point 1": dict(enumerate(first, 1)), "point 2": dict(enumerate(second, 1))}
    told = raced(study, rows)
    page = verdict_of(load(study.path.parent / "raced"))
    said = page.sentences[-1]
    assert said[0].lower() + said[1:] in told or said in told
    winners = [row for row in rows if f"{row} wins: " in told]
    assert [page.winner] == (winners or [None])
    assert page.headline.startswith(f"{winners[0]} wins" if winners else "Not decided")


def test_the_search_s_report_is_made_again_when_its_confirmation_ends(
    make_study: MakeStudy,
) -> None:
    study = make_study(make_space())
    write_search(study, {"a": 0.5, "b": 0.9})
    best = best_points(study, 2)
    space = confirmation(study, "stubs_confirm", best, 3)
    about = {"confirms": confirms(study, best)}
    folder = StudyDir.create(study.path.parent, "stubs_confirm", space, {}, "", about)
    assert folder.document()["confirms"]["id"] == study.document()["id"]
    assert folder.document()["confirms"]["values"] == {"point 1": 0.9, "point 2": 0.5}
    journal = Journal(folder.journal_path)
    write(journal, {"kind": "finished"})
    journal.close()
    report_confirmed(folder.path, study.path, Console(file=io.StringIO()))
    page = study.path / "report" / "report.html"
    assert not page.exists(), "one that nobody asked for is not made"
    build_report(study.path)
    page.write_text("old")
    report_confirmed(folder.path, study.path, Console(file=io.StringIO()))
    assert "Its confirmation stubs_confirm" in page.read_text()
    assert "../../stubs_confirm/report/report.html" in page.read_text()


@pytest.mark.integration
def test_only_the_winner_of_a_confirmation_is_tested(
    local_ray: None, make_study: MakeStudy
) -> None:
    rows = {"slow": {"optim.lr": 1e-4}, "good": {"optim.lr": 1e-2}}
    ablation = {"design": "components", "rows": rows, "seeds": [3, 4], "test": "winner"}
    space = make_space(axes=None, sampler=None, scheduler=None, budget=None, ablation=ablation)
    study = make_study(space)
    assert run_stubs(space, study).finished
    events = recorded(study)
    lrs = {e["trial"]: e["params"]["optim.lr"] for e in events if e["kind"] == "planned"}
    assert [lrs[e["trial"]] for e in events if e["kind"] == "tested"] == [1e-2, 1e-2]
    completed = [e for e in events if e["kind"] == "completed"]
    assert len(completed) == 4
    assert all(e.get("test_accuracy") is None for e in completed)


@pytest.mark.integration
def test_an_extended_search_goes_on(local_ray: None, make_study: MakeStudy) -> None:
    study = make_study(make_space(budget={"trials": 4}))
    assert run_stubs(study.space(), study).finished
    study.extend(3)
    assert study.space().budget.trials == 7
    outcome = run_stubs(study.space(), study)
    assert outcome.finished
    assert sum(outcome.counts.values()) == 7
    planned = [e["trial"] for e in recorded(study) if e["kind"] == "planned"]
    assert len(set(planned)) == len(planned) == 7


def test_an_ablation_is_not_extended(make_study: MakeStudy) -> None:
    ablation = {"design": "one_factor", "factors": {"optim.lr": [0.1, 1e-3]}, "seeds": [0]}
    space = make_space(axes=None, sampler=None, scheduler=None, budget=None, ablation=ablation)
    with pytest.raises(StudyError, match="it is an ablation"):
        make_study(space).extend(2)


def test_stopping_names_what_is_wrong(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(make_space())
    with pytest.raises(StudyError, match="is not running"):
        stop_driver(study, Console(file=io.StringIO()))
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: told.append((pid, number)))
    study.lock()
    stop_driver(study, Console(file=io.StringIO()))
    assert [pid for pid, _ in told] == [os.getpid()]
    with monkeypatch.context() as here:
        here.setattr("socket.gethostname", lambda: "elsewhere")
        with pytest.raises(StudyError, match="run 'tcpa stop' there"):
            stop_driver(study, Console(file=io.StringIO()))
    # the number of another container's process, under a host name that both have
    lock = study.path / "driver.lock"
    lock.write_text(lock.read_text().replace(f"pid {os.getpid()}", f"pid {os.getppid()}"))
    with pytest.raises(StudyError, match="by no process that can be seen from here"):
        stop_driver(study, Console(file=io.StringIO()))
    assert len(told) == 1
    study.unlock()
    assert study.driver() is None


@pytest.mark.integration
def test_a_trial_comes_out_again(
    make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    settings = {"methods": ["linear"], "train.epochs": 3, "seed": 1}
    reports: list[dict[str, float]] = []
    config = TrialConfig.from_flat(settings)
    prints = fingerprints_of([config])
    study = make_study(make_space(), prints=prints)
    run_trial(config, on_epoch=lambda report: reports.append(asdict(report)))
    journal = Journal(study.journal_path)
    planned = {"trial": "00000", "params": config.flat(), "digest": "d", "point": "p", "seed": 1}
    write(journal, {"kind": "planned", **planned, "labels": {}, "origin": "x", "draw": {}})
    for report in reports[:2]:
        write(journal, {"kind": "epoch", "trial": "00000", **report})
    text = io.StringIO()
    assert replay(study, "00000", Console(file=text)) == 0
    assert "bit for bit" in text.getvalue()
    assert "epoch 3" not in text.getvalue()
    write(journal, {"kind": "epoch", "trial": "00000", **reports[2], "val_loss": 9.0})
    result = {"best_epoch": 3, "num_epochs": 3, "val_accuracy": reports[2]["val_accuracy"]}
    write(journal, {"kind": "completed", "trial": "00000", **result})
    journal.close()
    assert replay(study, "best", Console(file=text)) == 1
    assert "DIFFER" in text.getvalue()
    with pytest.raises(StudyError, match="no trial '00009'"):
        replay(study, "00009", Console(file=text))
