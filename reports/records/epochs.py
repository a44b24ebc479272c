"""Epochs of a study as one Arrow table, parsed many lines at once.

A journal of 10,000 trials has 500,000 lines of epochs. As events they would take five times as long
to read as in bulk, and reports want columns anyway. So this is the one kind of event that does not
pass through `tcpa_core.record`'s decoder and fold; lines are checked by the same checksum.
"""

import json
from collections.abc import Collection
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from tcpa_core.errors import RecordError
from tcpa_core.record.events import Epoch
from tcpa_core.record.mirror_schema import EPOCH_METRICS

EPOCH_SCHEMA = pa.schema(
    [("trial", pa.string()), ("epoch", pa.int64()), *((f, pa.float64()) for f in EPOCH_METRICS)]
)
_MARK = b'"kind":"epoch"'
_MARK_WITHIN = 64
"""Bytes in which the driver writes a line's number, time and kind."""
_AT_ONCE = 100_000
"""Lines parsed in one call: about 30 MB of text."""


def is_epoch(line: bytes) -> bool:
    """Whether a journal line is an epoch, written as the driver does; others are decoded."""
    return _MARK in line[:_MARK_WITHIN]


def in_order(epochs: pa.Table, trials: Collection[str], place: str) -> pa.Table:
    """Sort epochs by trial and epoch; of two reports of an epoch the later row stays.

    Args:
        epochs: In the order reported, columns of EPOCH_SCHEMA.
        trials: Names in the order planned.
        place: Where the epochs were read, for the message.

    Raises:
        RecordError: An epoch is of a trial that was never planned.
    """
    positions = pc.index_in(epochs["trial"], value_set=pa.array(list(trials), pa.string()))
    if positions.null_count:
        unknown = epochs["trial"].filter(pc.is_null(positions))[0].as_py()
        raise RecordError(
            f"{place}: an event of trial {unknown!r}, which was never planned; the journal lacks a "
            "line."
        )
    trial, epoch = positions.to_numpy(), epochs["epoch"].to_numpy()
    order = np.lexsort((epoch, trial))  # stable: equal keys stay in the order reported
    trial, epoch = trial[order], epoch[order]
    is_last = np.ones(len(trial), dtype=bool)
    is_last[:-1] = (trial[1:] != trial[:-1]) | (epoch[1:] != epoch[:-1])
    return epochs.take(pa.array(order[is_last]))


class EpochReader:
    """Collects lines of epochs and parses many in one call.

    Args:
        place: The journal, for messages.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._lines: list[bytes] = []
        self._tables = [EPOCH_SCHEMA.empty_table()]

    def add(self, body: bytes) -> None:
        """Take the JSON object of a line (`checked_body`)."""
        self._lines.append(body)
        if len(self._lines) >= _AT_ONCE:
            self._parse()

    def add_event(self, event: Epoch) -> None:
        """Take an epoch whose keys stand in another order than the driver writes them."""
        self.add(json.dumps(event.as_dict()).encode())

    def table(self) -> pa.Table:
        """All epochs, in the order taken.

        Raises:
            RecordError: A value is not a number.
        """
        if self._lines:
            self._parse()
        return pa.concat_tables(self._tables)

    def _parse(self) -> None:
        # With the schema given, no type is guessed from the first lines.
        options = pyarrow.json.ParseOptions(
            explicit_schema=EPOCH_SCHEMA, unexpected_field_behavior="ignore"
        )
        try:
            text = BytesIO(b"\n".join(self._lines))
            table = pyarrow.json.read_json(text, parse_options=options)
        except pa.ArrowInvalid:  # NaN and Infinity, which Python writes and JSON does not know
            try:
                rows = [json.loads(line) for line in self._lines]
                table = pa.Table.from_pylist(rows, schema=EPOCH_SCHEMA)
            except (ValueError, pa.ArrowException) as err:
                raise RecordError(
                    f"{self._place}: an epoch event has a value that is no number ({err}); the "
                    "journal was written by another version."
                ) from err
        self._tables.append(table.select(EPOCH_SCHEMA.names))
        self._lines.clear()
