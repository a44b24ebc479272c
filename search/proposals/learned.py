"""Results of earlier studies, or of a table, that a sampler is given before it draws.

What was measured under the same settings but for the axes is told as it is. What was stopped early,
or measured under other settings, as with fewer epochs or on other data, is told as a trial that was
stopped early: it ranks behind every completed trial, and among its like by epochs and value.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from search.study.folder import StudyDir
from spaces.reader import read_text
from spaces.space import Space
from tcpa_core.config import Flat, TrialConfig, file_settings, known_paths
from tcpa_core.errors import ConfigError, StudyError
from tcpa_core.record.events import Learned

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
    is_stopped: bool = False
    """It was stopped early, after these epochs; the values are those of the last one."""


def _take(found: Lesson, space: Space, row: _Row) -> None:
    name, settings, values = row.name, row.settings, row.values
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    if len(numbers) != len(space.objective):
        found.left_out.setdefault("an objective has no value", []).append(name)
        return
    try:
        config = TrialConfig.from_flat(settings, place=name)
        point = space.point_of(config)
        here = space.config(point, int(settings.get("seed", 0))).flat()
    except (ConfigError, KeyError) as err:
        found.left_out.setdefault(f"its settings are none of this space ({err})", []).append(name)
        return
    outside = [p for p, v in point.items() if not space.axes[p].contains(v)]
    if outside:
        why = f"{', '.join(outside)} is outside its axis"
        found.left_out.setdefault(why, []).append(name)
        return
    other = [
        f"{path} was {settings[path]!r}, here {value!r}"
        for path, value in here.items()
        if path in settings and path not in space.axes and path not in _NOT_COMPARED
        and settings[path] != value
    ]  # fmt: skip
    if row.is_stopped:
        other.insert(0, f"stopped after {row.epochs} epochs")
    if other and len(space.objective) > 1:
        why = f"{'; '.join(other)}, and several objectives know no trial that was stopped early"
        found.left_out.setdefault(why, []).append(name)
        return
    params = {**point, "methods": here["methods"]}
    told = Learned(source=name, params=params, values=numbers, note="; ".join(other))
    if other:
        told = Learned(
            source=name, params=params, values=numbers, note=told.note, epoch=row.epochs or 1
        )
    found.told.append(told)


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
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as err:
        raise StudyError(f"--learn-from: {path} cannot be read ({err}).") from err
    columns = set(rows[0]) if rows else set()
    if missing := [metric for metric in metrics if metric not in columns]:
        raise ConfigError(
            f"--learn-from: {path} has no column {missing[0]!r}; it needs one for each objective "
            f"and one for each axis ({', '.join(space.axes)})."
        )
    paths = columns & known_paths().keys() - file_settings()
    for number, row in enumerate(rows, start=2):
        given = {
            p: read_text(row[p], f"{path}:{number}", path.parent).data for p in paths if row[p]
        }
        settings = {**space.base, **given}
        values = [_number(row[metric]) for metric in metrics]
        yield _Row(f"{path.name}:{number}", settings, values, settings.get("train.epochs"))


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
