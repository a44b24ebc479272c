"""The journal of a study: one JSON object per line, with a checksum; each is one of these events.

The journal is the truth of a study; MLflow and Parquet are rebuilt from it. `encode_line`
and `decode_line` are its only writer and its only reader. This module knows no tensors and no
platform, so that workers, drivers and reports share it.
"""

import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tcpa_core.config import Flat, TrialConfig
from tcpa_core.errors import RecordError
from tcpa_core.record.values import OF_SOME_TASKS, EpochReport, TrialResult

SCHEMA_VERSION = 1

FINAL_KINDS = ("completed", "pruned", "failed")
Fields = dict[str, Any]
"""A JSON object."""
_TRIAL = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a study."""

    n: int | None = None
    """Running number in the journal, from 0; None: not written yet."""
    t: float = 0.0
    """Unix time in seconds at which it was written."""
    began: float | None = None
    """On a driver's first event with a working cluster: since when its time counts."""
    gpus: float | None = None
    """GPUs that the study holds from here on, parts of one as parts; None: as before."""

    @property
    def kind(self) -> str:
        """What happened, as the journal spells it."""
        return _KINDS[type(self)]

    def as_dict(self) -> Fields:
        """The journal's JSON object, in the order of its keys."""
        # kind comes early: readers of millions of lines look for epochs without parsing them
        stamp = {"t": self.t} if self.n is None else {"n": self.n, "t": self.t}
        marks = {"began": self.began, "gpus": self.gpus}
        given = {name: value for name, value in marks.items() if value is not None}
        return {**stamp, "kind": self.kind, **self._body(), **given}

    def _body(self) -> Fields:
        names = (f.name for f in fields(self) if f.name not in _STAMP)
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyBegun(Event):
    """First line of a journal; the rest is in study.yaml."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """A driver took the study up again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended(Event):
    """'tcpa extend' allowed more trials."""

    trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Event):
    """The driver ended before the budget was spent."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """The budget is spent or the design is complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """What the user should know."""

    text: str
    trials: Sequence[str] = ()
    """Of whom, if of some."""
    waits: bool | None = None
    """True: from here on workers wait for a place, as the text says; False: no longer."""

    def _body(self) -> Fields:
        trials = {"trials": list(self.trials)} if self.trials else {}
        waits = {} if self.waits is None else {"waits": self.waits}
        return {"text": self.text, **trials, **waits}


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned(Event):
    """A result from before the study, which its sampler was given."""

    source: str
    """Where it is from: "STUDY/TRIAL" or "FILE:LINE"."""
    params: Flat
    """The point, by dotted path, and its methods."""
    values: Sequence[float]
    """The objectives."""
    note: str = ""
    """In what it was measured otherwise; "": in nothing."""
    epoch: int | None = None
    """Told as stopped early at this epoch, because it was measured otherwise."""

    def _body(self) -> Fields:
        body = {"source": self.source, "params": self.params, "values": list(self.values)}
        rest: Fields = {"note": self.note or None, "epoch": self.epoch}
        return {**body, **{name: value for name, value in rest.items() if value is not None}}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEvent(Event):
    """Something that happened to one trial."""

    trial: str
    """Its name: 1 to 64 of letters, digits, _ and -."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The state of another trial, from which one begins in place of one from its seed."""

    trial: str
    """Whose state it is."""
    epoch: int
    """After which; the trial that begins from it trains the next one first."""
    replaces: str
    """The trial that ended at that epoch, whose place in the population is taken."""


# Without slots: it keeps its configuration once that was asked for.
@dataclass(frozen=True, kw_only=True)
class Planned(TrialEvent):
    """A trial to run. It travels as this value until a pack makes it a `Member`."""

    params: Flat
    """All settings by dotted path, the seed among them."""
    digest: str
    """Identity of the trial: settings, data, weights and seed."""
    point: str
    """The same for all seeds of a setting."""
    origin: str
    """Who proposed it: "sampler", "first_point", "random", "replicate", "design" or "pbt"."""
    cells: Sequence[dict[str, Any]] = ()
    """Places in the tables of an ablation for which it counts."""
    deviation: Sequence[str] = ()
    """Where its methods differ from their papers."""
    draw: Flat
    """Values that Optuna drew, so that a resumed study can tell them again."""
    before: Sequence[str | Flat] | None = None
    """What the sampler met between the trial before and this one, in order: names of trials told,
    and points drawn that were run before ({"digest", "draw", "origin"}). None: not recorded."""
    parent: Parent | None = None
    """What it begins from; None: from its seed."""

    @classmethod
    def of(cls, trial: str, config: TrialConfig, **rest: Any) -> Self:
        """A trial with this configuration; the rest as of the fields."""
        planned = cls(trial=trial, params=config.flat(), **rest)
        planned.__dict__["config"] = config
        return planned

    @cached_property
    def config(self) -> TrialConfig:
        """Its settings.

        Raises:
            ConfigError: They are none of a trial.
        """
        return TrialConfig.from_flat(self.params, place=f"trial {self.trial}")

    @property
    def seed(self) -> int:
        """Seed of the trial."""
        return int(self.params.get("seed", 0))

    @property
    def begins_after(self) -> int:
        """The epoch after which it begins: that of its parent's state, 0 where it has none."""
        return self.parent.epoch if self.parent else 0

    def _body(self) -> Fields:
        return {
            "trial": self.trial,
            "params": self.params,
            "digest": self.digest,
            "point": self.point,
            "seed": self.seed,
            "labels": {"cells": list(self.cells)},
            "deviation": list(self.deviation),
            "origin": self.origin,
            "draw": self.draw,
            **({} if self.before is None else {"before": list(self.before)}),
            **({} if self.parent is None else {"from": asdict(self.parent)}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reused(TrialEvent):
    """A trial of the same digest has completed in an earlier study: its epochs and its end follow
    as recorded there, and nothing is trained."""

    study: str
    """Name of the study that trained it."""
    study_id: str
    source: str
    """Name of the trial there."""
    checkpoint: str
    """What became of its trained state: "linked", "copied" or "absent"."""

    @property
    def text(self) -> str:
        """ "STUDY/TRIAL"."""
        return f"{self.study}/{self.source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(TrialEvent):
    """A worker took a trial, fresh or from its last checkpoint."""

    device: str
    epoch: int = 0
    """The last one trained."""
    preprocessing: Mapping[str, Any] | None = None
    """What becomes of images in front of its backbone."""
    note: str = ""
    """What there is to say about its checkpoint."""
    worker: int | str | None = None
    hardware: Mapping[str, Any] | None = None
    """What the worker trains on, as of `Device.as_dict`. None: not recorded."""
    costs: Mapping[str, float | None] | None = None
    """`COSTS` by name, where several objectives decide which trials end early."""

    def _body(self) -> Fields:
        body = {"trial": self.trial, "device": self.device, "epoch": self.epoch}
        rest: dict[str, Any] = {
            "preprocessing": self.preprocessing,
            "note": self.note or None,
            "worker": self.worker,
            "hardware": self.hardware,
            "costs": self.costs,
        }
        return {**body, **{name: value for name, value in rest.items() if value is not None}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch(TrialEvent):
    """An epoch was trained."""

    report: EpochReport

    def _body(self) -> Fields:
        # by name: `asdict` copies deeply, which takes ten times as long for every epoch
        measured = {n: getattr(self.report, n) for n in _EPOCH_FIELDS}
        return {"trial": self.trial, **_of_task(measured)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(TrialEvent):
    """A trial is completed, pruned or failed; `result.reason` says why."""

    result: TrialResult

    @property
    def kind(self) -> str:
        """Its status."""
        return self.result.status

    def _body(self) -> Fields:
        result = self.result.as_dict()
        # what another version did not measure stays absent: a number is never null there
        absent = {name for name in _NUMBERS if result[name] is None}
        named = {k: v for k, v in result.items() if k not in absent}
        return {"trial": self.trial, **_of_task(named)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested(TrialEvent):
    """The selected state of a trial was scored on the test split, which is read once."""

    test_loss: float | None
    test_accuracy: float | None
    test_miou: float | None = None
    """Of a segmentation, as of `TrialResult`."""
    test_mean_accuracy: float | None = None
    test_miou_multiscale: float | None = None
    reason: str = ""
    """Why there is no score."""

    def _body(self) -> Fields:
        body = _of_task(Event._body(self))
        return body if self.reason else {k: v for k, v in body.items() if k != "reason"}


def _of_task(measured: Fields) -> Fields:
    """Without what is not measured for the trial's task."""
    return {k: v for k, v in measured.items() if v is not None or k not in OF_SOME_TASKS}


_STAMP = tuple(f.name for f in fields(Event))
_KINDS: Mapping[type[Event], str] = {
    StudyBegun: "study",
    Learned: "learned",
    Planned: "planned",
    Reused: "reused",
    Started: "started",
    Epoch: "epoch",
    Tested: "tested",
    Resumed: "resumed",
    Notice: "notice",
    Extended: "extended",
    Stopped: "stopped",
    Finished: "finished",
}
EVENT_KINDS = (*_KINDS.values(), *FINAL_KINDS)


_EPOCH_FIELDS = tuple(f.name for f in fields(EpochReport))
_TOLD = ("status", "reason", "device", "warnings")
_MEASURED = tuple(f.name for f in fields(TrialResult) if f.name not in _TOLD)


def _planned(event: Fields, stamp: Fields) -> Planned:
    steps: list[str | Flat] | None = event.get("before")
    for step in steps or ():
        is_repeat = isinstance(step, dict) and step.keys() == {"digest", "draw", "origin"}
        if not isinstance(step, str) and not is_repeat:
            raise RecordError(
                f"the 'planned' event of trial {event['trial']} has {step!r} under 'before'; the "
                "journal was written by another version."
            )
    return Planned(
        trial=event["trial"],
        # the same few dozen names in every trial of a study of thousands
        params={sys.intern(path): value for path, value in event["params"].items()},
        digest=event["digest"],
        point=event["point"],
        origin=event["origin"],
        cells=event["labels"]["cells"],
        deviation=event.get("deviation") or (),
        draw=event["draw"],
        before=steps,
        parent=_parent(event),
        **stamp,
    )


def _parent(event: Fields) -> Parent | None:
    if "from" not in event:
        return None
    found = event["from"]
    named = [found.get(name) for name in ("trial", "replaces")]
    is_whole = all(isinstance(name, str) and _TRIAL.fullmatch(name) for name in named)
    if not is_whole or type(found.get("epoch")) is not int or found["epoch"] < 1:
        raise RecordError(
            f"the 'planned' event of trial {event['trial']} begins from {found!r}, which is no "
            "state of a trial; the journal was not written by a driver."
        )
    return Parent(trial=named[0], epoch=found["epoch"], replaces=named[1])


def _reused(event: Fields, stamp: Fields) -> Reused:
    if not all(_TRIAL.fullmatch(event[name]) for name in ("study", "study_id", "source")):
        raise RecordError(
            f"the 'reused' event of trial {event['trial']} names no study or trial; the journal "
            "was not written by a driver."
        )
    names = ("trial", "study", "study_id", "source", "checkpoint")
    return Reused(**{name: event[name] for name in names}, **stamp)


def _started(event: Fields, stamp: Fields) -> Started:
    names = ("trial", "device", "epoch", "preprocessing", "note", "worker", "hardware", "costs")
    return Started(**{"device": "", **{n: event[n] for n in names if n in event}}, **stamp)


def _epoch(event: Fields, stamp: Fields) -> Epoch:
    # None where another version did not measure something yet
    report = EpochReport(**{name: event.get(name) for name in _EPOCH_FIELDS})  # type: ignore[arg-type]
    return Epoch(trial=event["trial"], report=report, **stamp)


def _ended(event: Fields, stamp: Fields) -> Ended:
    # None where another version did not measure something yet: 0 would be a measurement
    measured = {name: event.get(name) for name in _MEASURED}
    told = {name: event[name] for name in _TOLD if name in event}
    result = TrialResult(**told, **measured)  # type: ignore[arg-type]
    if result.status != event["kind"]:
        raise RecordError(
            f"the {event['kind']!r} event of trial {event['trial']} has the status "
            f"{result.status!r}; the journal was not written by a driver."
        )
    return Ended(trial=event["trial"], result=result, **stamp)


def _tested(event: Fields, stamp: Fields) -> Tested:
    return Tested(
        trial=event["trial"],
        test_loss=event.get("test_loss"),
        test_accuracy=event.get("test_accuracy"),
        test_miou=event.get("test_miou"),
        test_mean_accuracy=event.get("test_mean_accuracy"),
        test_miou_multiscale=event.get("test_miou_multiscale"),
        reason=event.get("reason", ""),
        **stamp,
    )


def _learned(event: Fields, stamp: Fields) -> Learned:
    names = ("source", "params", "values", "note", "epoch")
    if not event["values"] or not all(isinstance(one, int | float) for one in event["values"]):
        raise RecordError(
            "a 'learned' event has no values; the journal was not written by a driver."
        )
    return Learned(**{name: event[name] for name in names if name in event}, **stamp)


_READERS: Mapping[str, Callable[[Fields, Fields], Event]] = {
    "learned": _learned,
    "planned": _planned,
    "reused": _reused,
    "started": _started,
    "epoch": _epoch,
    **dict.fromkeys(FINAL_KINDS, _ended),
    "tested": _tested,
    "notice": lambda e, s: Notice(
        text=e.get("text", ""), trials=e.get("trials") or (), waits=e.get("waits"), **s
    ),
    "study": lambda e, s: StudyBegun(name=e.get("name", ""), **s),
    "resumed": lambda e, s: Resumed(**s),
    "extended": lambda e, s: Extended(trials=e.get("trials", 0), **s),
    "stopped": lambda e, s: Stopped(reason=e.get("reason", ""), **s),
    "finished": lambda e, s: Finished(**s),
}


_NONE = type(None)
_NUMBERS = ("num_epochs", "num_trainable", "num_trainable_no_head", "peak_memory_bytes",
            "duration_s")  # fmt: skip
_TYPES: Mapping[str, tuple[type, ...]] = {
    **{f.name: (float, int, _NONE) for f in (*fields(EpochReport), *fields(TrialResult))},
    **dict.fromkeys(("epoch", "seed", "num_epochs", "num_trainable", "num_trainable_no_head",
                     "peak_memory_bytes"), (int,)),
    **dict.fromkeys(("trial", "digest", "point", "origin", "status", "reason", "device",
                     "text", "note", "name", "study", "study_id", "source", "checkpoint"), (str,)),
    **dict.fromkeys(("params", "labels", "draw", "hardware", "from"), (dict,)),
    **dict.fromkeys(("t", "began", "gpus"), (float, int)), "before": (list,), "trials": (list, int),
    "duration_s": (float, int), "best_epoch": (int, _NONE), "warnings": (list,),
    "waits": (bool,), "values": (list,),
}  # fmt: skip
"""What a field of an event can be, whatever its kind."""
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "planned": ("trial", "params"),
    "learned": ("source", "params", "values"),
    "epoch": ("trial", "epoch"),
    **dict.fromkeys(("started", "tested", "reused"), ("trial",)),
    **dict.fromkeys(FINAL_KINDS, ("trial", "status")),
}
"""Fields without which an event of a kind says nothing."""


def encode_line(event: Fields) -> bytes:
    """One journal line: compact JSON with a CRC-32 of the rest as last key, newline included.

    Args:
        event: As of `Event.as_dict`.
    """
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


def decode_line(line: bytes, place: str) -> Event:
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
    try:
        return event_of(event)
    except RecordError as err:
        raise RecordError(f"{place}: {err}") from err
    except KeyError as err:
        raise RecordError(
            f"{place}: the {event['kind']!r} event of trial {event.get('trial')} has no {err}; the "
            "journal was written by another version."
        ) from err


def event_of(event: Fields) -> Event:
    """The event of a JSON object, as of `Event.as_dict`.

    Raises:
        RecordError, KeyError: It contradicts itself, or lacks a field.
    """
    stamp = {name: event[name] for name in _STAMP if name in event}
    return _READERS[event["kind"]](event, stamp)


def _check_fields(event: Fields, place: str) -> None:
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


def read_journal(path: Path, *, allow_torn_tail: bool = True) -> Iterator[Event]:
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
