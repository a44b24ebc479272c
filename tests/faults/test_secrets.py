"""Secrets of tracking addresses: never in a message, a file or a process list."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.planning.plan import plan_space
from search.study.folder import StudyDir
from search.tracking.mirror import check_tracker, tracking_of
from search.tracking.secrets import hide, move_out_of_arguments, with_secrets, without_secrets
from spaces.load import load_space
from tcpa_core.errors import StudyError

ROOT = Path(__file__).parents[2]
SECRETS = ("sesame", "geheim", "s%40crt", "s@crt", "hf_abcdef")
URI = "postgresql://me:sesame@db/x?sslmode=require&sslpassword=geheim&api_key=s%40crt&t=hf_abcdef"
SHOWN = "postgresql://db/x?sslmode=require"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (URI, SHOWN),
        ("https://host/x?password=a#b", "https://host/x"),
        ("https://host/x?token=a;sslmode=b", "https://host/x?sslmode=b"),
        ("https://token@host/x", "https://host/x"),
        ("mysql+pymysql://me:p/w?x@host/db", "mysql+pymysql://host/db"),
        ("sqlite:////home/me@work/mlflow.db?timeout=9", "sqlite:////home/me@work/mlflow.db?timeout=9"),
        ("mlruns", "mlruns"),
    ],
)  # fmt: skip
def test_only_what_is_known_to_be_harmless_is_shown(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown
    assert without_secrets(shown) == shown


def test_a_message_loses_every_form_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-123456")
    monkeypatch.setenv("PGPASSWORD", "from-the-environment")
    text = (
        f"cannot connect to {URI}: FATAL geheim s@crt; login sesame; key s%40crt; "
        "at https://bob:unknown@other/x; password=secret1, token: secret2; Authorization: "
        "Bearer secret3; tok-123456; from-the-environment; hf_abcdef"
    )
    said = hide(text, URI)
    others = ("unknown", "secret1", "secret2", "secret3", "tok-123456", "from-the-environment")
    for secret in (*SECRETS, *others):
        assert secret not in said
    assert SHOWN in said and "https://other/x" in said


def test_an_error_of_the_client_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"no driver for {URI} (password 'sesame', key s@crt)")

    monkeypatch.setattr("search.tracking.mirror.MlflowClient", fail)
    with pytest.raises(StudyError, match="does not answer at 'postgresql://db/x") as caught:
        check_tracker(URI)
    assert not [secret for secret in SECRETS if secret in str(caught.value)]


def test_a_study_folder_holds_no_secret_and_the_environment_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.tracking.mirror.check_tracker", lambda uri: None)
    plan = plan_space(load_space("quickstart"), "mine", tmp_path, tracking_uri=URI)
    study = plan.create()
    for path in study.path.rglob("*"):
        assert not [s for s in SECRETS if s in path.read_text()], path
    assert StudyDir.open(tmp_path, "mine").document()["tracking_uri"] == SHOWN
    assert tracking_of(study, tmp_path, None)[0] == SHOWN
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    assert tracking_of(study, tmp_path, None)[0] == URI
    assert with_secrets("postgresql://other/x") == "postgresql://other/x"


def test_arguments_with_a_secret_move_to_the_environment() -> None:
    line = ["-m", "search.cli", "plan", "x", "--tracking-uri", URI, "--root", "r"]
    clean, variables = move_out_of_arguments(line)
    assert clean == ["-m", "search.cli", "plan", "x", "--tracking-uri", SHOWN, "--root", "r"]
    assert variables == {"MLFLOW_TRACKING_URI": URI}
    assert move_out_of_arguments([f"--tracking-uri={URI}"])[0] == [f"--tracking-uri={SHOWN}"]
    for harmless in (["--tracking-uri", SHOWN], ["--tracking-uri"], ["plan", URI]):
        assert move_out_of_arguments(harmless) == (harmless, {})


@pytest.mark.integration
def test_the_process_list_of_a_command_shows_no_secret(tmp_path: Path) -> None:
    uri = "http://me:sesame@127.0.0.1:1/x?sslpassword=geheim"
    command = [sys.executable, "-m", "search.cli", "plan", "quickstart", "--tracking-uri", uri]
    process = subprocess.Popen(
        [*command, "--root", str(tmp_path)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    lines = set()
    seen = Path(f"/proc/{process.pid}/cmdline")
    while process.poll() is None:
        lines.add(seen.read_bytes().replace(b"\0", b" ").decode())
        time.sleep(0.05)
    out, err = process.communicate()
    assert process.returncode == 2 and "does not answer" in err
    assert not any(secret in out + err for secret in SECRETS)
    shown = [line for line in lines if "--tracking-uri http://127.0.0.1:1/x " in line]
    assert shown, "the command line was not replaced"
