"""What a trial reports, and the journal that keeps it: one JSON object per line, with a checksum.

The journal is the truth of a study; MLflow and Parquet are rebuilt from it. This module knows no
tensors and no platform, so that drivers and reports share it.
"""

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from tcpa_core.errors import RecordError

SCHEMA_VERSION = 1

Status = Literal["completed", "pruned", "failed"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What a worker is doing, as a watchdog asks for it."""

    signs: int = 0
    """Signs of life so far: steps, evaluated batches, decoded images."""
    is_idle: bool = True
    """Between two pieces of work."""
    trials: tuple[str, ...] = ()
    """Those whose epoch is being trained."""
    epoch: int = 0
    """The latest of these epochs, 1-based."""
    usual_s: float | None = None
    """Longest epoch of their pack so far; None: none has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """Measurements of one epoch of one trial. Accuracies are fractions in [0, 1]."""

    epoch: int
    """1-based."""
    train_loss: float
    """Mean over the epoch's batches: classification plus weighted method loss."""
    ce_loss: float
    match_loss: float
    """Weighted method loss (TCPA's matching term); 0 where the method has none."""
    val_loss: float
    val_accuracy: float
    lr: float
    """Learning rate of the epoch's last step."""
    duration_s: float
    """Wall time of the epoch, divided among the trials that shared the device."""
    images_per_s: float
    """Training images of this trial per second of `duration_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """Outcome of one trial. None: not measured (a failed trial has no accuracies)."""

    status: Status
    reason: str = ""
    best_epoch: int | None = None
    num_epochs: int = 0
    """Epochs really trained."""
    val_accuracy: float | None = None
    """Of the selected epoch, see `train.selection`."""
    val_loss: float | None = None
    """Of the same epoch; the lowest one where best_val_loss selects, as studies of it do."""
    test_accuracy: float | None = None
    """Read once, for the selected epoch; None for pruned trials."""
    test_loss: float | None = None
    num_trainable: int = 0
    """Trainable parameters, head included."""
    num_trainable_no_head: int = 0
    flops_per_image: float | None = None
    """Forward FLOPs (multiply-add = 2) of one image in evaluation."""
    train_flops_per_image: float | None = None
    """FLOPs of a training step per image, counted forward and backward."""
    activation_bytes_per_image: float | None = None
    """Kept between the passes of a training step, per image."""
    duration_s: float = 0.0
    peak_memory_bytes: int = 0
    device: str = ""
    warnings: list[str] = field(default_factory=list)
    """Sentences every table repeats, for example random backbone weights."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, in field order."""
        return asdict(self)


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
