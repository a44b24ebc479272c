"""Folders and addresses: odd characters, relative ones, other schemes, moved folders."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import typer
from sqlalchemy.engine import make_url

from search import cli
from search.study.address import (
    default_uri,
    has_tables,
    local_folder,
    recorded_uri,
    resolved_uri,
    sqlite_file,
    sqlite_uri,
)
from search.study.folder import StudyDir, named_trial
from tcpa_core.errors import ConfigError, StudyError

ODD = ["a b", "a%20b", "a?b", "a%3Fb", "a#b", "ü ñ 中", "100%", "a;b&c=d", "me@there", "a:b", "[a]"]


@pytest.mark.parametrize("name", ODD)
def test_every_folder_has_an_address_that_leads_to_it(name: str) -> None:
    path = Path("/") / name / "mlflow.db"
    uri = sqlite_uri(path)
    assert make_url(uri).database == str(path)
    assert sqlite_file(uri) == path
    assert resolved_uri(uri) == uri
    # MLflow makes the parent of what follows "sqlite:///" as it stands
    assert not uri.startswith("sqlite:///") or uri.removeprefix("sqlite:///") == str(path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sqlite:///rel.db", "sqlite:///{here}/rel.db"),
        ("sqlite:///a/../rel.db", "sqlite:///{here}/a/../rel.db"),
        ("sqlite+pysqlite:///rel.db", "sqlite:///{here}/rel.db"),
        ("sqlite:///rel.db?timeout=9", "sqlite:///{here}/rel.db?timeout=9"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("sqlite:////tmp/a%20b/x.db", "sqlite:////tmp/a b/x.db"),
        ("mlruns", "file://{here}/mlruns"),
        ("./mlruns", "file://{here}/mlruns"),
        ("file:mlruns", "file://{here}/mlruns"),
        ("file:///tmp/mlruns", "file:///tmp/mlruns"),
        ("http://host:5000", "http://host:5000"),
        ("postgresql://me:a@b@host/db", "postgresql://me:a@b@host/db"),
        ("databricks", "databricks"),
        ("", ""),
    ],
)
def test_an_address_means_the_same_from_every_folder(
    given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = resolved_uri(given)
    assert uri == meant.format(here=tmp_path)
    monkeypatch.chdir("/")
    assert resolved_uri(uri) == uri


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"--tracking-uri: .* names no file; give 'sqlite:///"):
        resolved_uri(uri)


def test_the_own_database_of_a_folder_is_recorded_by_no_address(tmp_path: Path) -> None:
    assert recorded_uri(default_uri(tmp_path), tmp_path) == ""
    assert recorded_uri("http://host", tmp_path) == "http://host"
    (tmp_path / "here").mkdir()
    (tmp_path / "shared.db").touch()
    for uri in (f"sqlite:///{tmp_path}/shared.db", f"sqlite:///{tmp_path}/gone.db"):
        assert recorded_uri(uri, tmp_path / "here") == uri
    # as an earlier version recorded it, of a folder that was moved since
    assert recorded_uri(default_uri(tmp_path / "old"), tmp_path / "here") == ""


def test_a_look_at_a_database_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a b?c%20" / "x.db"
    assert not has_tables(path)
    assert not list(tmp_path.iterdir())
    path.parent.mkdir()
    sqlite3.connect(path).execute("CREATE TABLE experiments (id INTEGER)")
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert has_tables(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert list(path.parent.iterdir()) == [path]
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StudyError, match="not a database"):
        has_tables(path)


HALF_WRITTEN = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # so that pages are written before the end
database.execute("BEGIN")
database.executemany("INSERT INTO experiments VALUES (?)", [("x" * 500,)] * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_half_written_is_rolled_back(tmp_path: Path) -> None:
    """To open it read-only is no way: sqlite refuses as long as its journal lies there."""
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE experiments (name TEXT)")
    subprocess.run([sys.executable, "-c", HALF_WRITTEN, str(path)], check=False)
    assert path.with_name("x.db-journal").exists()
    assert has_tables(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM experiments").fetchone() == (0,)


@pytest.mark.parametrize("address", ["s3://bucket/studies", "gs://b", "hdfs://host:1/x", "S3://b"])
def test_an_address_is_no_root(address: str, tmp_path: Path) -> None:
    for root in (address, Path(address)):
        with pytest.raises(StudyError, match="--root: .* is an address, not a folder of this"):
            local_folder(root)
    for call in (StudyDir.check_free, StudyDir.open):
        with pytest.raises(StudyError, match="not a folder"):
            call(Path(address), "x")
    assert local_folder(f"{tmp_path.as_uri()}/a%20b") == tmp_path / "a b"


def test_every_verb_refuses_an_address_as_root(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    command = typer.main.get_command(cli.app)
    verbs = {
        name: [p for p in verb.params if p.param_type_name == "argument" and p.required]
        for name, verb in command.commands.items()  # type: ignore[attr-defined]
        if any("--root" in p.opts for p in verb.params)
    }
    assert len(verbs) >= 16
    for name, needed in verbs.items():
        line = ["tcpa", name, *("x" for _ in needed), "--root", "s3://bucket/x"]
        line += ["--trials", "3"] if name == "extend" else []
        monkeypatch.setattr("sys.argv", line)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("error: --root: 's3://bucket/x' is an address, not"), (name, said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "name"),
    [("3", "00003"), ("00003", "00003"), ("0", "00000"), ("123456", "123456"), ("007", "00007"),
     ("abc", "abc"), ("-3", "-3"), ("³", "³"), ("9" * 5000, "9" * 5000)],
)  # fmt: skip
def test_a_trial_is_found_by_its_number(text: str, name: str) -> None:
    assert named_trial(text) == name
