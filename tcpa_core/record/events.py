"""The journal of a study: one JSON object per line, with a checksum.

The journal is the truth of a study; MLflow and Parquet are rebuilt from it. This module knows no
tensors and no platform, so that drivers and reports share it.
"""

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tcpa_core.errors import RecordError
from tcpa_core.record.values import EpochReport, TrialResult

SCHEMA_VERSION = 1

EVENT_KINDS = (
    "study",  # first line: name; the rest is in study.yaml
    "planned",  # trial, params (flat), digest, point, seed, labels, deviation, origin, draw, before
    "started",  # trial, device, epoch (the last one trained), preprocessing, note if any
    "epoch",  # trial, then the fields of EpochReport
    "completed",  # trial, then the fields of TrialResult
    "pruned",  # same
    "failed",  # same; reason says why
    "tested",  # trial, test_loss, test_accuracy: the selected trial of a search, read once
    "resumed",  # a driver took the study up again
    "notice",  # text: what the user should know; trials: of whom, if of some
    "extended",  # trials: added to the budget by 'tcpa extend'
    "stopped",  # the driver ended before the budget; reason
    "finished",  # the budget is spent or the design is complete
)
_TRIAL = re.compile(r"[A-Za-z0-9_-]{1,64}")
FINAL_KINDS = ("completed", "pruned", "failed")


_NONE = type(None)
_TYPES: Mapping[str, tuple[type, ...]] = {
    **{f.name: (float, int, _NONE) for f in (*fields(EpochReport), *fields(TrialResult))},
    **dict.fromkeys(("epoch", "seed", "num_epochs", "num_trainable", "num_trainable_no_head",
                     "peak_memory_bytes"), (int,)),
    **dict.fromkeys(("trial", "digest", "point", "origin", "status", "reason", "device"), (str,)),
    **dict.fromkeys(("params", "labels", "draw"), (dict,)),
    **dict.fromkeys(("t", "began", "gpus"), (float, int)), "before": (list,),
    "duration_s": (float, int), "best_epoch": (int, _NONE), "warnings": (list,),
}  # fmt: skip
"""What a field of an event can be, whatever its kind."""
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "planned": ("trial", "params"),
    "epoch": ("trial", "epoch"),
    **dict.fromkeys(("started", "tested"), ("trial",)),
    **dict.fromkeys(FINAL_KINDS, ("trial", "status")),
}
"""Fields without which an event of a kind says nothing."""


def encode_line(event: Mapping[str, Any]) -> bytes:
    """One journal line: compact JSON with a CRC-32 of the rest as last key, newline included."""
    body = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    data = body.encode(errors="replace")  # a file name in a message need not be Unicode
    return data[:-1] + f',"crc":"{zlib.crc32(data):08x}"}}\n'.encode()


def checked_body(line: bytes, place: str) -> bytes:
    """The JSON object of a journal line without its checksum, after checking it.

    Args:
        line: With or without its newline.
        place: File and line number, for the message.

    Raises:
        RecordError: The line is torn or its checksum differs.
    """
    text, mark, tail = line.rstrip(b"\n").rpartition(b',"crc":"')
    body = text + b"}"
    if not mark or tail[8:] != b'"}' or tail[:8] != f"{zlib.crc32(body):08x}".encode():
        raise RecordError(f"{place}: journal line is torn or altered (checksum differs).")
    return body


def decode_line(line: bytes, place: str) -> dict[str, Any]:
    """Read a journal line back and check it.

    Args:
        line: With or without its newline.
        place: File and line number, for the message.

    Raises:
        RecordError: The line is torn, its checksum differs, its kind is not known, or its trial
            could not be the name of a folder.
    """
    body = checked_body(line, place)
    try:
        event: dict[str, Any] = json.loads(body)
        if b"\\u" in body:  # half of a pair of escapes is no text that a table could hold
            json.dumps(event, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as err:
        raise RecordError(f"{place}: journal line is no JSON object ({err}).") from err
    if event.get("kind") not in EVENT_KINDS:
        raise RecordError(
            f"{place}: unknown event kind {event.get('kind')!r}; the journal was written by "
            f"another version. Known: {', '.join(EVENT_KINDS)}."
        )
    if "trial" in event and not _TRIAL.fullmatch(str(event["trial"])):
        raise RecordError(
            f"{place}: {event['trial']!r} is no name of a trial (1 to 64 of letters, digits, _ "
            "and -); the journal was not written by a driver."
        )
    _check_fields(event, place)
    return event


def _check_fields(event: Mapping[str, Any], place: str) -> None:
    """Refuse an event that lacks a field or has one of another type, whose checksum is right."""
    for name in ("t", *_NEEDED.get(event["kind"], ())):
        if name not in event:
            raise RecordError(
                f"{place}: the {event['kind']!r} event has no {name!r}; the journal was written by "
                "another version."
            )
    for name, value in event.items():
        kinds = _TYPES.get(name)
        is_vast = type(value) is int and abs(value) >= 1 << 63
        if is_vast or (kinds and type(value) not in kinds):
            raise RecordError(
                f"{place}: {name!r} of the {event['kind']!r} event is a {type(value).__name__} "
                "that cannot be used; the journal was written by another version."
            )
    cells = event.get("labels", {}).get("cells", [])
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise RecordError(f"{place}: 'cells' among the labels must be a list of cells.")


def read_journal(path: Path, *, allow_torn_tail: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the events of a journal in order.

    A torn last line is what a killed writer leaves: it was never acknowledged and is passed over
    when `allow_torn_tail`. Damage anywhere else is an error.

    Raises:
        RecordError: A line other than the last is damaged.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                event = decode_line(line, f"{path.name}:{number}")
            except RecordError:
                if allow_torn_tail and not line.endswith(b"\n"):
                    return
                raise
            yield event
