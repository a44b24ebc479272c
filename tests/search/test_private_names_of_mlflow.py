"""Names of MLflow that it does not promise to keep: each failure says what a new version moved."""

import ast
import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import RestException

from search.study.address import has_tables
from search.tracking import mlflow_internals
from search.tracking.view import view_tag
from tests.search.conftest import make_space

MLFLOW = f"MLflow {version('mlflow')}"
ROOT = Path(__file__).parents[2]
WHERE = "mend search/tracking/mlflow_internals.py"


def test_mlflow_has_a_store_for_the_files_of_a_run(tmp_path: Path) -> None:
    name = "mlflow.store.artifact.artifact_repository_registry"
    try:
        found = getattr(import_module(name), "get_artifact_repository", None)
    except ImportError:
        found = None
    assert found, f"{MLFLOW} has no {name}.get_artifact_repository any more; {WHERE}"
    (tmp_path / "a.txt").write_text("x")
    mlflow_internals.upload([tmp_path / "a.txt"], (tmp_path / "run").as_uri(), "")
    assert (tmp_path / "run" / "a.txt").is_file(), f"{MLFLOW}: log_artifact copies nothing; {WHERE}"


def test_mlflow_knows_a_run_of_another_run() -> None:
    found = getattr(import_module("mlflow.utils.mlflow_tags"), "MLFLOW_PARENT_RUN_ID", None)
    assert found == mlflow_internals.PARENT_RUN, (
        f"{MLFLOW} calls the tag of a parent run {found!r}; its pages would show runs flat; {WHERE}"
    )


def scripts_of_pages() -> list[str]:
    scripts = Path(mlflow.__file__).parent.joinpath("server", "js", "build").rglob("*.js")
    return [script.read_text(encoding="utf-8") for script in scripts]


def test_the_pages_of_mlflow_know_all_that_a_view_says() -> None:
    """A key that a new version renames is passed over in silence there."""
    space = make_space(objective={"metric": "val_loss", "goal": "minimize"})
    ((tag, value),) = view_tag(space).items()
    assert tag.startswith(mlflow_internals.SHARED_VIEW)
    view = json.loads(value)
    assert view["orderByAsc"] is True and view["orderByKey"] == "metrics.`val_loss`"
    assert [c for c in view["selectedColumns"] if c.startswith("params.")] == [
        f"params.`{path}`" for path in space.axes]  # fmt: skip
    keys = {*view, "viewStateShareKey", "workflowType", "machine_learning", "FIRST_20_RUNS"}
    for part in (*view["compareRunCharts"], *view["compareRunSections"]):
        keys |= {*part, part.get("type", "LINE")}
    texts = scripts_of_pages()
    missing = {key for key in (*keys, tag.removesuffix("tcpa")) if not any(key in t for t in texts)}
    assert not missing, f"the pages of {MLFLOW} do not know {missing} of search/tracking/view.py"
    assert len(value) < 5000, "longer tags of experiments are refused by older servers"


def test_mlflow_says_who_runs_a_program() -> None:
    found = mlflow_internals.origin_tags()
    assert {"mlflow.user", mlflow_internals.SOURCE} <= found.keys(), f"{MLFLOW}; {WHERE}"


def test_the_pages_of_mlflow_open_on_the_runs() -> None:
    """The tag stands in the scripts of its pages alone."""
    texts = scripts_of_pages()
    (kind,) = mlflow_internals.RUNS_FIRST.items()
    for word in (*kind, mlflow_internals.NOTE, mlflow_internals.COMMIT, mlflow_internals.SOURCE):
        assert any(f'"{word}"' in text for text in texts), (
            f"the pages of {MLFLOW} do not know {word!r} any more and may open on traces; {WHERE}"
        )


def test_mlflow_keeps_where_the_files_of_runs_are_in_these_columns(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    client = MlflowClient(f"sqlite:///{database}")
    client.create_run(client.create_experiment("one", (tmp_path / "files").as_uri()))
    assert has_tables(database), f"{MLFLOW} has no table 'experiments'; mend has_tables and {WHERE}"
    with closing(sqlite3.connect(database)) as connection:
        for table, column in (("experiments", "artifact_location"), *mlflow_internals.ADDRESSES):
            found = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            assert column in found, f"{MLFLOW} has no column {table}.{column}; {WHERE} (relocate)"


KILLED = """
import os, signal, sys
from pathlib import Path
import alembic.operations.batch as batch
from search.tracking.mlflow_internals import make_tables
made = batch.ApplyBatchImpl._create
def create(*args):  # a copy of a table stands beside it, and its revision is not noted
    os.kill(os.getpid(), signal.SIGKILL)
batch.ApplyBatchImpl._create = create
make_tables(Path(sys.argv[1]))
"""


def test_tables_are_made_whole_or_not_at_all(tmp_path: Path) -> None:
    database = tmp_path / "studies" / "mlflow.db"
    done = subprocess.run([sys.executable, "-c", KILLED, str(database)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL and not database.exists()
    for _ in range(2):
        mlflow_internals.make_tables(database)
        assert has_tables(database)
    client = MlflowClient(f"sqlite:///{database}")
    assert client.create_experiment("one"), f"{MLFLOW} makes other tables; {WHERE} (make_tables)"
    assert sorted(path.suffix for path in database.parent.iterdir() if path.is_file()) == [".db"]


def test_mlflow_names_the_errors_that_a_repeat_does_not_cure() -> None:
    for code in mlflow_internals.REFUSALS:
        err = RestException({"error_code": code, "message": "m"})
        assert err.error_code == code, f"{MLFLOW} has no error code {code}; {WHERE}"


def test_no_other_file_imports_what_mlflow_keeps_to_itself() -> None:
    public = {"mlflow", "mlflow.entities", "mlflow.exceptions"}
    found = {
        f"{path.relative_to(ROOT)}: {node.module}"
        for folder in ("search", "reports", "tcpa_core", "spaces")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mlflow"
        if node.module not in public and path.stem != "mlflow_internals"
    }
    assert not found, f"move it to search/tracking/mlflow_internals.py: {sorted(found)}"
