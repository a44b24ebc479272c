"""From a study folder's journal to records: a dict per trial, an Arrow table of epochs.

What was read is kept beside the tables, together with how far the journal was read and the checksum
of that part. The next call checks the checksum and reads only what was appended; a journal that was
altered in any byte is read from its start.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from reports.records.study import Study
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record.events import FINAL_KINDS, checked_body, decode_line
from tcpa_core.record.values import EpochReport, TrialResult

EPOCH_FIELDS = tuple(f.name for f in fields(EpochReport) if f.name != "epoch")
RESULT_FIELDS = tuple(f.name for f in fields(TrialResult))
IDENTITY_FIELDS = ("params", "digest", "point", "seed", "labels", "origin", "deviation")
EPOCH_SCHEMA = pa.schema(
    [("trial", pa.string()), ("epoch", pa.int64()), *((f, pa.float64()) for f in EPOCH_FIELDS)]
)

_EPOCH_MARK = b'"kind":"epoch"'
_MARK_WITHIN = 64
"""Bytes in which the driver writes a line's number, time and kind."""
_EPOCHS_AT_ONCE = 100_000
"""Lines parsed in one call: about 30 MB of text."""
_CACHE_VERSION = b"1"
_KEPT = ("trials", "epochs")
_LITTLE = 1 << 21
"""Bytes that are read again sooner than everything is kept again."""


@dataclass(slots=True)
class Records:
    """All that a study recorded."""

    study: Study
    trials: list[dict[str, Any]] = field(default_factory=list)
    """Keys: trial, params, digest, point, seed, labels, origin, status, and once finished the
    fields of TrialResult. Status: planned, running, completed, pruned or failed."""
    epochs: pa.Table = field(default_factory=EPOCH_SCHEMA.empty_table)
    """Columns of EPOCH_SCHEMA, by trial in the order planned, then by epoch."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what was read but not used, for every report."""


@dataclass(slots=True)
class _State:
    """How far a journal was read, and what it said until there."""

    offset: int = 0
    crc: int = 0
    """CRC-32 of the bytes before `offset`."""
    lines: int = 0
    replaced: int = 0
    """Epochs that were reported once more."""
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    epochs: pa.Table = field(default_factory=EPOCH_SCHEMA.empty_table)


def load_journal(study_dir: Path) -> Records:
    """Read study.yaml and journal.jsonl of a study folder.

    Raises:
        StudyError: No such study folder, or it has no journal.
        RecordError: A line other than the last is damaged, or tells of a trial never planned.
    """
    study = Study.read(study_dir)
    path = study_dir / "journal.jsonl"
    if not path.is_file():
        raise StudyError(f"{path} is missing; the report of a study is made from its journal.")
    cache = study_dir / "tables" / ".read"
    with path.open("rb") as file:
        state = _cached(cache, file) or _State()
        before = state.offset
        is_torn = _read_on(state, file, path)
    if state.offset - before > (_LITTLE if before else 0):
        _keep(state, cache)
    records = Records(study, list(state.trials.values()), state.epochs)
    if is_torn:
        records.notes.append(
            "The last line of the journal is torn (its writer was stopped); it was left out."
        )
    note_replaced(records, state.replaced)
    return records


def note_replaced(records: Records, replaced: int) -> None:
    """Say that epochs were trained again after a resume."""
    if replaced:
        records.notes.append(
            f"{replaced} epochs were trained again after a resume; the later report counts."
        )


def in_order(epochs: pa.Table, trials: Mapping[str, dict[str, Any]], place: str) -> pa.Table:
    """Sort epochs by trial and epoch; of two reports of an epoch the later row stays.

    A trial with an epoch but no final event becomes running, also if its start was not recorded.

    Raises:
        RecordError: An epoch is of a trial that was never planned.
    """
    positions = pc.index_in(epochs["trial"], value_set=pa.array(list(trials), pa.string()))
    if positions.null_count:
        unknown = epochs["trial"].filter(pc.is_null(positions))[0].as_py()
        raise _never_planned(place, unknown)
    trial, epoch = positions.to_numpy(), epochs["epoch"].to_numpy()
    names = list(trials)
    for position in np.unique(trial):
        if trials[names[position]]["status"] == "planned":
            trials[names[position]]["status"] = "running"
    order = np.lexsort((epoch, trial))  # stable: equal keys stay in the order reported
    trial, epoch = trial[order], epoch[order]
    is_last = np.ones(len(trial), dtype=bool)
    is_last[:-1] = (trial[1:] != trial[:-1]) | (epoch[1:] != epoch[:-1])
    return epochs.take(pa.array(order[is_last]))


def _read_on(state: _State, file: Any, path: Path) -> bool:
    """Take in the rest of an open journal; True when its last line is torn."""
    reader = _EpochReader(path)
    is_torn = False
    for line in file:
        place = f"{path.name}:{state.lines + 1}"
        is_epoch = _EPOCH_MARK in line[:_MARK_WITHIN]
        try:
            body = checked_body(line, place) if is_epoch else b""
            event: dict[str, Any] = {} if is_epoch else decode_line(line, place).as_dict()
        except RecordError:
            if line.endswith(b"\n"):
                raise
            is_torn = True
            break
        if is_epoch:
            reader.add(body)
        else:
            _take(state, event, place, reader)
        state.lines += 1
        state.offset += len(line)
        state.crc = zlib.crc32(line, state.crc)
    new = reader.table()
    if len(new):
        epochs = pa.concat_tables([state.epochs, new])
        state.epochs = in_order(epochs, state.trials, path.name)
        state.replaced += len(epochs) - len(state.epochs)
    return is_torn


def _take(state: _State, event: Mapping[str, Any], place: str, reader: "_EpochReader") -> None:
    kind, name = event["kind"], event.get("trial")
    if kind == "planned":  # planned again after a resume: it keeps what it has
        identity = {key: event.get(key) for key in IDENTITY_FIELDS}
        state.trials.setdefault(event["trial"], {"trial": name, "status": "planned", **identity})
    elif kind == "epoch":  # keys in another order than the driver writes them
        reader.add(json.dumps(event).encode())
    elif name is not None:
        if name not in state.trials:
            raise _never_planned(place, name)
        _apply(state.trials[name], kind, event)


def _apply(trial: dict[str, Any], kind: str, event: Mapping[str, Any]) -> None:
    if kind == "started":
        # Also a trial that had ended: taken up once more, its old result no longer counts.
        for name in RESULT_FIELDS:
            trial.pop(name, None)
        trial.update(status="running", device=event.get("device"))
    elif kind in FINAL_KINDS:
        trial.update({name: event[name] for name in RESULT_FIELDS if name in event})
        trial["status"] = kind
    elif kind == "tested":
        trial.update({name: event.get(name) for name in ("test_loss", "test_accuracy")})


def _never_planned(place: str, trial: str) -> RecordError:
    return RecordError(
        f"{place}: an event of trial {trial!r}, which was never planned; the journal lacks a line."
    )


class _EpochReader:
    """Collects epoch lines and parses many in one call, which is five times as fast as each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[bytes] = []
        self._tables = [EPOCH_SCHEMA.empty_table()]

    def add(self, body: bytes) -> None:
        self._lines.append(body)
        if len(self._lines) >= _EPOCHS_AT_ONCE:
            self._parse()

    def table(self) -> pa.Table:
        if self._lines:
            self._parse()
        return pa.concat_tables(self._tables)

    def _parse(self) -> None:
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
                    f"{self._path}: an epoch event has a value that is no number ({err}); the "
                    "journal was written by another version."
                ) from err
        self._tables.append(table.select(EPOCH_SCHEMA.names))
        self._lines.clear()


def _cached(cache: Path, file: Any) -> _State | None:
    """What an earlier call kept, if the journal still begins with the very bytes it read.

    Leaves `file` behind these bytes, or at its start.
    """
    try:
        kept = [(cache / f"{name}.parquet").read_bytes() for name in _KEPT]
        if (cache / "crc").read_text() != _checksum(kept):
            return None
        trials, epochs = (pq.read_table(pa.BufferReader(data)) for data in kept)
        about = trials.schema.metadata or {}
        if about != epochs.schema.metadata or about.get(b"version") != _CACHE_VERSION:
            return None
        offset, crc, lines, replaced = (
            int(about[key]) for key in (b"offset", b"crc", b"lines", b"replaced")
        )
        state = _State(offset, crc, lines, replaced)
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None  # none yet, or not whole: the journal is the truth
    crc, left = 0, offset
    while left and (chunk := file.read(min(left, 1 << 24))):
        crc, left = zlib.crc32(chunk, crc), left - len(chunk)
    if left or crc != state.crc:
        file.seek(0)
        return None
    state.trials = {t["trial"]: t for t in map(json.loads, trials["json"].to_pylist())}
    state.epochs = epochs.replace_schema_metadata(None).cast(EPOCH_SCHEMA)
    return state


def _keep(state: _State, cache: Path) -> None:
    """Save the state for the next call; a folder that cannot be written costs time only."""
    about = {"version": _CACHE_VERSION, "offset": str(state.offset), "crc": str(state.crc),
             "lines": str(state.lines), "replaced": str(state.replaced)}  # fmt: skip
    trials = pa.table({"json": [json.dumps(trial) for trial in state.trials.values()]})
    kept = []
    for table in (trials, state.epochs):
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(about), sink)
        kept.append(sink.getvalue())
    files = {f"{name}.parquet": data for name, data in zip(_KEPT, kept, strict=True)}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for name, data in (*files.items(), ("crc", _checksum(kept).encode())):
            draft = cache / f".{name}.tmp"
            draft.write_bytes(data)
            draft.replace(cache / name)
    except OSError:
        return


def _checksum(parts: Sequence[bytes]) -> str:
    return " ".join(f"{zlib.crc32(part):08x}" for part in parts)
