"""Results of earlier studies, or of a table, that a sampler is given before it draws.

What was measured under the same settings but for the axes is told as it is. What was stopped early,
or measured under other settings, as with fewer epochs or on other data, is told as a trial that was
stopped early: it ranks behind every completed trial, and among its like by epochs and value.
"""

import csv
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from search.study.folder import StudyDir
from spaces.axes import Axis
from spaces.reader import read_text
from spaces.setting_values import default, method_of, paths
from spaces.space import Space
from tcpa_core.config import Flat, TrialConfig, file_settings
from tcpa_core.errors import ConfigError, StudyError
from tcpa_core.record.events import Learned
from tcpa_core.record.scores import is_share

SHOWN = 3
"""Rows of a kind that a line names."""
_NOT_COMPARED = {"seed", "protocol", "data.root", "backbone.weights"}


@dataclass(slots=True)
class Lesson:
    """What is told of earlier results, and what is not."""

    told: list[Learned] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Names of rows by why they are not told."""

    @property
    def lines(self) -> list[str]:
        """Both in sentences."""
        marked = [one for one in self.told if one.note]
        lines = [f"the sampler learns from {len(self.told)} earlier results"]
        for note in dict.fromkeys(one.note for one in marked):
            of = [one.source for one in marked if one.note == note]
            lines.append(f"{_some(of)}: told as stopped early, as {note}")
        lines += [f"{_some(names)}: left out, as {why}" for why, names in self.left_out.items()]
        return lines


def learn(sources: Iterable[str], space: Space, root: Path) -> Lesson:
    """Read earlier results.

    Args:
        sources: Names of studies below `root`, or CSV files with a column for each axis, by its
            dotted path, and one for each objective.

    Raises:
        ConfigError: The space is an ablation, or a file lacks columns.
        StudyError: There is no such study or file.
        RecordError: A journal is damaged.
    """
    if space.ablation is not None:
        raise ConfigError("--learn-from: a design has no sampler that could learn; leave it out.")
    found = Lesson()
    for source in sources:
        path = Path(source)
        rows = _of_table(path, space) if path.suffix == ".csv" else _of_study(root, source, space)
        for row in rows:
            _take(found, space, row)
    return found


def frozen(learned: Learned, space: Space) -> FrozenTrial | None:
    """An earlier result as the sampler of a space is given it; None: it is of another chain.

    Args:
        space: Of the study, or of one chain of its methods.
    """
    fixed = space.base.get("methods")
    if fixed is not None and learned.params.get("methods", fixed) != fixed:
        return None
    point = {path: value for path, value in learned.params.items() if path in space.axes}
    trial = FixedTrial(space.params(point))
    space.suggest(trial)
    is_whole = learned.epoch is None
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if is_whole else TrialState.PRUNED,
        values=list(learned.values) if is_whole else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={} if learned.epoch is None else {learned.epoch: learned.values[0]},
        user_attrs={"learned_from": learned.source},
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A result."""

    name: str
    settings: Flat
    values: Sequence[float | None]
    """The objectives."""
    epochs: int | None
    """After which they were measured; None: after all of its settings."""
    is_stopped: bool = False
    """It was stopped early, after these epochs; the values are those of the last one."""
    lacking: Collection[str] = ()
    """Axes of which a table says nothing: a default is not what was measured."""


def _take(found: Lesson, space: Space, row: _Row) -> None:
    try:
        values = _values(space, row)
        point, here = _placed(space, row)
        epochs = row.settings.get("train.epochs", here["train.epochs"])
        other = _other(space, row, here)
    except ConfigError as err:
        found.left_out.setdefault(str(err), []).append(row.name)
        return
    found.told.append(
        Learned(
            source=row.name,
            params={**point, "methods": here["methods"]},
            values=values,
            note="; ".join(other),
            epoch=row.epochs or epochs if other else None,
        )
    )


def _values(space: Space, row: _Row) -> list[float]:
    """The objectives of a result, all of which have to be numbers."""
    values = [v for v in row.values if v is not None and math.isfinite(v)]
    if len(values) != len(space.objective):
        raise ConfigError("an objective has no value")
    if row.is_stopped and not row.epochs:
        raise ConfigError("it was stopped early, and num_epochs does not say when")
    for objective, value in zip(space.objective, values, strict=True):
        if is_share(objective.metric) and not 0 <= value <= 1:
            raise ConfigError(f"{objective.metric} is a share between 0 and 1")
    return values


def _placed(space: Space, row: _Row) -> tuple[Flat, Flat]:
    """The point of a space at which a result was measured, and all settings of a trial there."""
    outside: list[str] = []
    lacking: list[str] = []

    def value(path: str, axis: Axis) -> Any:
        # Within its bounds at this point: constraints, or the other count of a fraction.
        if not axis.contains(flat[path]):
            outside.append(path)
        if path in row.lacking:
            lacking.append(path)
        return flat[path]

    try:
        flat = TrialConfig.from_flat(row.settings, place=row.name).flat()
        point = space.domains.walk(value)
        here = space.config(point, int(row.settings.get("seed", 0))).flat()
    except (ConfigError, KeyError) as err:
        raise ConfigError(f"its settings are none of this space ({err})") from err
    if lacking:
        raise ConfigError(f"{', '.join(lacking)} has no value")
    if outside:
        raise ConfigError(f"{', '.join(outside)} is outside its axis")
    return point, here


def _other(space: Space, row: _Row, here: Flat) -> list[str]:
    """Why a result is not worth as much as a completed trial of the space; []: it is."""
    settings = row.settings
    other = [f"stopped after {row.epochs} epochs"] if row.is_stopped else []
    other += [
        f"{path} was {settings[path]!r}, here {value!r}"
        for path, value in here.items()
        if path in settings and path not in space.axes and path not in _NOT_COMPARED
        and settings[path] != value
    ]  # fmt: skip
    if other and len(space.objective) > 1:
        raise ConfigError(
            f"{'; '.join(other)}, and several objectives know no trial that was stopped early"
        )
    return other


def _of_study(root: Path, name: str, space: Space) -> Iterator[_Row]:
    study = StudyDir.open(root, name)
    metrics = [objective.metric for objective in space.objective]
    state = study.state(metrics[0])
    for trial, one in state.trials.items():
        source, settings = f"{name}/{trial}", one.planned.params
        if one.status == "completed":
            yield _Row(source, settings, [one.value(metric) for metric in metrics], one.epochs)
        elif one.status == "pruned" and one.values:
            last = state.outcome(trial) or {}
            values = [last.get(metric) for metric in metrics]
            yield _Row(source, settings, values, last["num_epochs"], is_stopped=True)


def _of_table(path: Path, space: Space) -> Iterator[_Row]:
    metrics = [objective.metric for objective in space.objective]
    try:
        # A spreadsheet writes a mark before the first column.
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as err:
        raise StudyError(f"--learn-from: {path} cannot be read ({err}).") from err
    columns = set(rows[0]) if rows else set()
    if missing := [name for name in (*metrics, *space.axes) if name not in columns]:
        what = f"has no column {missing[0]!r}" if rows else "has no row"
        raise ConfigError(
            f"--learn-from: {path} {what}; it needs a column for each objective "
            f"({', '.join(metrics)}) and one for each axis ({', '.join(space.axes)})."
        )
    known = columns & paths().keys() - file_settings()
    for number, row in enumerate(rows, start=2):
        place = f"{path}:{number}"
        given = {p: _setting(p, row[p], place, path.parent) for p in known if row[p]}
        # A study's own table of trials says which ones were stopped early, and which failed.
        status = row.get("status") or "completed"
        is_stopped = status == "pruned"
        has_values = is_stopped or status == "completed"
        yield _Row(
            name=f"{path.name}:{number}",
            settings=_base_at(space, given.get("methods")) | given,
            values=[_number(row[metric]) if has_values else None for metric in metrics],
            epochs=int(_number(row.get("num_epochs")) or 0) if is_stopped else None,
            is_stopped=is_stopped,
            lacking=space.axes.keys() - given.keys(),
        )


def _base_at(space: Space, chain: object) -> Flat:
    """What all trials of a space share, without the settings of methods outside a chain."""
    if not isinstance(chain, list):
        return dict(space.base)
    return {p: v for p, v in space.base.items() if method_of(p) in (None, *chain)}


def _setting(path: str, text: str, place: str, folder: Path) -> object:
    value = read_text(text, place, folder).data
    # pandas writes whole numbers with a point where a column has gaps.
    is_whole = isinstance(value, float) and value.is_integer() and type(default(path)) is int
    return int(value) if is_whole else value


def _number(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
