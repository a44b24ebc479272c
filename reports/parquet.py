"""The only reader and writer of tables on disk: Parquet with column meanings, CSV beside it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from reports.tables import SCHEMA_VERSION
from tcpa_core.errors import RecordError, StudyError


def write_table(table: pa.Table, folder: Path, name: str) -> None:
    """Write NAME.parquet and NAME.csv, each replaced as a whole.

    Raises:
        StudyError: The folder cannot be written.
    """
    write_atomic(folder / f"{name}.parquet", lambda path: pq.write_table(table, path))
    write_atomic(folder / f"{name}.csv", lambda path: pyarrow.csv.write_csv(table, path))


def write_atomic(path: Path, write: Callable[[Path], Any]) -> Path:
    """Let `write` fill a file beside `path`, then put it in its place.

    Raises:
        StudyError: The folder is read-only, the disk is full, ...
    """
    draft = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(draft)
        os.replace(draft, path)
    except OSError as err:
        raise StudyError(
            f"{path} cannot be written ({err.strerror or err}); free or permit the space and run "
            "the report again. The journal is untouched."
        ) from err
    return path


def read_table(folder: Path, name: str) -> pa.Table:
    """Read a table that `write_table` wrote.

    Raises:
        RecordError: The file is missing, no such table, or of another schema version.
    """
    path = folder / f"{name}.parquet"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as err:
        raise RecordError(f"{path} is no table ({err}); run 'tcpa report' again.") from err
    found = (table.schema.metadata or {}).get(b"tcpa.schema_version", b"none").decode()
    if found != str(SCHEMA_VERSION):
        raise RecordError(
            f"{path} has schema version {found}, this version reads {SCHEMA_VERSION}; run "
            "'tcpa report' again."
        )
    return table
