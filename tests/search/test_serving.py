"""MLflow's pages: loopback as they are, open addresses only with a password."""

import base64
import importlib.util
import os
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from search.tracking.pages import is_open, open_host_notice, server_command
from tcpa_core.errors import StudyError
from tests.faults.servers import MlflowServer

WORD = "a long pass phrase"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_password(host: str, tmp_path: Path) -> None:
    assert not is_open(host)
    line, variables = server_command(tmp_path / "mlflow.db", host, 5000)
    assert line[line.index("--host") + 1] == host
    assert not any("security" in word or "allowed" in word for word in line)
    assert "MLFLOW_AUTH_CONFIG_PATH" not in variables
    assert variables["PYTHONSAFEPATH"] == "1", "files of the current folder are no modules"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "node7.example"])
def test_an_open_address_demands_a_password(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_open(host)
    for word in (None, "", "too short"):
        monkeypatch.delenv("MLFLOW_AUTH_ADMIN_PASSWORD", raising=False)
        if word is not None:
            monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", word)
        with pytest.raises(StudyError, match="set MLFLOW_AUTH_ADMIN_PASSWORD to at least 12"):
            server_command(tmp_path / "mlflow.db", host, 5000)
    assert f"reaches {host}:5000" in open_host_notice(host, 5000)


def test_an_open_address_demands_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", WORD)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"pip install mlflow\[auth\]"):
        server_command(tmp_path / "mlflow.db", "0.0.0.0", 5000)


@pytest.mark.integration
def test_an_open_server_lets_nobody_in_without_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flask_wtf", reason="Flask-WTF is not installed")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", WORD)
    database = tmp_path / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{database}").create_experiment("mine")
    server = MlflowServer(tmp_path, f"sqlite:///{database}")
    line, variables = server_command(database, "0.0.0.0", server.port)
    assert WORD not in " ".join(line)
    server.line, server.variables = line, {**os.environ, **variables}
    server.start()
    try:
        asked = f"{server.uri}/api/2.0/mlflow/experiments/get?experiment_id=1"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(asked)
        pair = base64.b64encode(f"admin:{WORD}".encode()).decode()
        headers = {"Host": "evil.example", "Authorization": f"Basic {pair}"}
        forged = urllib.request.Request(asked, headers=headers)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(forged)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", WORD)
        found = MlflowClient(tracking_uri=server.uri).get_experiment_by_name("mine")
        assert found.experiment_id == "1"
    finally:
        server.kill()
