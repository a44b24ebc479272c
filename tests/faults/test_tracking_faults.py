"""MLflow away, broken, slow, restarted or locked: the study does not wait, and in the end MLflow
equals the journal, run by run and metric by metric.
"""

import multiprocessing
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from benchmarks.postgresql import PostgreSQL
from search.study.journal import Journal
from search.tracking.experiment import STATUS
from search.tracking.mirror import Mirror, sync
from tcpa_core.record.events import FINAL_KINDS
from tcpa_core.record.mirror_schema import EPOCH_METRICS, FINAL_METRICS
from tcpa_core.record.values import EpochReport, TrialResult
from tests.faults.servers import MlflowServer, Mood, Proxy
from tests.journals import event as made
from tests.journals import recorded

pytestmark = pytest.mark.integration

TRIALS, EPOCHS = 9, 3
NO_POSTGRESQL = "PostgreSQL (Debian's package postgresql) or psycopg is not installed"


class Study:
    """A study whose driver does nothing but write its journal, as fast as it is told to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "faulty"
        state = self.path / "checkpoints" / "00000" / "best.safetensors"
        state.parent.mkdir(parents=True)
        state.write_bytes(b"state")
        self.path.joinpath("study.yaml").write_text(f"id: {folder.name}\n")
        self._journal = Journal(self.path / "journal.jsonl")
        self._lines = iter(_events())
        self.said: list[str] = []
        self.longest_s = 0.0
        """Longest time that the driver was kept by its mirror."""

    def mirror(self, uri: str) -> Mirror:
        return Mirror(
            self.path, uri, artifact_root=self.path.parent / "files", warn=self.said.append
        )

    def run(self, mirror: Mirror, share: float, *, seconds: float = 0.0) -> None:
        """Record a share of the study's events, spread over some seconds."""
        count = round(share * len(_events()))
        for _ in range(count):
            event = next(self._lines, None)
            if event is None:
                return
            (written,) = self._journal.append(made(event))
            begun = time.perf_counter()
            mirror.put(written)
            self.longest_s = max(self.longest_s, time.perf_counter() - begun)
            time.sleep(seconds / count)

    def check(self, store: str) -> None:
        """MLflow equals the journal; no run is there twice, and none is open."""
        assert next(self._lines, None) is None, "the study has not ended"
        client = MlflowClient(tracking_uri=store)
        experiment = client.get_experiment_by_name(self.path.name)
        runs = client.search_runs([experiment.experiment_id])
        expected = _expected(self.path)
        names = sorted(run.data.tags.get("tcpa.trial", "") for run in runs)
        assert names == ["", *sorted(expected)]
        for run in runs:
            trial = run.data.tags.get("tcpa.trial")
            if trial is None:
                assert run.info.status == "FINISHED"
                continue
            params, status, points = expected[trial]
            assert run.data.params == params, trial
            assert run.data.tags["tcpa.status"] == status, trial
            assert run.info.status == STATUS.get(status, "FINISHED"), trial
            found = [
                (metric.key, metric.step, metric.timestamp, metric.value)
                for key in run.data.metrics
                for metric in client.get_metric_history(run.info.run_id, key)
            ]
            assert sorted(found) == sorted(points), trial
        assert self.longest_s < 0.5, "the study waited for its mirror"


def _events() -> list[dict[str, Any]]:
    """Trials that overlap by three, of all outcomes."""
    lines: list[dict[str, Any]] = [{"kind": "study", "name": "faulty"}]
    for first in range(0, TRIALS, 3):
        trials = [f"{n:05d}" for n in range(first, first + 3)]
        for n, trial in enumerate(trials, first):
            params = {"methods": ["vpt"], "optim.lr": 0.1 + n, "seed": 0, "train.epochs": EPOCHS}
            lines.append({"kind": "planned", "trial": trial, "params": params, "seed": 0,
                          "digest": f"d{n}", "point": f"p{n}", "labels": {"cells": []},
                          "origin": "sampler"})  # fmt: skip
            lines.append({"kind": "started", "trial": trial, "device": "cpu", "epoch": 0})
        for epoch in range(1, EPOCHS + 1):
            for n, trial in enumerate(trials, first):
                report = EpochReport(
                    epoch=epoch, train_loss=1.0 / epoch, ce_loss=1.0 / epoch, match_loss=0.0,
                    val_loss=2.0 / epoch, val_accuracy=0.01 * n + 0.1 * epoch, lr=0.1,
                    duration_s=0.5, images_per_s=100.0,
                )  # fmt: skip
                fields = {k: getattr(report, k) for k in EpochReport.__dataclass_fields__}
                lines.append({"kind": "epoch", "trial": trial, **fields})
        for trial, status in zip(trials, ("completed", "pruned", "failed"), strict=True):
            result = TrialResult(status=status, reason="" if status != "failed" else "nan",
                                 val_accuracy=0.5, val_loss=0.7, num_epochs=EPOCHS,
                                 best_epoch=EPOCHS, duration_s=1.5)  # fmt: skip
            lines.append({"kind": status, "trial": trial, **result.as_dict()})
    lines.append({"kind": "tested", "trial": "00000", "test_loss": 0.4, "test_accuracy": 0.6})
    return [*lines, {"kind": "finished"}]


Points = list[tuple[str, int, int, float]]


def _expected(study: Path) -> dict[str, tuple[dict[str, str], str, Points]]:
    """Params, status and metric points of every trial, by the journal."""
    params: dict[str, dict[str, str]] = {}
    status: dict[str, str] = {}
    points: dict[str, Points] = defaultdict(list)
    for event in recorded(study / "journal.jsonl"):
        trial, stamp = event.get("trial", ""), int(1000 * event["t"])
        if event["kind"] == "planned":
            params[trial] = {k: str(v) for k, v in event["params"].items()}
        elif event["kind"] == "epoch":
            points[trial] += [
                (name, event["epoch"], stamp, event[k])
                for k, name in EPOCH_METRICS.items()
                if k in event  # each task has scores of its own
            ]
        elif event["kind"] in (*FINAL_KINDS, "tested"):
            status.setdefault(trial, event["kind"])
            points[trial] += [
                (name, 0, stamp, float(event[k]))
                for k, name in FINAL_METRICS.items()
                if event.get(k) is not None
            ]
    return {trial: (params[trial], status[trial], points[trial]) for trial in params}


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in life, but sooner."""
    monkeypatch.setattr("search.tracking.mirror.BATCH_S", 0.2)
    monkeypatch.setattr("search.tracking.mirror.RETRY_S", 0.2)
    monkeypatch.setattr("search.tracking.mirror.MAX_RETRY_S", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "6")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    pytest.importorskip("psycopg", reason=NO_POSTGRESQL)
    if not PostgreSQL.is_installed():
        pytest.skip(NO_POSTGRESQL)
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MlflowServer, str]]:
    """An MLflow server on sqlite, and the address of its database."""
    folder = tmp_path_factory.mktemp("server")
    store = f"sqlite:///{folder}/mlflow.db"
    running = MlflowServer(folder, store).start()
    yield running, store
    running.kill()


@pytest.fixture
def experiment(study: Study, request: pytest.FixtureRequest) -> None:
    """Give each study that shares a database a name of its own."""
    name = request.node.name.translate(str.maketrans("[]", "__"))[-60:]
    study.path = study.path.rename(study.path.with_name(name))


@pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.faults)]
)
def test_a_server_that_stops_and_starts(
    database: str, study: Study, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    if database == "postgresql":
        store = request.getfixturevalue("postgresql").uri
    server = MlflowServer(tmp_path, store).start()
    try:
        mirror = study.mirror(server.uri)
        study.run(mirror, 0.4, seconds=2)
        server.kill()
        study.run(mirror, 0.3, seconds=2)
        wait_for(lambda: bool(study.said), "the message that the server is down")
        server.start()
        study.run(mirror, 1.0)
        assert mirror.close(), study.said
    finally:
        server.kill()
    assert f"MLflow does not answer at {server.uri} (" in study.said[0]
    assert study.said[-1] == "MLflow answers again."
    study.check(store)


@pytest.mark.faults
@pytest.mark.usefixtures("experiment")
@pytest.mark.parametrize("mood", ["error", "error_after", "swallow", "slow"])
def test_a_server_that_is_broken_or_slow_for_a_while(
    mood: Mood, study: Study, server: tuple[MlflowServer, str]
) -> None:
    running, store = server
    with Proxy(running.port) as proxy:
        mirror = study.mirror(proxy.uri)
        study.run(mirror, 0.3, seconds=1)
        proxy.mood = mood
        study.run(mirror, 0.3, seconds=4)
        if mood != "slow":
            wait_for(lambda: bool(study.said), "the message that the server is down")
        proxy.mood = "pass"
        study.run(mirror, 1.0)
        assert mirror.close(), study.said
    study.check(store)
    assert mood == "slow" or "does not answer at http://127.0.0.1:" in study.said[0]
    assert not study.said or study.said[-1] == "MLflow answers again."


@pytest.mark.faults
@pytest.mark.usefixtures("experiment")
def test_the_end_does_not_wait_for_a_server_that_is_silent(
    study: Study, server: tuple[MlflowServer, str]
) -> None:
    running, store = server
    with Proxy(running.port) as proxy:
        mirror = study.mirror(proxy.uri)
        study.run(mirror, 0.5, seconds=1)
        proxy.mood = "silent"
        study.run(mirror, 1.0)
        begun = time.monotonic()
        assert not mirror.close(timeout_s=5.0)
        assert time.monotonic() - begun < 26
        events, trials = (int(word) for word in mirror.lacking().split() if word.isdigit())
        assert 0 < events <= len(_events()) and 0 < trials <= TRIALS
    sync(study.path, running.uri)
    study.check(store)


def test_postgresql_restarts_under_load(study: Study, postgresql: PostgreSQL) -> None:
    study.path = study.path.rename(study.path.with_name("restarted"))
    mirror = study.mirror(postgresql.uri)
    for _ in range(3):
        study.run(mirror, 0.25, seconds=1)
        postgresql.restart()
    study.run(mirror, 1.0)
    assert mirror.close()
    study.check(postgresql.uri)


@pytest.mark.faults
def test_sqlite_with_eight_writers_beside_us(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    store = f"sqlite:///{path}"
    MlflowClient(tracking_uri=store).create_experiment("others")
    stop = multiprocessing.get_context("spawn").Event()
    others = [
        multiprocessing.get_context("spawn").Process(target=_write, args=(path, n, stop))
        for n in range(8)
    ]
    for other in others:
        other.start()
    try:
        wait_for(lambda: _rows(path) > 8, "the other writers")
        mirror = study.mirror(store)
        study.run(mirror, 1.0, seconds=3)
        assert mirror.close(), study.said
    finally:
        stop.set()
        for other in others:
            other.join()
    assert [other.exitcode for other in others] == [0] * 8
    study.check(store)


def _write(path: Path, number: int, stop: Any) -> None:
    """Write to a database of MLflow's in short transactions, as the drivers of other studies do.

    Eight of them hold the lock for more than half of the time.
    """
    database = sqlite3.connect(path, timeout=120, isolation_level=None)
    count = 0
    while not stop.is_set():
        database.execute("BEGIN IMMEDIATE")
        count += 1
        database.execute(
            "INSERT INTO experiment_tags (key, value, experiment_id) VALUES (?, 'x', 1)",
            (f"{number}-{count}",),
        )
        time.sleep(0.01)
        database.execute("COMMIT")
        time.sleep(0.1)
    database.close()


def _rows(path: Path) -> int:
    with sqlite3.connect(path, timeout=60) as database:
        return int(database.execute("SELECT count(*) FROM experiment_tags").fetchone()[0])
