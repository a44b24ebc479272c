"""The only reader and writer of tables on disk: Parquet with column meanings, and CSV."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from reports.columns import SCHEMA_VERSION
from tcpa_core.errors import RecordError, StudyError


def write_table(table: pa.Table, folder: Path, name: str, *, csv: bool = True) -> None:
    """Write NAME.parquet and, if wanted, NAME.csv, each replaced as a whole.

    The Parquet pages carry checksums. In the CSV, text that a spreadsheet would take for a formula
    begins with an apostrophe.

    Raises:
        StudyError: The folder cannot be written.
    """
    checked = partial(pq.write_table, table, write_page_checksum=True)
    write_atomic(folder / f"{name}.parquet", checked)
    if csv:
        write_atomic(folder / f"{name}.csv", partial(write_csv, table))


def write_csv(table: pa.Table, target: Path | IO[bytes]) -> None:
    """Write a table as the CSV file beside its Parquet."""
    pyarrow.csv.write_csv(_without_formulas(table), target)


def _without_formulas(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = table.column(place)
            # Messages come from anywhere: "=cmd|..." must not run where the file is opened.
            runs = pc.match_substring_regex(column, r"^[=+\-@\t\r]")
            quoted = pc.binary_join_element_wise("'", column, "")
            table = table.set_column(place, field, pc.if_else(runs, quoted, column))
    return table


def write_atomic(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a draft in the same folder, then put it in the place of `path`.

    Raises:
        StudyError: The folder is read-only, the disk is full, ...
    """
    # Of this process: two commands may build a report at once.
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(draft)
        # A reader of a live report sees the old file or the new one, never a part.
        os.replace(draft, path)
    except OSError as err:
        raise StudyError(
            f"{path} cannot be written ({err.strerror or err}); free or permit the space and run "
            "the report again. The journal is untouched."
        ) from err
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole.

    Raises:
        StudyError: As `write_atomic`.
    """
    write_atomic(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def read_table(folder: Path, name: str) -> pa.Table:
    """Read a table that `write_table` wrote.

    Raises:
        RecordError: The file is missing, is not a table, or is of another schema version.
    """
    path = folder / f"{name}.parquet"
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as err:
        raise RecordError(f"{path} is not a table ({err}); run 'tcpa report' again.") from err
    found = (table.schema.metadata or {}).get(b"tcpa.schema_version", b"none").decode()
    if found != str(SCHEMA_VERSION):
        raise RecordError(
            f"{path} has schema version {found}, this version reads {SCHEMA_VERSION}; run "
            "'tcpa report' again."
        )
    return table
