"""What an event becomes in MLflow: parameters, metrics and tags as values; no client is called."""

import json
from collections.abc import Iterable
from dataclasses import asdict

from mlflow.entities import Metric, Param

from tcpa_core.record import mirror_schema as mirror
from tcpa_core.record.events import (
    Ended,
    Epoch,
    Event,
    Planned,
    Reused,
    Started,
    Tested,
    TrialEvent,
)
from tcpa_core.record.values import EpochReport, TrialResult

MAX_VALUE = 6000
"""Characters that MLflow takes of a parameter's value."""
MAX_TAG = 5000
"""Characters that it takes of a tag's value."""


def milliseconds(event: Event) -> int:
    """When an event happened, as MLflow counts."""
    return int(1000 * event.t)


def params_of(planned: Planned | None) -> list[Param]:
    """Settings of a trial by dotted path; none where it was not planned just now."""
    settings = planned.params if planned else {}
    return [Param(path, str(value)[:MAX_VALUE]) for path, value in settings.items()]


def trial_tags(planned: Planned) -> dict[str, str]:
    """What a trial is: tags that its run is made with."""
    return {
        mirror.TRIAL: planned.trial,
        mirror.DIGEST: planned.digest,
        mirror.POINT: planned.point,
        mirror.SEED: str(planned.seed),
        mirror.METHODS: chain_of(planned),
        mirror.ORIGIN: planned.origin,
        mirror.LABELS: json.dumps({"cells": list(planned.cells)})[:MAX_TAG],
        mirror.DEVIATION: json.dumps(list(planned.deviation))[:MAX_TAG],
        mirror.PARAMS: json.dumps(planned.params)[:MAX_TAG],
        **({mirror.FROM: json.dumps(asdict(planned.parent))} if planned.parent else {}),
    }


def chain_of(planned: Planned) -> str:
    """Methods of a trial, as in "vpt+adapter"."""
    return "+".join(planned.params["methods"])


def metrics_of(event: Event) -> list[Metric]:
    """Numbers of an event: of an epoch at its step, of a final or "tested" event at step 0."""
    stamp, step, named = milliseconds(event), 0, mirror.FINAL_METRICS
    values: EpochReport | TrialResult | Tested
    match event:
        case Epoch():
            values, step, named = event.report, event.report.epoch, mirror.EPOCH_METRICS
        case Ended():
            values = event.result
        case Tested():
            values = event
        case _:
            return []
    # None and what an earlier version did not measure are no metrics: 0 would be a measurement.
    found = {name: getattr(values, key, None) for key, name in named.items()}
    return [
        Metric(name, float(value), stamp, step)
        for name, value in found.items()
        if isinstance(value, int | float)
    ]


def tags_of(group: Iterable[TrialEvent]) -> dict[str, str]:
    """What events of a trial say in words, as tags."""
    tags: dict[str, str] = {}
    for event in group:
        if isinstance(event, Started):
            tags[mirror.STARTED] = json.dumps({"device": event.device, "t": event.t})
            tags |= _hardware_tags(event)
            if event.preprocessing is not None:
                tags[mirror.PREPROCESSING] = json.dumps(event.preprocessing)[:MAX_TAG]
        elif isinstance(event, Reused):
            names = ("study", "study_id", "source", "checkpoint")
            tags[mirror.REUSED] = json.dumps({name: getattr(event, name) for name in names})
        elif isinstance(event, Ended):
            result = event.result
            rest = {"device": result.device, "warnings": result.warnings, "t": event.t}
            tags[mirror.STATUS] = result.status
            tags[mirror.RESULT] = json.dumps(rest)[:MAX_TAG]
            if result.reason:
                tags[mirror.REASON] = result.reason[:MAX_TAG]
        if isinstance(event, Tested | Ended):
            tags[mirror.LAST_EVENT] = str(event.n)
    return tags


def _hardware_tags(event: Started) -> dict[str, str]:
    """Where a trial runs; nothing where an earlier version did not record it."""
    found = event.hardware or {}
    named = {
        mirror.HOST: "host",
        mirror.DEVICE_NAME: "name",
        mirror.DEVICE_BYTES: "memory_bytes",
    }
    return {tag: str(found[key])[:MAX_TAG] for tag, key in named.items() if key in found}
