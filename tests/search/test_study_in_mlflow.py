"""What the study's own run in MLflow says: result, cost, data, origin, report and tables."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import RestException
from rich.console import Console

from search.study.folder import StudyDir
from search.tracking.logged_model import register_selected
from search.tracking.mirror import sync, tracking_of
from search.tracking.own_run import datasets_of
from search.tracking.study_files import MOST_BYTES, keep_files
from search.tracking.study_result import note_of_study
from search.verbs.keep_report import keep_report
from tcpa_core.errors import StudyError
from tcpa_core.record.state import StudyState
from tests.faults.servers import MlflowServer
from tests.search.conftest import make_space
from tests.search.test_own_runs import new_root, tables
from tests.search.test_tracking import final, planned, record
from tests.tcpa_core.test_trained import draw, left_behind, settings

pytestmark = pytest.mark.integration
__all__ = ["new_root", "tables"]  # fixtures

DATA = {
    "name": "digits", "fingerprint": "7ef36c90b93e166dcf08943e0f9f564ba7f125479732e723",
    "classes": 10, "images": {"train": 1078, "val": 269, "test": 450}, "notes": [],
    "settings": {"data.name": "digits", "data.root": None},
}  # fmt: skip


def put(study: StudyDir, verdict: str = "vpt leads.", said: list[str] | None = None) -> str:
    uri, artifacts = tracking_of(study, study.path.parent, None)
    warn = (said if said is not None else []).append
    sync(study.path, uri, artifact_root=artifacts, verdict=lambda _: verdict, warn=warn)
    return uri


def own_run(uri: str) -> Run:
    client = MlflowClient(tracking_uri=uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    (run,) = client.search_runs(experiments, "tags.`tcpa.kind` = 'study'")
    return run


def lines(values: dict[str, float], *, are_whole: bool = True) -> list[dict[str, Any]]:
    """Trials by name with their accuracies; one that is stopped early, one that failed."""
    found: list[dict[str, Any]] = [{"kind": "study", "name": "small"}]
    for n, (trial, value) in enumerate(values.items()):
        one = planned(trial)
        params = {**one["params"], "methods": ["vpt"], "optim.lr": 0.01 * (n + 1),
                  "optim.weight_decay": 0.1}  # fmt: skip
        found += [{**one, "params": params, "point": f"p{n}"}]
        found += [{"kind": "started", "trial": trial, "device": "cpu", "epoch": 0}]
        found += [final(trial, "completed", val_accuracy=value, duration_s=1800.0,
                        peak_memory_bytes=1000 * (n + 1))]  # fmt: skip
    found += [{**planned("00008"), "point": "p8"}, final("00008", "pruned", val_accuracy=0.99)]
    found += [{**planned("00009"), "point": "p9"},
              final("00009", "failed", val_accuracy=None, reason="train_loss is nan")]  # fmt: skip
    return [*found, {"kind": "finished"}] if are_whole else found


@pytest.fixture
def study(new_root: Callable[[str], Path]) -> StudyDir:
    root = new_root("studies")
    prints = {"data": DATA["fingerprint"], "weights": "w"}
    return StudyDir.create(root, "small", make_space(seeds=[3]), prints, "", {"data": [DATA]})


def test_the_own_run_carries_the_result_and_a_repeat_adds_nothing(study: StudyDir) -> None:
    record(study.path, lines({"00000": 0.7, "00001": 0.8}))
    client = MlflowClient(tracking_uri=put(study))
    for _ in range(2):
        run = own_run(put(study))
        metrics, tags = run.data.metrics, run.data.tags
        counts = {"num_trials": 4, "num_completed": 2, "num_pruned": 1, "num_failed": 1}
        assert counts.items() <= metrics.items()
        assert (metrics["val_accuracy"], metrics["peak_memory_bytes"]) == (0.8, 2000)
        assert metrics["device_hours"] == pytest.approx(2 * 0.5 + 2 * 2.0 / 3600)
        assert run.data.params == {"optim.lr": "0.02", "optim.weight_decay": "0.1"}
        assert (tags["best.optim.lr"], tags["tcpa.selected"]) == ("0.02", "00001")
        note = tags["mlflow.note.content"]
        assert note.startswith("vpt leads.\n\n4 trials (2 completed, 1 pruned, 1 failed) in ")
        assert "Failed: trial 00009 (train_loss is nan)" in note
        assert tags["mlflow.source.name"] == "tcpa search" and tags["mlflow.user"]
        assert tags["mlflow.source.git.commit"] == study.document()["git"]
        ((one),) = run.inputs.dataset_inputs
        assert (one.dataset.name, one.dataset.digest) == ("digits", "7ef36c90b93e166d")
        profile = json.loads(one.dataset.profile)
        assert profile["images"] == DATA["images"] and profile["fingerprint"] == DATA["fingerprint"]
        for name in metrics:
            assert len(client.get_metric_history(run.info.run_id, name)) == 1, name
    experiment = client.get_experiment(run.info.experiment_id)
    assert json.loads(experiment.tags["mlflow.sharedViewState.tcpa"])["orderByAsc"] is False
    trials = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")
    assert {r.data.tags.get("tcpa.trial", "") for r in trials} == {"", "00000", "00001"}
    assert {r.data.tags["mlflow.user"] for r in trials} == {tags["mlflow.user"]}


def test_a_study_that_goes_on_says_what_is_selected_now(study: StudyDir) -> None:
    """MLflow keeps parameters as they are, so the note says which ones hold."""
    record(study.path, lines({"00000": 0.7}))
    assert own_run(put(study)).data.params["optim.lr"] == "0.01"
    record(study.path, [*lines({"00001": 0.6, "00002": 0.9})[1:7], {"kind": "finished"}])
    run = own_run(put(study))
    assert run.data.tags["best.optim.lr"] == "0.02" and run.data.params["optim.lr"] == "0.01"
    assert "those of this run are of the earlier one" in run.data.tags["mlflow.note.content"]
    assert run.data.metrics["val_accuracy"] == 0.9


def test_an_interrupted_study_has_no_verdict_and_no_parameters(study: StudyDir) -> None:
    record(study.path, lines({"00000": 0.7}, are_whole=False))
    run = own_run(put(study))
    assert run.info.status == "KILLED" and not run.data.params
    assert "vpt leads" not in run.data.tags["mlflow.note.content"]
    assert run.data.tags["best.optim.lr"] == "0.01" and run.data.tags["tcpa.state"] == "interrupted"


def test_a_verdict_that_fails_is_said_and_all_else_is_written(study: StudyDir) -> None:
    record(study.path, lines({"00000": 0.7}))
    uri, artifacts = tracking_of(study, study.path.parent, None)
    said: list[str] = []

    def broken(folder: Path) -> str:
        raise ValueError("no interval")

    sync(study.path, uri, artifact_root=artifacts, verdict=broken, warn=said.append)
    assert said == ["MLflow gets no verdict on small (no interval)."]
    note = own_run(uri).data.tags["mlflow.note.content"]
    assert note.startswith("Selected: val_accuracy 0.7000 (trial 00000: lr 0.01, weight_decay")


def test_report_and_tables_are_files_of_the_run_and_uploaded_once(study: StudyDir) -> None:
    record(study.path, lines({"00000": 0.7}))
    uri = put(study)
    client = MlflowClient(tracking_uri=uri)
    assert {a.path for a in client.list_artifacts(own_run(uri).info.run_id)} == {"study.yaml"}
    for name in ("report/report.html", "tables/trials.csv", "tables/trials.parquet"):
        (study.path / name).parent.mkdir(exist_ok=True)
        (study.path / name).write_text(name)
    large = study.path / "tables" / "predictions.parquet"
    with large.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    said: list[str] = []
    text = io.StringIO()
    put(study, said=said)
    run = own_run(uri)
    assert said == ["MLflow gets no copy of predictions.parquet: above 100 MB."]
    held = {a.path for a in client.list_artifacts(run.info.run_id, "tables")}
    assert held == {"tables/trials.csv", "tables/trials.parquet"}
    path = Path(run.info.artifact_uri.removeprefix("file://")) / "report" / "report.html"
    assert path.read_text() == "report/report.html"
    before = path.stat().st_mtime_ns
    assert keep_files(client, uri, run, study.path, said.append) == 0
    put(study)
    assert path.stat().st_mtime_ns == before, "what is unchanged is not sent again"
    (study.path / "report" / "report.html").write_text("made again")
    keep_report(study, study.path.parent, Console(file=text, width=200))
    keep_report(study, study.path.parent, Console(file=text, width=200))
    assert text.getvalue().splitlines()[-1].startswith("MLflow has the report and its tables, 3")
    assert text.getvalue().count("MLflow has") == 1
    assert path.read_text() == "made again"


def test_a_study_without_trials_or_data_is_described_all_the_same() -> None:
    assert note_of_study(StudyState(), None, {}, "") == "0 trials (none has ended) in 0.0 min."
    assert datasets_of([{"name": "old"}, {}]) == []


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, split in enumerate(("train", "val", "test")):
        for label, name in enumerate(("dark", "light")):
            draw(folder / split / name, shade=10 + 40 * number + 15 * label)
    return folder


def with_trained_trial(study: StudyDir, pictures: Path) -> float:
    """Record a finished study whose only trial left a state; its test accuracy."""
    config = settings(pictures, ["vpt"])
    accuracy = left_behind(config, study.trial_folder("00003"))[1]
    one = {**planned("00003"), "params": config.flat(), "seed": config.seed}
    tested = {"kind": "tested", "trial": "00003", "test_loss": 0.5, "test_accuracy": accuracy}
    end = final("00003", "completed", val_accuracy=0.5)
    record(study.path, [{"kind": "study", "name": "small"}, one, end, tested, {"kind": "finished"}])
    return accuracy


def test_the_winner_is_a_model_that_a_server_gives_back_and_that_tells_what_the_journal_has(
    study: StudyDir, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    accuracy = with_trained_trial(study, pictures)
    database = study.path.parent / "mlflow.db"
    server = MlflowServer(tmp_path, f"sqlite:///{database}")
    server.start()
    try:
        uri = server.uri
        for _ in range(2):
            sync(study.path, uri)
            versions = {register_selected(study.path, uri, "winner") for _ in range(2)}
            assert versions == {"1"}
        client = MlflowClient(tracking_uri=uri)
        experiment = own_run(uri).info.experiment_id
        (model,) = client.search_logged_models([experiment])
        assert {m.key: m.value for m in model.metrics} == {
            "val_accuracy": 0.5, "test_accuracy": accuracy}  # fmt: skip
        assert (model.name, model.tags["tcpa.trial"]) == ("small-00003", "00003")
        (made,) = own_run(uri).outputs.model_outputs
        assert made.model_id == model.model_id
        held = {Path(a.path).name for a in client.list_logged_model_artifacts(model.model_id)}
        assert not [name for name in held if name.endswith((".pkl", ".pickle", ".bin"))]
        mlflow.set_tracking_uri(uri)
        loaded = mlflow.pyfunc.load_model("models:/winner/1")
    finally:
        mlflow.set_tracking_uri(None)
        server.kill()
    test = pictures / "test"
    found = loaded.predict(str(test))
    truth = [Path(path).parent.name for path in found["path"]]
    assert len(truth) == 20
    right = sum(a == b for a, b in zip(found["label"], truth, strict=True))
    assert right / len(truth) == pytest.approx(accuracy, abs=1e-12)
    few = [str(path) for path in sorted(test.glob("dark/*"))[:3]]
    assert list(loaded.predict(few)["label"]) == list(found["label"])[:3]


def test_what_cannot_be_logged_as_a_model_is_said(
    study: StudyDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(study.path, lines({"00000": 0.7}))
    uri = put(study)
    with pytest.raises(StudyError, match="--register: MLflow has no model of 'small'; a search"):
        register_selected(study.path, uri, "winner")
    best = study.trial_folder("00000") / "best.safetensors"
    best.parent.mkdir(parents=True)
    best.write_bytes(b"tensors")
    said: list[str] = []
    monkeypatch.setattr("search.tracking.logged_model.MOST_BYTES", 3)
    put(study, said=said)
    monkeypatch.setattr("search.tracking.logged_model.MOST_BYTES", 1 << 30)

    def absent(*args: Any, **kwargs: Any) -> None:
        raise RestException({"error_code": "ENDPOINT_NOT_FOUND", "message": "no such page"})

    with monkeypatch.context() as older:
        older.setattr(MlflowClient, "create_logged_model", absent)
        put(study, said=said)
    assert said == [
        "MLflow gets no model of trial 00000: above 0 GB.",
        "MLflow takes no models (ENDPOINT_NOT_FOUND); the trial's state is a file of its run.",
    ]
    with monkeypatch.context() as killed:
        killed.setattr(MlflowClient, "finalize_logged_model", absent)
        put(study)
    put(study, said=said)
    client = MlflowClient(tracking_uri=uri)
    (model,) = client.search_logged_models([own_run(uri).info.experiment_id])
    assert model.status == "READY" and len(said) == 2, "one that was begun is completed"
    with pytest.raises(StudyError, match="--register: MLflow does not take the name 'a/b"):
        register_selected(study.path, uri, "a/b:c")
