"""Which runs in MLflow are a study's own: by its full id, whatever it is called and wherever it
lies."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

import reports
from search.study.address import default_uri, sqlite_uri
from search.study.description import study_id
from search.study.folder import StudyDir
from search.tracking.mirror import sync, tracking_of
from search.verbs.dashboard import run_pages
from tcpa_core.errors import RecordError, StudyError
from tests.search.conftest import make_space
from tests.search.test_tracking import events, record

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs; to make one takes MLflow 5 s."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def new_root(tables: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Make a studies folder with its database."""

    def make(name: str) -> Path:
        root = tmp_path / name
        root.mkdir(parents=True)
        shutil.copy(tables, root / "mlflow.db")
        return root

    return make


def new_study(root: Path, accuracy: float = 0.4, name: str = "small", **document: Any) -> StudyDir:
    """A finished study whose trials have an accuracy; None in `document` strikes an entry out."""
    study = StudyDir.create(root, name, make_space(), {"data": "d", "weights": "w"}, "")
    if document:
        changed = {**study.document(), **document}
        known = {key: value for key, value in changed.items() if value is not None}
        (study.path / "study.yaml").write_text(yaml.safe_dump(known))
    lines = [{**e, "val_accuracy": accuracy} if e.get("status") else e for e in events()]
    record(study.path, lines)
    state = study.path / "checkpoints" / "00000" / "best.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(str(accuracy).encode())
    return study


def put(study: StudyDir, uri: str | None = None) -> str:
    """`tcpa sync`; the address."""
    where, artifacts = tracking_of(study, study.path.parent, uri)
    sync(study.path, where, artifact_root=artifacts)
    return where


def every_run(uri: str) -> dict[str, Run]:
    """All runs of a database that are not deleted, by id."""
    client = MlflowClient(tracking_uri=uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    return {run.info.run_id: run for run in client.search_runs(experiments)}


def accuracies(frames: reports.Frames) -> set[float]:
    return set(frames.trials["val_accuracy"].dropna())


def old(second: int) -> dict[str, Any]:
    """What an earlier version recorded of studies made in one minute: no id."""
    return {"id": None, "created": f"2026-11-03T10:00:{second:02d}+00:00"}


@pytest.mark.parametrize("are_old", [False, True])
def test_studies_of_one_name_and_month_keep_apart(
    are_old: bool, new_root: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(MlflowClient, "delete_run", lambda self, run: deleted.append(run))
    root = new_root("shared")
    shared = default_uri(root)
    studies = [
        new_study(root.with_name(f"user{n}"), 0.1 * n, **(old(n) if are_old else {}))
        for n in (1, 2, 3)
    ]
    ids = [study.document()["id"] for study in studies]
    for study in [*studies, *reversed(studies)]:
        put(study, shared)
    assert not deleted
    runs = every_run(shared)
    for n, identity in enumerate(ids, start=1):
        mine = [run for run in runs.values() if run.data.tags["tcpa.study_id"] == identity]
        assert sorted(run.data.tags.get("tcpa.trial", "") for run in mine) == [
            "", "00000", "00001", "00002"]  # fmt: skip
        assert len({run.info.experiment_id for run in mine}) == 1
        found = reports.load("small", tracking_uri=shared, study_id=identity)
        assert accuracies(found) == {0.1 * n}
    assert len(runs) == 12
    with pytest.raises(
        StudyError, match=r"3 of them under the name 'small'; choose one by stu"
    ) as e:
        reports.load("small", tracking_uri=shared)
    assert all(f"'{identity}' (made 2026-" in str(e.value) for identity in ids)
    with pytest.raises(StudyError, match="none with the id 'f00'"):
        reports.load("small", tracking_uri=shared, study_id="f00")


def test_only_runs_of_the_full_id_are_ours(new_root: Callable[[str], Path]) -> None:
    """Runs that look like ours but for the last digit of the id, in our very experiment."""
    study = new_study(new_root("studies"))
    uri = put(study)
    client = MlflowClient(tracking_uri=uri)
    identity = study.document()["id"]
    other = identity[:-1] + ("0" if identity[-1] != "0" else "1")
    before = every_run(uri)
    for run in before.values():
        tags = {key: value for key, value in run.data.tags.items() if key.startswith("tcpa.")}
        tags["tcpa.study_id"] = other
        client.create_run(run.info.experiment_id, tags=tags)
    strangers = every_run(uri).keys() - before.keys()
    put(study)
    assert every_run(uri).keys() == before.keys() | strangers
    assert {every_run(uri)[run].info.status for run in strangers} == {"RUNNING"}, "as they were"
    assert len(reports.load("small", tracking_uri=uri, study_id=identity).trials) == 3


def test_an_experiment_of_somebody_else_is_left_alone(new_root: Callable[[str], Path]) -> None:
    root = new_root("studies")
    client = MlflowClient(tracking_uri=default_uri(root))
    theirs = client.create_experiment("small")
    client.create_run(theirs, tags={"tcpa.trial": "00000"})
    study = new_study(root)
    uri = put(study)
    identity = study.document()["id"]
    assert len(client.search_runs([theirs])) == 1
    assert client.get_experiment(theirs).tags == {}
    assert client.get_experiment_by_name(f"small-{identity[:8]}").tags["tcpa.study_id"] == identity
    assert len(reports.load("small", tracking_uri=uri).trials) == 3


def test_what_an_earlier_version_mirrored_is_taken_up_and_nothing_else(
    new_root: Callable[[str], Path],
) -> None:
    """Two studies shared the experiment that was marked with the second of one of them."""
    study = new_study(new_root("studies"), **old(1))
    uri = put(study)
    client = MlflowClient(tracking_uri=uri)
    ours = every_run(uri)
    experiment = next(iter(ours.values())).info.experiment_id
    for run in ours:
        client.delete_tag(run, "tcpa.study_id")
    client.set_experiment_tag(experiment, "tcpa.study_id", old(1)["created"])
    like = next(run for run in ours.values() if run.data.tags.get("tcpa.trial") == "00001")
    tags = {key: value for key, value in like.data.tags.items() if key != "tcpa.study_id"}
    twin = client.create_run(experiment, start_time=like.info.start_time + 1, tags=tags)
    for _ in range(2):
        put(study)
        assert every_run(uri).keys() == {*ours, twin.info.run_id}
    marked = {run for run, found in every_run(uri).items() if "tcpa.study_id" in found.data.tags}
    assert marked == ours.keys()


def test_a_renamed_study_keeps_its_experiment(new_root: Callable[[str], Path]) -> None:
    root = new_root("studies")
    first = new_study(root, 0.1)
    uri = put(first)
    before = every_run(uri).keys()
    first.path.rename(root / "renamed")
    second = new_study(root, 0.2)
    put(second)
    put(StudyDir.open(root, "renamed"))
    assert len(every_run(uri)) == 2 * len(before)
    assert before <= every_run(uri).keys()
    assert accuracies(reports.load("renamed", tracking_uri=uri)) == {0.1}
    assert accuracies(reports.load("small", tracking_uri=uri)) == {0.2}


@pytest.mark.parametrize("name", ["plain", "a%20b", "q?x#y", "ü %"])
def test_a_moved_folder_takes_all_along(name: str, new_root: Callable[[str], Path]) -> None:
    """Its database and the files of its runs; neighbours stay as they are."""
    root = new_root("old")
    neighbour = new_root("a b")
    study = new_study(root)
    put(study)
    was = (neighbour / "mlflow.db").read_bytes()
    there = root.with_name(name)
    root.rename(there)
    names = {path.name for path in there.parent.iterdir()}
    study = StudyDir.open(there, "small")
    for _ in range(2):
        uri = put(study)
        assert uri == sqlite_uri(there / "mlflow.db")
        assert {path.name for path in there.parent.iterdir()} == names, "nothing is made beside it"
        assert (neighbour / "mlflow.db").read_bytes() == was
    files = sorted((there / "mlartifacts").rglob("*.*"))
    assert [path.name for path in files].count("best.safetensors") == 2, "of run and model"
    (model,) = MlflowClient(tracking_uri=uri).search_logged_models(["1"])
    assert model.artifact_location.startswith((there / "mlartifacts").as_uri())
    for run in every_run(uri).values():
        assert run.info.artifact_uri.startswith((there / "mlartifacts").as_uri())
    found = reports.load("small", tracking_uri=uri)
    assert accuracies(found) == {0.4} == accuracies(reports.load(study.path))
    assert run_pages(there / "mlflow.db", "http://x") == [
        "http://x/#/experiments/1/runs?viewStateShareKey=tcpa&workflowType=machine_learning  small"
    ]


@pytest.mark.parametrize("recorded", ["", "sqlite:///{root}/mlflow.db"])
def test_a_copied_folder_leaves_the_first_alone(
    recorded: str, new_root: Callable[[str], Path]
) -> None:
    root = new_root("first")
    study = new_study(root, tracking_uri=recorded.format(root=root))
    put(study)
    kept = root.with_name("kept")
    shutil.copytree(root, kept)
    shutil.rmtree(root) if recorded else None  # an earlier version's address is that of the first
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    uri = put(StudyDir.open(kept, "small"))
    assert uri == default_uri(kept)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert root.exists() == (not recorded)


def test_files_that_did_not_come_along_stay_known(new_root: Callable[[str], Path]) -> None:
    """Only the database was moved: its runs keep the files that they have."""
    root, there = new_root("old"), new_root("new")
    put(new_study(root))
    (root / "mlflow.db").replace(there / "mlflow.db")
    found = reports.load("small", tracking_uri=default_uri(there))
    run_pages(there / "mlflow.db", "http://x")
    assert accuracies(found) == accuracies(reports.load("small", default_uri(there)))


def test_an_id_is_of_the_whole_record_and_the_same_at_every_look(tmp_path: Path) -> None:
    now = datetime.now(UTC).isoformat()
    record = {"name": "a", "created": now, "space": {"budget": {"trials": 3}}}
    assert study_id(record) == study_id(dict(reversed(record.items())))
    assert len({study_id({**record, key: "x"}) for key in record} | {study_id(record)}) == 4
    assert study_id({**record, "id": "abc"}) == "abc"
    with pytest.raises(RecordError, match="is not the id of a study"):
        study_id({"id": "a' or 'b"})
    study = new_study(tmp_path, **old(1))
    first = study.document()["id"]
    assert StudyDir.open(tmp_path, "small").document()["id"] == first
    study.extend(3)  # which writes study.yaml anew
    assert StudyDir.open(tmp_path, "small").document()["id"] == first
