"""What is used of MLflow without a promise that it stays: test_private_names_of_mlflow.py.

The client has no call that logs a file without asking for the run first, none that changes where
the files of a run are, none that makes a database's tables, and no constant for the tags that its
pages read.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking.context.registry import resolve_tags

from search.study.address import artifacts_of, has_tables, sqlite_uri

PARENT_RUN = "mlflow.parentRunId"
"""Tag that makes a run the child of another one."""
RUNS_FIRST = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment whose pages open on the runs instead of on traces of language models."""
SHARED_VIEW = "mlflow.sharedViewState."
"""Before the name of a view that an experiment's pages can open, in a tag of the experiment."""
NOTE = "mlflow.note.content"
"""Tag that the pages show as the description of a run."""
COMMIT = "mlflow.source.git.commit"
"""Tag of a run: the version of the code that made it."""
SOURCE = "mlflow.source.name"
"""Tag of a run: the program that made it."""
ADDRESSES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns in which MLflow keeps whole addresses of files."""
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""Codes of errors that a repeat does not cure, for example of a run that was deleted by hand."""
NOT_OFFERED = ("ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "NOT_IMPLEMENTED")
"""Codes of errors of a server or store that has no such call."""


def origin_tags() -> dict[str, str]:
    """Tags that say who runs this program, which it is, and from which commit, as of a run that
    MLflow's own functions start."""
    return {key: str(value) for key, value in resolve_tags().items()}


def upload(found: Sequence[Path], folder: str, tracking_uri: str) -> None:
    """Copy files to where the files of a run are.

    Args:
        folder: `artifact_uri` of the run.
    """
    if found:
        store = get_artifact_repository(folder, tracking_uri=tracking_uri)
        for path in found:
            store.log_artifact(str(path))


def make_tables(database: Path) -> None:
    """Make MLflow's tables in a database of this machine that is not there yet: whole, or not at
    all. MLflow makes them in some fifty steps, and there are some after which it cannot go on, so
    that a process that is killed meanwhile would leave a file that nobody can open."""
    database.parent.mkdir(parents=True, exist_ok=True)
    if database.exists():
        return
    # Half a second that only the first study of a folder needs.
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    with TemporaryDirectory(dir=database.parent, prefix=".mlflow-") as folder:
        new = Path(folder) / "new.db"
        engine = create_sqlalchemy_engine(sqlite_uri(new))
        _initialize_tables(engine)
        engine.dispose()
        try:
            os.link(new, database)
        except FileExistsError:  # another process was faster
            pass
        except OSError:  # a file system without hard links
            os.replace(new, database)


def relocate(database: Path) -> None:
    """Let a database of this machine find the files of its runs after its folder was moved.

    MLflow records their whole addresses and has no call that changes them. Only those that
    `RunWriter` gave are changed, where the files have come along or are not where they were.
    """
    if not has_tables(database):
        return
    here = artifacts_of(database.resolve())
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        found = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (old,) in found:
            folder = Path(unquote(urlsplit(old or "").path))
            new = here / folder.name
            if folder.parent.name != here.name or new == folder or not old.startswith("file:"):
                continue
            # The files are where they were, and not here too: the database alone was copied.
            if folder.exists() and (not new.exists() or folder.samefile(new)):
                continue
            uri = new.as_uri()
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?",
                (uri, old),
            )
            for table, column in ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE substr({column}, 1, ?) = ?",
                    (uri, len(old) + 1, len(old) + 1, f"{old}/"),
                )
