"""The tables of a sealed study: written from its journal, and compared with it again."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reports.frames import OF_IMPORTANCE, frames
from reports.parquet import write_csv, write_table
from reports.records.journal import load_journal

CLOSE = 1e-9
"""Relative difference that other libraries may make in what statistics compute."""
RECORDED = ("trials", "epochs")
"""Tables whose numbers stand in the journal as they are."""


def write_tables(study_dir: Path, folder: Path) -> None:
    """Write what a study's journal says, and what explains it, as Parquet and CSV.

    Raises:
        StudyError: There is no such study, or the folder cannot be written.
        RecordError: The journal is damaged.
    """
    for name, table in _tables(study_dir, explain=True).items():
        write_table(table, folder, name)


def differences(study_dir: Path, folder: Path) -> list[str]:
    """Where tables of a folder are not what a study's journal says, in sentences; []: nowhere.

    A column that one of the two lacks, because it is of another version, is passed over, and so is
    the importance of settings, which is fitted: its numbers are those of the library, too. A CSV is
    compared with the Parquet beside it.

    Raises:
        StudyError, RecordError: As `load_journal`.
    """
    found = []
    wanted = _tables(study_dir, explain=False)
    there = {path.stem for path in folder.glob("*")} | (set(RECORDED) & wanted.keys())
    for name in sorted(there):
        try:
            table = pq.read_table(folder / f"{name}.parquet")
        except FileNotFoundError:
            found.append(f"tables/{name}.parquet: missing")
            continue
        except (OSError, pa.ArrowException) as err:
            found.append(f"tables/{name}.parquet: cannot be read ({err})")
            continue
        if name in wanted:
            found += _differing(name, table, wanted[name])
        elif name not in OF_IMPORTANCE and len(table):
            found.append(f"tables/{name}: {len(table)} rows, none by the journal")
        if (folder / f"{name}.csv").is_file():
            found += _differing_text(name, (folder / f"{name}.csv").read_bytes(), table)
    return found


def _tables(study_dir: Path, *, explain: bool) -> Mapping[str, pa.Table]:
    """All tables that have rows; `explain` as of `frames`."""
    arrow = frames(load_journal(study_dir), explain=explain)[1]
    return {name: table for name, table in arrow.items() if len(table)}


def _differing(name: str, table: pa.Table, wanted: pa.Table) -> list[str]:
    if len(table) != len(wanted):
        return [f"tables/{name}: {len(table)} rows, {len(wanted)} by the journal"]
    found = []
    close = 0.0 if name in RECORDED else CLOSE
    for column in wanted.column_names:
        if column not in table.column_names:
            continue
        pairs = zip(table[column].to_pylist(), wanted[column].to_pylist(), strict=True)
        found += [
            f"tables/{name}: {column} of row {row} is {one!r}, {other!r} by the journal"
            for row, (one, other) in enumerate(pairs)
            if not _is_same(one, other, close)
        ]
    return found


def _differing_text(name: str, text: bytes, table: pa.Table) -> list[str]:
    """Where a CSV file is not the table that lies beside it as Parquet."""
    written = io.BytesIO()
    write_csv(table, written)
    wanted = written.getvalue()
    if text == wanted:
        return []
    try:
        rows, other = (list(csv.reader(io.StringIO(t.decode(), ""))) for t in (text, wanted))
    except (ValueError, csv.Error) as err:
        return [f"tables/{name}.csv: cannot be read ({err})"]
    if [len(row) for row in rows] != [len(row) for row in other]:
        return [f"tables/{name}.csv: not the rows and columns of {name}.parquet"]
    return [
        f"tables/{name}.csv: {column} in line {line} is {one!r}, {two!r} in {name}.parquet"
        for line, (mine, theirs) in enumerate(zip(rows, other, strict=True), start=1)
        for column, one, two in zip(other[0], mine, theirs, strict=True)
        if one != two and not _is_same(_number(one), _number(two), CLOSE)
    ]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _is_same(one: object, other: object, close: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return math.isclose(one, other, rel_tol=close, abs_tol=close * 1e-3)
    return one == other
