"""MLflow's pages of a studies folder: on this machine alone, or with passwords for others."""

import importlib.util
import ipaddress
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from search.study.address import sqlite_uri
from tcpa_core.errors import StudyError

LOOPBACK = "127.0.0.1"
PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"
SHORTEST_PASSWORD = 12
"""Characters that MLflow demands."""


def serve(database: Path, host: str, port: int) -> NoReturn:
    """Become an MLflow server on a local database; Ctrl-C ends it. MLflow checks the Host header.

    Args:
        database: The sqlite file.
        host: Address to listen at. Anything but loopback starts MLflow's basic-auth app.
        port: Port to listen at.

    Raises:
        StudyError: The host is open to others, and there is neither a password nor Flask-WTF.
    """
    line, variables = server_command(database, host, port)
    os.execve(sys.executable, line, {**os.environ, **variables})


def server_command(database: Path, host: str, port: int) -> tuple[list[str], Mapping[str, str]]:
    """The command line of the server, free of secrets, and what its environment needs.

    Raises:
        StudyError: As `serve`.
    """
    line = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    # One worker: several would each load MLflow, for the pages of one user.
    line += ["--backend-store-uri", sqlite_uri(database.resolve()), "--workers", "1"]
    # without the eight processes for jobs that nobody sends
    variables = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    variables["PYTHONSAFEPATH"] = "1"  # -m puts the current folder before what is installed
    if is_open(host):
        _demand_authentication(host)
        settings = database.with_name("mlflow_auth.ini")
        users = sqlite_uri(database.resolve().with_name("mlflow_auth.db"))
        settings.write_text(
            "[mlflow]\n"
            "default_permission = READ\n"
            f"database_uri = {users.replace('%', '%%')}\n"
            "admin_username = admin\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
            encoding="utf-8",
        )
        line += ["--app-name", "basic-auth"]
        variables["MLFLOW_AUTH_CONFIG_PATH"] = str(settings.resolve())
        variables["MLFLOW_FLASK_SERVER_SECRET_KEY"] = os.environ.get(
            "MLFLOW_FLASK_SERVER_SECRET_KEY", secrets.token_hex(32)
        )
    return line, variables


def is_open(host: str) -> bool:
    """Whether others than this machine reach a server that listens there."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def open_host_notice(host: str, port: int) -> str:
    """What a server at an open address lets others do, for a message."""
    return (
        f"Open to every machine that reaches {host}:{port}: whoever has a user name and password "
        "may read all studies of this folder, and 'admin' may change and delete them. The "
        "connection is not encrypted. MLflow answers under this machine's private addresses; "
        "allow other names with MLFLOW_SERVER_ALLOWED_HOSTS."
    )


def _demand_authentication(host: str) -> None:
    if len(os.environ.get(PASSWORD, "")) < SHORTEST_PASSWORD:
        raise StudyError(
            f"--host {host} opens MLflow to other machines, which demands a password for its user "
            f"'admin': set {PASSWORD} to at least {SHORTEST_PASSWORD} characters, or leave --host "
            f"out for {LOOPBACK}."
        )
    if importlib.util.find_spec("flask_wtf") is None:
        raise StudyError(
            f"--host {host} demands authentication, for which MLflow needs Flask-WTF; run "
            "'pip install mlflow[auth]', or leave --host out."
        )
