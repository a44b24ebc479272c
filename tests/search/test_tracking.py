"""The MLflow mirror: complete, the same after a repeat, and never in the way of a study."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from search.study import Journal
from search.tracking import Mirror, sync, without_secrets
from tcpa_core.errors import StudyError
from tcpa_core.record import read_journal

pytestmark = pytest.mark.integration

EPOCHS = 4
LABELS = {"cells": [{"factor": "optim.lr", "level": "0.1", "order": 0, "baseline": True}]}
PARAMS = {"methods": ["tcpa", "vpt"], "optim.lr": 0.1, "data.root": None, "seed": 3}


def planned(trial: str) -> dict[str, Any]:
    return {"kind": "planned", "trial": trial, "params": PARAMS, "digest": f"d{trial}",
            "point": "p0", "seed": 3, "labels": LABELS, "origin": "design"}  # fmt: skip


def epoch(trial: str, number: int) -> dict[str, Any]:
    measured = {"train_loss": 1.0, "ce_loss": 0.9, "match_loss": 0.1, "lr": 0.1,
                "val_loss": 2.0 / number, "val_accuracy": 0.1 * number,
                "duration_s": 0.5, "images_per_s": 80.0}  # fmt: skip
    return {"kind": "epoch", "trial": trial, "epoch": number, **measured}


def final(trial: str, status: str, **fields: Any) -> dict[str, Any]:
    result = {"status": status, "reason": "", "num_epochs": EPOCHS, "best_epoch": EPOCHS,
              "val_accuracy": 0.4, "val_loss": 0.5, "test_accuracy": None, "num_trainable": 10,
              "duration_s": 2.0, "device": "cpu", "warnings": []}  # fmt: skip
    return {"kind": status, "trial": trial, **result, **fields}


def events() -> list[dict[str, Any]]:
    """A study of three trials, in the order in which they would come."""
    trials = ("00000", "00001", "00002")
    lines: list[dict[str, Any]] = [{"kind": "study", "name": "small"}]
    lines += [planned(trial) for trial in trials]
    lines += [{"kind": "started", "trial": trial, "device": "cpu", "epoch": 0} for trial in trials]
    lines += [epoch(trial, number) for number in range(1, EPOCHS + 1) for trial in trials]
    lines += [
        final("00000", "completed"),
        final("00001", "pruned"),
        final("00002", "failed", reason="train_loss is nan at epoch 5", val_accuracy=None),
        {"kind": "tested", "trial": "00000", "test_loss": 0.6, "test_accuracy": 0.38},
        {"kind": "finished"},
    ]
    return lines


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    state = folder / "checkpoints" / "00000" / "best.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"state")
    journal = Journal(folder / "journal.jsonl")
    journal.append(*events())
    journal.close()
    return folder


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


def runs_of(uri: str, study: Path) -> dict[str, Run]:
    """Runs by trial; "" is the study's own."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(study.name)
    found = client.search_runs([experiment.experiment_id])
    runs = {run.data.tags.get("tcpa.trial", ""): run for run in found}
    assert len(runs) == len(found), "a trial has two runs"
    return runs


def points_of(uri: str, study: Path) -> list[tuple[str, str, int, float]]:
    """Every metric point: trial, name, step, value."""
    client = MlflowClient(tracking_uri=uri)
    return sorted(
        (trial, key, point.step, point.value)
        for trial, run in runs_of(uri, study).items()
        for key in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, key)
    )


def expected_points() -> list[tuple[str, str, int, float]]:
    points = []
    for event in events():
        if event["kind"] == "epoch":
            values = {k: v for k, v in event.items() if isinstance(v, float)}
            points += [(event["trial"], k, event["epoch"], v) for k, v in values.items()]
        elif "status" in event:
            named = {"num_epochs": EPOCHS, "best_epoch": EPOCHS, "num_trainable": 10,
                     "selected_val_loss": 0.5, "total_duration_s": 2.0}  # fmt: skip
            if event["val_accuracy"] is not None:
                named["selected_val_accuracy"] = 0.4
            points += [(event["trial"], k, 0, float(v)) for k, v in named.items()]
        elif event["kind"] == "tested":
            points += [("00000", "test_loss", 0, 0.6), ("00000", "test_accuracy", 0, 0.38)]
    return sorted(points)


def check(uri: str, study: Path) -> None:
    """MLflow holds the study of `events`: nothing is missing, nothing is twice."""
    runs = runs_of(uri, study)
    assert set(runs) == {"", "00000", "00001", "00002"}
    assert points_of(uri, study) == expected_points()
    parent = runs.pop("")
    assert parent.data.tags["tcpa.kind"] == "study"
    assert {run.info.status for run in (parent, runs["00000"], runs["00001"])} == {"FINISHED"}
    assert runs["00002"].info.status == "FAILED"
    assert runs["00002"].data.tags["tcpa.reason"] == "train_loss is nan at epoch 5"
    for trial, run in runs.items():
        tags = run.data.tags
        assert run.data.params == {path: str(value) for path, value in PARAMS.items()}
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert [tags[f"tcpa.{k}"] for k in ("study", "digest", "point", "seed", "origin")] == [
            study.name, f"d{trial}", "p0", "3", "design"]  # fmt: skip
        assert json.loads(tags["tcpa.labels"]) == LABELS
        assert tags["tcpa.methods"] == "tcpa+vpt"
    statuses = [runs[trial].data.tags["tcpa.status"] for trial in sorted(runs)]
    assert statuses == ["completed", "pruned", "failed"]


def artifacts(uri: str, run: Run) -> dict[str, Path]:
    client = MlflowClient(tracking_uri=uri)
    found = client.list_artifacts(run.info.run_id)
    return {a.path: Path(client.download_artifacts(run.info.run_id, a.path)) for a in found}


def test_sync_writes_everything_and_a_repeat_changes_nothing(
    study: Path, uri: str, tmp_path: Path
) -> None:
    for _ in range(2):
        assert sync(study, uri, artifact_root=tmp_path / "mlartifacts") == 3
        check(uri, study)
    runs = runs_of(uri, study)
    files = artifacts(uri, runs["00000"])
    assert set(files) == {"config.json", "best.safetensors"}
    assert files["best.safetensors"].read_bytes() == b"state"
    assert json.loads(files["config.json"].read_text()) == PARAMS
    assert set(artifacts(uri, runs["00001"])) == {"config.json"}
    assert (tmp_path / "mlartifacts" / "small").is_dir()


def test_the_mirror_follows_events_as_they_come(study: Path, uri: str, tmp_path: Path) -> None:
    mirror = Mirror(study, uri, artifact_root=tmp_path / "mlartifacts")
    for event in read_journal(study / "journal.jsonl"):
        mirror.put(event)
    assert mirror.close()
    check(uri, study)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_mirror_that_died_is_completed_without_doubles(
    share: float, study: Path, uri: str, tmp_path: Path
) -> None:
    every = list(read_journal(study / "journal.jsonl"))
    mirror = Mirror(study, uri, artifact_root=tmp_path / "mlartifacts")
    for event in every[: int(share * len(every))]:
        mirror.put(event)
    assert mirror.close()
    assert points_of(uri, study) != expected_points()
    sync(study, uri, artifact_root=tmp_path / "mlartifacts")
    check(uri, study)


@pytest.fixture
def short_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("search.tracking.RETRY_S", 0.1)
    yield


@pytest.mark.usefixtures("short_retries")
def test_a_tracker_that_is_down_stops_nothing(study: Path) -> None:
    said: list[str] = []
    mirror = Mirror(study, "http://me:sesame@127.0.0.1:1", warn=said.append)
    begun = time.monotonic()
    for event in read_journal(study / "journal.jsonl"):
        mirror.put(event)
    assert time.monotonic() - begun < 0.1
    begun = time.monotonic()
    assert not mirror.close(timeout_s=8.0)
    assert time.monotonic() - begun < 9.0
    assert len(said) == 1
    assert "does not answer at http://127.0.0.1:1 " in said[0]
    with pytest.raises(StudyError, match="does not answer at 'http://127.0.0.1:1'"):
        sync(study, "http://127.0.0.1:1")


@pytest.mark.usefixtures("short_retries")
def test_the_backlog_is_written_when_the_tracker_returns(
    study: Path, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    log_batch = MlflowClient.log_batch

    def flaky(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        done = log_batch(self, *args, **kwargs)
        if calls in (2, 5):  # written, but the answer is lost
            raise ConnectionError("gone")
        return done

    monkeypatch.setattr(MlflowClient, "log_batch", flaky)
    said: list[str] = []
    mirror = Mirror(study, uri, artifact_root=tmp_path / "mlartifacts", warn=said.append)
    for event in read_journal(study / "journal.jsonl"):
        mirror.put(event)
    deadline = time.monotonic() + 60
    while said.count("MLflow answers again.") < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mirror.close()
    check(uri, study)
    assert said[-1] == "MLflow answers again."


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host:5000/x", "https://host:5000/x"),
        ("postgresql://me:a@b@host/db", "postgresql://host/db"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("databricks", "databricks"),
    ],
)
def test_addresses_are_shown_without_secrets(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown
