"""A study's journal as an Optuna study, for optuna-dashboard: all trials with their curves.

Optuna numbers trials in the order in which they are made, which is that of our names.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from search.study.folder import StudyDir
from spaces.axes import label
from spaces.load import per_method
from spaces.space import Space
from tcpa_core.errors import RecordError
from tcpa_core.record.events import (
    Ended,
    Epoch,
    Event,
    Planned,
    Started,
    Tested,
    TrialEvent,
    decode_line,
)
from tcpa_core.record.scores import score_of

Distributions = dict[str, BaseDistribution]
_DONE = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
_GOALS = {"maximize": StudyDirection.MAXIMIZE, "minimize": StudyDirection.MINIMIZE}


@dataclass(slots=True)
class _Trial:
    """One trial as the journal has it, and how much of it Optuna has."""

    planned: Planned
    started: float | None = None
    ended: Ended | None = None
    tested: Tested | None = None
    curve: dict[int, float] = field(default_factory=dict)
    """Value of the first objective by epoch."""
    id: int | None = None
    """In the storage; None: not there yet."""
    sent: set[int] = field(default_factory=set)
    """Epochs that are there."""
    is_over: bool = False
    """Whether it has ended there, too: then nothing of it changes any more."""


class OptunaStudy:
    """Copies a study into a storage of Optuna, and follows it while it runs.

    Args:
        storage: In memory, as a journal file takes 58 ms for a trial.
        study: Its folder.

    Raises:
        RecordError, ConfigError: Its study.yaml is damaged.
    """

    def __init__(self, storage: BaseStorage, study: StudyDir) -> None:
        self._storage = storage
        self._journal = study.journal_path
        self._offset = self._number = 0
        self._space = study.space()
        self._objective = self._space.objective
        self._params = _Params(self._space)
        self._trials: dict[str, _Trial] = {}
        directions = [_GOALS[one.goal] for one in self._objective]
        self.id = storage.create_new_study(directions, study.name)
        self.study = optuna.load_study(study_name=study.name, storage=storage)
        with warnings.catch_warnings():  # called experimental since Optuna 3.2
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.set_metric_names([one.metric for one in self._objective])
        self.study.set_user_attr("kind", "ablation" if self._space.ablation else "search")

    def update(self) -> bool:
        """Copy what the journal has gained; whether it has.

        Raises:
            RecordError: It is damaged.
        """
        touched: dict[str, _Trial] = {}
        for event in self._news():
            if isinstance(event, TrialEvent):
                touched[event.trial] = self._take(event)
        for trial in touched.values():
            self._send(trial)
        return bool(touched)

    def _news(self) -> Iterator[Event]:
        if not self._journal.exists():
            return
        with self._journal.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    return
                self._offset += len(line)
                self._number += 1
                yield decode_line(line, f"{self._journal.name}:{self._number}")

    def _take(self, event: TrialEvent) -> _Trial:
        if isinstance(event, Planned):
            return self._trials.setdefault(event.trial, _Trial(event))
        trial = self._trials.get(event.trial)
        if trial is None:
            raise RecordError(f"the journal has no line that plans trial {event.trial!r}.")
        match event:
            case Started():
                trial.started = event.t if trial.started is None else trial.started
                trial.ended = None  # trained on after a resume: the old result is void
            case Epoch():
                value = getattr(event.report, self._objective[0].metric, None)
                if value is not None and math.isfinite(value):
                    trial.curve[event.report.epoch] = value
            case Ended():
                trial.ended = event
            case Tested():
                trial.tested = event
        return trial

    def _send(self, trial: _Trial) -> None:
        if trial.is_over:
            return
        state, values = self._outcome(trial)
        if trial.id is None:
            trial.id = self._storage.create_new_trial(self.id, self._frozen(trial, state, values))
        else:
            for epoch in trial.curve.keys() - trial.sent:
                self._storage.set_trial_intermediate_value(trial.id, epoch, trial.curve[epoch])
            for key, value in _about(trial).items():
                self._storage.set_trial_user_attr(trial.id, key, value)
            self._storage.set_trial_state_values(trial.id, state, values)
        trial.sent |= trial.curve.keys()
        trial.is_over = state.is_finished()

    def _outcome(self, trial: _Trial) -> tuple[TrialState, list[float] | None]:
        if trial.ended is None:
            return (TrialState.WAITING if trial.started is None else TrialState.RUNNING), None
        state = _DONE[trial.ended.kind]
        if state is not TrialState.COMPLETE:
            return state, None
        found = [getattr(trial.ended.result, one.metric, None) for one in self._objective]
        values = [float(v) for v in found if v is not None and math.isfinite(v)]
        return (state, values) if len(values) == len(found) else (TrialState.FAIL, None)

    def _frozen(self, trial: _Trial, state: TrialState, values: list[float] | None) -> FrozenTrial:
        params, distributions = self._params.of(trial.planned)
        frozen = optuna.trial.create_trial(
            state=state,
            values=values,
            params=params,
            distributions=distributions,
            user_attrs=_about(trial),
            intermediate_values=trial.curve,
        )
        start = trial.started or trial.planned.t
        frozen.datetime_start = None
        if state is not TrialState.WAITING:
            frozen.datetime_start = datetime.fromtimestamp(start)
        if trial.ended is not None:
            frozen.datetime_complete = datetime.fromtimestamp(trial.ended.t)
        return frozen


def _about(trial: _Trial) -> dict[str, Any]:
    """What the pages show beside a trial's settings."""
    planned, result = trial.planned, trial.ended.result if trial.ended else None
    score = score_of(planned.params)
    known: dict[str, Any] = {
        "trial": planned.trial,
        "point": planned.point,
        "seed": planned.seed,
        "methods": "+".join(planned.params["methods"]),
        "reason": result.reason if result else "",
        "num_epochs": result.num_epochs if result else None,
        "num_trainable": result.num_trainable if result else None,
        **{name: getattr(trial.tested, name, None) for name in (score.test, *score.variants)},
    }
    return {key: value for key, value in known.items() if value not in (None, "")}


class _Params:
    """What varies, as Optuna's parameters with their ranges."""

    def __init__(self, space: Space) -> None:
        self._spaces: Mapping[str, Space] = {}
        self._levels: Distributions = {}
        if space.ablation:
            self._levels = _levels_of(space)
        else:
            self._spaces = per_method(space) if space.sampler.per else {"": space}

    def of(self, planned: Planned) -> tuple[dict[str, Any], Distributions]:
        """Names with values, and with ranges."""
        if self._levels:
            values = {path: label(planned.params.get(path)) for path in self._levels}
            return values, dict(self._levels)
        chain = label(list(planned.params["methods"]))
        trial = FixedTrial(planned.draw)
        self._spaces.get(chain, next(iter(self._spaces.values()))).suggest(trial)
        return trial.params, trial.distributions


def _levels_of(space: Space) -> Distributions:
    """Settings of an ablation with the values that its trials have, as categories."""
    assert space.ablation is not None
    found: dict[str, dict[str, None]] = {path: {} for path in sorted(space.ablation.paths())}
    for config in space.trials:
        flat = config.flat()
        for path, values in found.items():
            values.setdefault(label(flat.get(path)))
    return {path: CategoricalDistribution(list(values)) for path, values in found.items()}
