"""What an event becomes in MLflow, and which of its runs stay: no tracker is asked."""

import json
from typing import Any

from mlflow.entities import Run, RunData, RunInfo, RunTag

from search.tracking.experiment import without_duplicates
from search.tracking.run_values import (
    MAX_TAG,
    MAX_VALUE,
    metrics_of,
    milliseconds,
    params_of,
    tags_of,
    trial_tags,
)
from tcpa_core.record.events import Ended, Epoch, Planned, Started, Tested
from tcpa_core.record.values import EpochReport, TrialResult


def planned(**changes: Any) -> Planned:
    fields: dict[str, Any] = {
        "trial": "00003", "params": {"methods": ["vpt", "adapter"], "optim.lr": 0.1, "seed": 7},
        "digest": "d", "point": "p", "origin": "sampler", "draw": {}, "t": 12.3456, "n": 4,
    }  # fmt: skip
    return Planned(**{**fields, **changes})


def epoch(number: int, **changes: Any) -> Epoch:
    values = {"train_loss": 1.0, "ce_loss": 1.0, "match_loss": 0.0, "val_loss": 0.5,
              "val_accuracy": 0.75, "lr": 0.1, "duration_s": 2.0, "images_per_s": 3.0}  # fmt: skip
    return Epoch(trial="00003", t=20.0, report=EpochReport(epoch=number, **{**values, **changes}))


def ended(status: Any = "completed", **values: Any) -> Ended:
    return Ended(trial="00003", t=30.0, n=9, result=TrialResult(status=status, **values))


def test_a_trial_is_told_by_its_tags() -> None:
    tags = trial_tags(planned(cells=[{"factor": "f", "level": "l"}], deviation=["one"]))
    assert tags["tcpa.trial"] == "00003" and tags["tcpa.seed"] == "7"
    assert tags["tcpa.methods"] == "vpt+adapter"
    assert json.loads(tags["tcpa.labels"]) == {"cells": [{"factor": "f", "level": "l"}]}
    assert json.loads(tags["tcpa.deviation"]) == ["one"]
    assert json.loads(tags["tcpa.params"])["optim.lr"] == 0.1


def test_what_is_too_long_for_mlflow_is_cut_off() -> None:
    long = planned(params={"methods": ["vpt"], "data.root": "x" * 9000})
    assert len(trial_tags(long)["tcpa.params"]) == MAX_TAG
    assert {len(param.value) for param in params_of(long)} == {len("['vpt']"), MAX_VALUE}


def test_settings_are_parameters_where_the_trial_was_planned() -> None:
    found = {param.key: param.value for param in params_of(planned())}
    assert found == {"methods": "['vpt', 'adapter']", "optim.lr": "0.1", "seed": "7"}
    assert params_of(None) == []


def test_an_epoch_has_its_metrics_at_its_step() -> None:
    found = metrics_of(epoch(3))
    assert {metric.step for metric in found} == {3}
    assert {metric.timestamp for metric in found} == {20_000}
    assert {m.key: m.value for m in found}["epoch/val_accuracy"] == 0.75
    assert {"epoch", "val_accuracy", "epoch/epoch"}.isdisjoint(metric.key for metric in found)


def test_what_was_not_measured_is_no_metric() -> None:
    assert "epoch/lr" not in {metric.key for metric in metrics_of(epoch(3, lr=None))}
    assert "test_accuracy" not in {metric.key for metric in metrics_of(ended())}


def test_an_outcome_is_told_apart_from_its_last_epoch() -> None:
    found = {m.key: (m.value, m.step) for m in metrics_of(ended(val_accuracy=0.5, best_epoch=2))}
    assert found["val_accuracy"] == (0.5, 0) and found["best_epoch"] == (2.0, 0)
    assert "epoch/val_accuracy" not in found and "status" not in found
    tested = Tested(trial="00003", test_loss=None, test_accuracy=0.25)
    assert [(m.key, m.value, m.step) for m in metrics_of(tested)] == [("test_accuracy", 0.25, 0)]


def test_other_events_have_no_numbers() -> None:
    assert metrics_of(planned()) == [] == metrics_of(Started(trial="00003", device="cpu"))


def test_the_last_event_that_a_run_holds_is_that_of_its_end() -> None:
    start = Started(trial="00003", device="cpu", t=15.0, preprocessing={"size": 32})
    running = tags_of([planned(), start, epoch(1)])
    assert json.loads(running["tcpa.started"]) == {"device": "cpu", "t": 15.0}
    assert json.loads(running["tcpa.preprocessing"]) == {"size": 32}
    assert "tcpa.n" not in running and "tcpa.host" not in running
    whole = tags_of([start, ended("failed", reason="x" * 9000, warnings=["w"])])
    assert whole["tcpa.n"] == "9" and whole["tcpa.status"] == "failed"
    assert len(whole["tcpa.reason"]) == MAX_TAG
    assert json.loads(whole["tcpa.result"]) == {"device": "", "warnings": ["w"], "t": 30.0}
    assert "tcpa.reason" not in tags_of([ended()])


def test_a_run_says_what_its_trial_runs_on() -> None:
    hardware = {"host": "a", "id": "0", "name": "H200", "memory_bytes": 150_000_000_000}
    tags = tags_of([Started(trial="00003", device="cuda", hardware=hardware)])
    told = {"tcpa.host": "a", "tcpa.device_name": "H200",
            "tcpa.device_memory_bytes": "150000000000"}  # fmt: skip
    assert told.items() <= tags.items()


def test_times_are_whole_milliseconds() -> None:
    assert milliseconds(planned()) == 12_345


def run(run_id: str, trial: str | None, status: str = "RUNNING", last: int | None = None) -> Run:
    tags = {"tcpa.trial": trial} if trial else {"tcpa.kind": "study"}
    tags |= {} if last is None else {"tcpa.n": str(last)}
    info = RunInfo(run_id, "1", "u", status, 0, 0, "active", artifact_uri="")
    return Run(info, RunData(tags=[RunTag(k, v) for k, v in tags.items()]))


def sorted_out(*runs: Run, current: dict[str, str] | None = None) -> tuple[dict[str, Any], Any]:
    kept, surplus = without_duplicates(runs, "parent", current or {})
    return {trial: (last, one.info.run_id) for trial, (last, one) in kept.items()}, surplus


def test_each_trial_keeps_one_run_and_the_study_its_own() -> None:
    runs = [run("parent", None), run("other", None), run("a", "1"), run("b", "2", "FINISHED", 7)]
    assert sorted_out(*runs) == ({"1": (-1, "a"), "2": (7, "b")}, ["other"])


def test_the_run_that_holds_most_stays() -> None:
    one, two = run("a", "1", "FINISHED", 5), run("b", "1", "FINISHED", 9)
    for order in ((one, two), (two, one)):
        assert sorted_out(*order) == ({"1": (9, "b")}, ["a"])
    open_ = run("c", "1", "RUNNING", 12)  # which may lack what was said between two numbers
    assert sorted_out(one, open_) == ({"1": (5, "a")}, ["c"])


def test_of_runs_that_hold_as_much_the_one_written_to_stays_else_the_oldest() -> None:
    one, two = run("a", "1"), run("b", "1")
    assert sorted_out(one, two) == ({"1": (-1, "a")}, ["b"])
    assert sorted_out(one, two, current={"1": "b"}) == ({"1": (-1, "b")}, ["a"])
