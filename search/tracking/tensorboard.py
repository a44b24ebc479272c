"""A study's journal as event files of TensorBoard: a folder for each trial.

A file is made whole and takes the place of an earlier one under the same name, so that a repeat
doubles no point.
"""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event as Record
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import hparams, scalar

from search.study.folder import StudyDir
from search.tracking.run_values import chain_of, metrics_of
from search.tracking.view import searched
from spaces.axes import label
from tcpa_core.errors import StorageError
from tcpa_core.record.events import Ended, Epoch, Event, Planned, Tested, TrialEvent
from tcpa_core.record.mirror_schema import EPOCH_METRICS
from tcpa_core.record.scores import is_share, score_of

OUTCOMES = ("val_loss", "num_trainable", "duration_s")
"""Numbers of an outcome that the table of hyper-parameters has beside settings and scores."""


def write_event_files(study: StudyDir, out: Path) -> int:
    """Write all trials of a study that have begun.

    Args:
        out: Folder that gets a folder with the study's name.

    Returns:
        The number of trials.

    Raises:
        RecordError, ConfigError: The study is damaged.
        StorageError: The folder cannot be written.
    """
    paths = searched(study.space())
    trials: dict[str, list[TrialEvent]] = {}
    for event in study.events():
        if isinstance(event, TrialEvent):
            trials.setdefault(event.trial, []).append(event)
    begun = [events for events in trials.values() if len(events) > 1]
    for events in begun:
        planned = events[0]
        assert isinstance(planned, Planned)
        folder = out / study.name / f"{planned.trial}-{chain_of(planned)}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder, list(_records(planned, events, paths)))
        except OSError as err:
            raise StorageError.of(folder, err) from err
    return len(begun)


def _write(folder: Path, records: Iterable[Any]) -> None:
    # The same name at every repeat; TensorBoard reads whatever has "tfevents" in its name.
    path = folder / "events.out.tfevents.0.tcpa"
    part = folder / "part"
    writer = RecordWriter(str(part))
    for record in records:
        writer.write(record.SerializeToString())
    writer.close()
    os.replace(part, path)


def _records(planned: Planned, events: list[TrialEvent], paths: list[str]) -> Iterator[Any]:
    begun = planned.t
    yield Record(wall_time=begun, file_version="brain.Event:2")
    numbers = dict(_numbers(events))
    score = score_of(planned.params)
    shown = {*OUTCOMES, score.val, score.test, *score.variants}
    values = {name: value for (name, _), (_, value) in numbers.items() if name in shown}
    if values:
        settings = {path: _plain(planned.params.get(path)) for path in [*paths, "seed"]}
        for summary in hparams(settings, values):
            yield Record(wall_time=begun, summary=summary)
    for (name, step), (time, value) in sorted(numbers.items(), key=lambda one: one[0]):
        yield Record(wall_time=time, step=step, summary=scalar(name, value))


def _numbers(events: Iterable[Event]) -> Iterator[tuple[tuple[str, int], tuple[float, float]]]:
    """Time and value by name and step; an epoch that was trained again after a resume once."""
    for event in events:
        if isinstance(event, Epoch | Ended | Tested):
            for metric in metrics_of(event):
                is_outcome = metric.key in OUTCOMES or is_share(metric.key)
                is_shown = is_outcome or metric.key in EPOCH_METRICS.values()
                if is_shown and math.isfinite(metric.value):
                    yield (metric.key, metric.step), (event.t, metric.value)


def _plain(value: Any) -> str | bool | float:
    """A setting as TensorBoard takes it."""
    return value if isinstance(value, str | bool | int | float) else label(value)
