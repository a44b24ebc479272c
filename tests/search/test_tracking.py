"""The MLflow mirror: complete, the same after a repeat, and never in the way of a study."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from search.study.journal import Journal
from search.tracking.mirror import Mirror, check_tracker, sync
from search.tracking.secrets import without_secrets
from tcpa_core.errors import StudyError
from tcpa_core.record.events import read_journal
from tests.journals import event as made

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


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.tracking.mirror.RETRY_S", 0.1)
    monkeypatch.setattr("search.tracking.mirror.BATCH_S", 0.1)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A study before its first event."""
    folder = tmp_path / "small"
    state = folder / "checkpoints" / "00000" / "best.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"state")
    return folder


@pytest.fixture
def study(empty: Path) -> Path:
    """A study that has ended."""
    record(empty, events())
    return empty


def record(study: Path, lines: list[dict[str, Any]], mirror: Mirror | None = None) -> None:
    """Write events as a driver does."""
    journal = Journal(study / "journal.jsonl")
    for line in lines:
        for event in journal.append(made(line)):
            if mirror is not None:
                mirror.put(event)
    journal.close()


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


def experiment_exists(uri: str, study: Path) -> bool:
    return MlflowClient(tracking_uri=uri).get_experiment_by_name(study.name) is not None


def points_of(uri: str, study: Path) -> list[tuple[str, str, int, float]]:
    """Every metric point of the trials: trial, name, step, value."""
    client = MlflowClient(tracking_uri=uri)
    return sorted(
        (trial, key, point.step, point.value)
        for trial, run in runs_of(uri, study).items()
        if trial
        for key in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, key)
    )


def expected_points() -> list[tuple[str, str, int, float]]:
    points = []
    for event in events():
        if event["kind"] == "epoch":
            values = {k: v for k, v in event.items() if isinstance(v, float)}
            points += [(event["trial"], f"epoch/{k}", event["epoch"], v) for k, v in values.items()]
        elif "status" in event:
            named = {"num_epochs": EPOCHS, "best_epoch": EPOCHS, "num_trainable": 10,
                     "val_loss": 0.5, "duration_s": 2.0}  # fmt: skip
            if event["val_accuracy"] is not None:
                named["val_accuracy"] = 0.4
            points += [(event["trial"], k, 0, float(v)) for k, v in named.items()]
        elif event["kind"] == "tested":
            points += [("00000", "test_loss", 0, 0.6), ("00000", "test_accuracy", 0, 0.38)]
    return sorted(points)


SUMMED_UP = {"num_trials": 3, "num_completed": 1, "num_pruned": 1, "num_failed": 1}


def check(uri: str, study: Path) -> None:
    """MLflow holds the study of `events`: nothing is missing, nothing is twice."""
    runs = runs_of(uri, study)
    assert set(runs) == {"", "00000", "00001", "00002"}
    assert points_of(uri, study) == expected_points()
    parent = runs.pop("")
    assert parent.data.tags["tcpa.kind"] == "study"
    assert {run.info.status for run in (parent, runs["00000"])} == {"FINISHED"}
    assert [runs[trial].info.status for trial in ("00001", "00002")] == ["KILLED", "FAILED"]
    assert SUMMED_UP.items() <= parent.data.metrics.items()
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
    told: list[tuple[str, int, int]] = []
    for _ in range(2):
        found = sync(
            study,
            uri,
            artifact_root=tmp_path / "mlartifacts",
            progress=lambda *what: told.append(what),
        )
        assert found == 3
        check(uri, study)
    size = (study / "journal.jsonl").stat().st_size
    assert told[-1] == ("write to MLflow", size, size)
    runs = runs_of(uri, study)
    files = artifacts(uri, runs["00000"])
    assert set(files) == {"config.json", "best.safetensors"}
    assert files["best.safetensors"].read_bytes() == b"state"
    assert json.loads(files["config.json"].read_text()) == PARAMS
    assert set(artifacts(uri, runs["00001"])) == {"config.json"}
    assert (tmp_path / "mlartifacts" / "small").is_dir()


def test_the_mirror_follows_events_as_they_come(empty: Path, uri: str, tmp_path: Path) -> None:
    mirror = Mirror(empty, uri, artifact_root=tmp_path / "mlartifacts")
    record(empty, events(), mirror)
    assert mirror.close()
    check(uri, empty)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("by", ["sync", "resume"])
def test_a_mirror_that_died_is_completed_without_doubles(
    by: str, share: float, empty: Path, uri: str, tmp_path: Path
) -> None:
    cut = int(share * len(events()))
    artifacts = tmp_path / "mlartifacts"
    mirror = Mirror(empty, uri, artifact_root=artifacts)
    record(empty, events()[:cut], mirror)
    assert mirror.close()
    assert points_of(uri, empty) != expected_points()
    assert "RUNNING" not in {run.info.status for run in runs_of(uri, empty).values()}
    if by == "sync":
        record(empty, events()[cut:])
        sync(empty, uri, artifact_root=artifacts)
    else:
        mirror = Mirror(empty, uri, artifact_root=artifacts)
        record(empty, events()[cut:], mirror)
        assert mirror.close()
    check(uri, empty)


def test_a_tracker_that_is_down_stops_nothing(study: Path) -> None:
    said: list[str] = []
    mirror = Mirror(study, "http://me:sesame@127.0.0.1:1", warn=said.append)
    begun = time.monotonic()
    for event in read_journal(study / "journal.jsonl"):
        mirror.put(event)
    assert time.monotonic() - begun < 2.0, "MLflow's own retries take longer"
    begun = time.monotonic()
    assert not mirror.close(timeout_s=8.0)
    assert time.monotonic() - begun < 20.0
    assert mirror.lacking() == f"{len(events())} events of 3 trials"
    assert len(said) == 1
    assert "does not answer at http://127.0.0.1:1 " in said[0]
    with pytest.raises(StudyError, match="does not answer at 'http://127.0.0.1:1'"):
        sync(study, "http://127.0.0.1:1")


def test_the_backlog_is_written_when_the_tracker_returns(
    empty: Path, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    mirror = Mirror(empty, uri, artifact_root=tmp_path / "mlartifacts", warn=said.append)
    record(empty, events(), mirror)
    deadline = time.monotonic() + 60
    while said.count("MLflow answers again.") < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mirror.close()
    check(uri, empty)
    assert said[-1] == "MLflow answers again."


def test_a_run_that_was_made_twice_is_left_once(
    empty: Path, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_run = MlflowClient.create_run
    late: list[tuple[Any, dict[str, Any]]] = []

    def slow(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        if not late and "tcpa.trial" in kwargs["tags"]:
            late.append((args, kwargs))
            raise TimeoutError("no answer")
        return create_run(self, *args, **kwargs)

    terminate = MlflowClient.set_terminated

    def arrive(self: MlflowClient, *args: Any, **kwargs: Any) -> None:
        if len(late) == 1:  # the server carries the first request out after all
            late.append(late[0])
            create_run(self, *late[0][0], **late[0][1])
        terminate(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", slow)
    monkeypatch.setattr(MlflowClient, "set_terminated", arrive)
    mirror = Mirror(empty, uri, artifact_root=tmp_path / "mlartifacts")
    record(empty, events(), mirror)
    assert mirror.close()
    assert len(late) == 2
    check(uri, empty)


def test_a_run_deleted_by_hand_holds_nothing_up(empty: Path, uri: str, tmp_path: Path) -> None:
    said: list[str] = []
    cut = [line.get("epoch") for line in events()].index(1)
    mirror = Mirror(empty, uri, artifact_root=tmp_path / "mlartifacts", warn=said.append)
    record(empty, events()[:cut], mirror)
    deadline = time.monotonic() + 60
    while not experiment_exists(uri, empty) or len(runs_of(uri, empty)) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    MlflowClient(uri).delete_run(runs_of(uri, empty)["00001"].info.run_id)
    record(empty, events()[cut:], mirror)
    assert not mirror.close()
    assert len(said) == 1 and said[0].startswith("MLflow refuses trial 00001 (")
    assert mirror.lacking() == "0 events of 1 trials"
    assert set(runs_of(uri, empty)) == {"", "00000", "00002"}
    sync(empty, uri)
    check(uri, empty)


def test_two_studies_of_one_name_keep_apart(uri: str, tmp_path: Path) -> None:
    said: list[str] = []
    for user in ("one", "two", "two"):
        folder = tmp_path / user / "small"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.yaml").write_text(f"id: {user}{user}{user}\n")
        if not (folder / "journal.jsonl").exists():
            record(folder, events())
        sync(folder, uri, artifact_root=tmp_path / "mlartifacts", warn=said.append)
    assert said == 2 * ["MLflow has another study of this name; this one is mirrored as "
                        "'small-twotwotw'."]  # fmt: skip
    for name in ("small", "small-twotwotw"):
        runs = runs_of(uri, Path(name))
        assert set(runs) == {"", "00000", "00001", "00002"}
        assert {run.info.lifecycle_stage for run in runs.values()} == {"active"}


def test_a_damaged_journal_ends_the_mirror_with_a_sentence(empty: Path, uri: str) -> None:
    record(empty, events()[:6])
    path = empty / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"seed":3', b'"seed":4', 1))
    said: list[str] = []
    mirror = Mirror(empty, uri, warn=said.append)
    assert not mirror.close()
    assert len(said) == 1
    assert said[0].startswith("MLflow is not kept up to date any more: journal.jsonl:2: ")


def test_a_tracker_that_never_answers_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.tracking.mirror.ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(StudyError, match=r"does not answer .*\(nothing in 0 s\)"):
            check_tracker(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - begun < 5


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
