"""From a study folder's journal to records.

What was read is kept beside the tables, together with how far the journal was read and the checksum
of that part. The next call checks the checksum and reads only what was appended; a journal that was
altered in any byte is read from its start.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from reports.records.course import Clock, Course
from reports.records.epochs import EPOCH_SCHEMA, EpochReader, in_order, is_epoch
from reports.records.records import Records
from reports.records.study import Study
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record.events import Epoch, Event, checked_body, decode_line, event_of
from tcpa_core.record.state import StudyState, TrialState

_CACHE_VERSION = b"4"
_KEPT = ("trials", "epochs")
_MIN_NEW = 1 << 21
"""New bytes from which everything is kept again; fewer are read again in less time."""
_TOLD_EVERY = 1000
"""Lines between two calls of `progress`."""


@dataclass(slots=True)
class _Reading:
    """How far a journal was read, and what it said until there."""

    offset: int = 0
    crc: int = 0
    """CRC-32 of the bytes before `offset`."""
    lines: int = 0
    replaced: int = 0
    """Epochs that were reported once more."""
    state: StudyState = field(default_factory=StudyState)
    """Of all events but epochs."""
    clock: Clock = field(default_factory=Clock)
    epochs: pa.Table = field(default_factory=EPOCH_SCHEMA.empty_table)


def load_journal(
    study_dir: Path, progress: Callable[[str, int, int], None] | None = None
) -> Records:
    """Read study.yaml and journal.jsonl of a study folder.

    Args:
        progress: Called with ("MB of the journal read", done, total).

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
        reading = _cached(cache, file) or _Reading()
        before = reading.offset
        is_torn = _read_on(reading, file, path, progress)
    if reading.offset - before > (_MIN_NEW if before else 0):
        _keep(reading, cache)
    course = Course.of(reading.state, reading.clock.began)
    records = Records.of(study, reading.state.trials, reading.epochs, reading.replaced, course)
    records = replace(records, folder=study_dir)
    if is_torn:
        torn = "The last line of the journal is torn (its writer was stopped); it was left out."
        records = replace(records, notes=[torn, *records.notes])
    return records


def _read_on(
    reading: _Reading,
    file: BinaryIO,
    path: Path,
    progress: Callable[[str, int, int], None] | None,
) -> bool:
    """Take in the rest of an open journal; True when its last line is torn."""
    epochs = EpochReader(str(path))
    is_torn = False
    size = path.stat().st_size
    for line in file:
        if progress and reading.lines % _TOLD_EVERY == 0:
            progress("MB of the journal read", reading.offset // 1_000_000, size // 1_000_000)
        place = f"{path.name}:{reading.lines + 1}"
        try:
            found = checked_body(line, place) if is_epoch(line) else decode_line(line, place)
        except RecordError:
            if line.endswith(b"\n"):
                raise
            is_torn = True
            break
        match found:
            case bytes():
                epochs.add(found)
            case Epoch():
                epochs.add_event(found)
            case Event():
                _take(reading.state, found, place)
                reading.clock.take(found)
        reading.lines += 1
        reading.offset += len(line)
        reading.crc = zlib.crc32(line, reading.crc)
    new = epochs.table()
    if len(new):
        both = pa.concat_tables([reading.epochs, new])
        reading.epochs = in_order(both, reading.state.trials, path.name)
        reading.replaced += len(both) - len(reading.epochs)
    return is_torn


def _take(state: StudyState, event: Event, place: str) -> None:
    try:
        state.take(event)
    except RecordError as err:
        raise RecordError(f"{place}: {err}") from err


def _cached(cache: Path, file: BinaryIO) -> _Reading | None:
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
        clock = json.loads(about[b"clock"])
        reading = _Reading(offset, crc, lines, replaced)
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None  # none yet, or not whole: the journal is the truth
    # The whole prefix is summed up again: a line altered in the middle must not go unseen.
    crc, left = 0, offset
    while left and (chunk := file.read(min(left, 1 << 24))):
        crc, left = zlib.crc32(chunk, crc), left - len(chunk)
    if left or crc != reading.crc:
        file.seek(0)
        return None
    for events in trials["events"].to_pylist():
        for event in json.loads(events):
            reading.state.take(event_of(event))
    reading.clock.restore(clock, reading.state)
    reading.epochs = epochs.replace_schema_metadata(None).cast(EPOCH_SCHEMA)
    return reading


def _events(trial: TrialState) -> list[Event]:
    """The events that made a trial what it is, in an order that makes it so again."""
    return [
        e
        for e in (trial.planned, trial.started, trial.reused, trial.ended, trial.tested)
        if e is not None
    ]


def _keep(reading: _Reading, cache: Path) -> None:
    """Save what was read for the next call; a folder that cannot be written costs time only."""
    about = {"version": _CACHE_VERSION, "offset": str(reading.offset), "crc": str(reading.crc),
             "lines": str(reading.lines), "replaced": str(reading.replaced),
             "clock": json.dumps(reading.clock.kept(reading.state))}  # fmt: skip
    events = [
        json.dumps([event.as_dict() for event in _events(trial)])
        for trial in reading.state.trials.values()
    ]
    kept = []
    for table in (pa.table({"events": pa.array(events, pa.string())}), reading.epochs):
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(about), sink)
        kept.append(sink.getvalue())
    files = {f"{name}.parquet": data for name, data in zip(_KEPT, kept, strict=True)}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # The checksum comes last: until it is there, the files do not count.
        for name, data in (*files.items(), ("crc", _checksum(kept).encode())):
            draft = cache / f".{name}.tmp"
            draft.write_bytes(data)
            draft.replace(cache / name)
    except OSError:
        return


def _checksum(parts: Sequence[bytes]) -> str:
    return " ".join(f"{zlib.crc32(part):08x}" for part in parts)
