"""Journals for tests: events as plain dictionaries, what does not matter filled in."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from search.study.folder import StudyDir
from search.study.journal import Journal
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.record.events import Event, Planned, event_of, read_journal

_PLANNED: Mapping[str, Any] = {"params": {}, "origin": "sampler", "labels": {}, "draw": {}}


def event(fields: Mapping[str, Any]) -> Event:
    """The event of these fields."""
    filled = dict(fields)
    if filled["kind"] == "planned":
        trial = filled["trial"]
        filled = {**_PLANNED, "digest": trial, "point": trial, **filled}
        filled["labels"] = {"cells": [], **filled["labels"]}
        if "seed" in filled:
            filled["params"] = {"seed": filled["seed"], **filled["params"]}
    if filled["kind"] == "epoch":
        filled = {"duration_s": 1.0, **filled}
    if filled["kind"] in ("completed", "pruned", "failed"):
        filled.setdefault("status", filled["kind"])
    return event_of(filled)


def write(journal: Journal, *events: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Append events; as they were written."""
    return [one.as_dict() for one in journal.append(*map(event, events))]


def recorded(study: StudyDir | Path, *, allow_torn_tail: bool = True) -> list[dict[str, Any]]:
    """The events of a study, or of a journal."""
    path = study.journal_path if isinstance(study, StudyDir) else study
    events = read_journal(path, allow_torn_tail=allow_torn_tail) if path.exists() else ()
    return [one.as_dict() for one in events]


def planned(
    trial: str,
    config: TrialConfig,
    origin: str = "sampler",
    digest: str = "d",
    point: str = "p",
    cells: Iterable[dict[str, Any]] = (),
    draw: Flat | None = None,
) -> Planned:
    """A planned trial."""
    rest = {"origin": origin, "digest": digest, "point": point}
    return Planned.of(trial, config, cells=list(cells), draw=draw or {}, **rest)
