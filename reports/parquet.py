"""The only reader and writer of tables on disk: Parquet with column meanings, CSV beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reports.tables import MEANING
from tcpa_core.errors import RecordError
from tcpa_core.record import SCHEMA_VERSION


def write_table(
    frame: pd.DataFrame, path: Path, meaning: Mapping[str, tuple[str, str]] = {}
) -> None:  # noqa: B006
    """Write PATH.parquet and PATH.csv, each replaced in one go."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    known = {**MEANING, **meaning}
    columns = []
    for column in table.schema:
        unit, text = known.get(column.name, ("", "setting"))
        columns.append(column.with_metadata({"unit": unit, "meaning": text}))
    schema = pa.schema(columns, metadata={
        **(table.schema.metadata or {}), b"tcpa": json.dumps({"schema": SCHEMA_VERSION}).encode(),
    })  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, write in (
        (".parquet", lambda p: pq.write_table(table.cast(schema), p)),
        (".csv", lambda p: frame.to_csv(p, index=False)),
    ):
        temporary = path.with_name(f".{path.name}{suffix}")
        write(temporary)
        temporary.replace(path.with_suffix(suffix))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote.

    Raises:
        RecordError: The file is no such table or of another schema version.
    """
    try:
        table = pq.read_table(path)
        schema = json.loads(table.schema.metadata[b"tcpa"])["schema"]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as err:
        raise RecordError(
            f"{path} is no table of a study ({err}); run 'tcpa report' again."
        ) from err
    if schema != SCHEMA_VERSION:
        raise RecordError(f"{path} has schema {schema}, this version reads {SCHEMA_VERSION}.")
    return table.to_pandas()
