"""What to run next: points sampled by Optuna, or an enumerated design. Our own Tune searcher.

Ray's `OptunaSearch` leaves trials with a nan running, tells stopped trials as complete and pickles
its state, so the study is driven through Optuna's `ask` and `tell` here. The study lives in memory;
a copy for optuna-dashboard is written to a journal file beside it.
"""

import logging
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from spaces.space import Space
from tcpa_core.config import Flat, TrialConfig

MAX_DUPLICATES = 50
"""Suggestions in a row that were all run before; after that the space counts as exhausted."""


@dataclass(slots=True)
class Planned:
    """One trial to run."""

    trial: str
    config: TrialConfig
    origin: str
    digest: str
    point: str
    cells: list[dict[str, Any]] = field(default_factory=list)
    draw: Flat = field(default_factory=dict)
    """Values that Optuna drew, so that a resumed study can tell them again."""

    def event(self) -> dict[str, Any]:
        """The journal's "planned" event."""
        return {
            "kind": "planned",
            "trial": self.trial,
            "params": self.config.flat(),
            "digest": self.digest,
            "point": self.point,
            "seed": self.config.seed,
            "labels": {"cells": self.cells},
            "origin": self.origin,
            "draw": self.draw,
        }


class Design:
    """Enumerated points of an ablation, in order."""

    def __init__(self, space: Space) -> None:
        self._points = deque(space.design())
        self._space = space

    def propose(self) -> tuple[TrialConfig, str, list[dict[str, Any]], Flat] | None:
        """The next configuration with its origin and cells; None when the design is complete."""
        if not self._points:
            return None
        point = self._points.popleft()
        cells = [cell.model_dump() for cell in point.cells]
        return self._space.config(point.point, point.seed), "design", cells, {}

    def started(self, planned: Planned) -> None:
        """Nothing to remember."""

    def tell(self, planned: Planned, outcome: Mapping[str, Any]) -> None:
        """A design does not learn."""

    def repeat(self, outcome: Mapping[str, Any] | None) -> None:
        """A repeated point of a design has no optimiser to inform."""

    def replay(self, planned: Planned, outcome: Mapping[str, Any]) -> None:
        """A trial of an earlier driver: its point is not proposed again (see the digests)."""

    def close(self) -> None:
        """Nothing to release."""


class Sampled:
    """Points suggested by Optuna; every point is run with all seeds of the space."""

    def __init__(self, space: Space, log: Path, name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        goals = [objective.goal for objective in space.objective]
        self._study = optuna.create_study(
            directions=goals, sampler=make_sampler(space), study_name=name
        )
        for point in space.first_points:
            self._study.enqueue_trial(space.params(space.complete(point)))
        self._pending: deque[tuple[Flat, int, optuna.Trial]] = deque()
        self._of: dict[str, optuna.Trial] = {}
        self._open: dict[int, int] = {}
        self._values: dict[int, list[list[float]]] = {}
        self._last: dict[int, list[tuple[int, float]]] = {}
        self._log = _OptunaLog(log, name, goals)
        self._num_first = len(space.first_points)

    def propose(self) -> tuple[TrialConfig, str, list[dict[str, Any]], Flat] | None:
        """The next configuration: another seed of the current point, or a new point."""
        if not self._pending:
            trial = self._study.ask()
            point = self._space.suggest(trial)
            self._open[trial.number] = len(self._space.seeds)
            self._pending.extend((point, seed, trial) for seed in self._space.seeds)
        point, seed, trial = self._pending.popleft()
        self._latest = trial
        first = trial.number < self._num_first
        origin = "replicate" if seed != self._space.seeds[0] else "sampler"
        return (
            self._space.config(point, seed),
            "first_point" if first and origin == "sampler" else origin,
            [],
            dict(trial.params),
        )

    def started(self, planned: Planned) -> None:
        """Remember which Optuna trial the planned one belongs to."""
        self._of[planned.trial] = self._latest

    def tell(self, planned: Planned, outcome: Mapping[str, Any]) -> None:
        """Pass a finished trial on; a point with several seeds is told as the mean of its seeds.

        Pruned trials are told as pruned with their last value, failures as failed; a value that
        is not finite counts as a failure.
        """
        self._learn(self._of.pop(planned.trial), outcome)

    def _learn(self, trial: optuna.Trial, outcome: Mapping[str, Any]) -> None:
        values = [outcome.get(o.metric) for o in self._space.objective]
        finite = all(isinstance(v, int | float) and math.isfinite(v) for v in values)
        if outcome.get("status") in ("completed", "reused") and finite:
            self._values.setdefault(trial.number, []).append([float(v) for v in values])  # type: ignore[arg-type]
        elif outcome.get("status") == "pruned" and finite:
            epoch = int(outcome.get("num_epochs") or 1)
            self._last.setdefault(trial.number, []).append((epoch, float(values[0])))  # type: ignore[arg-type]
        self._open[trial.number] -= 1
        if self._open[trial.number] == 0:
            self._tell_point(trial)

    def repeat(self, outcome: Mapping[str, Any] | None) -> None:
        """The point just proposed was run before: tell what is known of it instead of running it.

        Args:
            outcome: Of the earlier trial; None while it still runs.
        """
        trial = self._latest
        self._pending.clear()
        self._open[trial.number] = 1
        self._learn(trial, outcome or {})

    def replay(self, planned: Planned, outcome: Mapping[str, Any]) -> None:
        """Tell a trial of an earlier driver, so that a resumed search has learnt from it."""
        self._study.enqueue_trial(planned.draw)
        trial = self._study.ask()
        self._space.suggest(trial)
        self._open[trial.number] = 1
        self._of[planned.trial] = trial
        self.tell(planned, outcome)

    def close(self) -> None:
        """Finish writing the copy for optuna-dashboard."""
        self._log.close()

    def _tell_point(self, trial: optuna.Trial) -> None:
        values = self._values.pop(trial.number, [])
        last = self._last.pop(trial.number, [])
        if values:
            mean = [sum(column) / len(values) for column in zip(*values, strict=True)]
            self._study.tell(trial, mean)
        elif last and len(self._space.objective) == 1:
            epoch = max(e for e, _ in last)
            trial.report(sum(v for _, v in last) / len(last), epoch)
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, state=TrialState.FAIL)
        self._log.add(self._study.trials[trial.number])


def make_sampler(space: Space) -> optuna.samplers.BaseSampler:
    """The Optuna sampler that a space names, seeded."""
    seed = space.sampler.seed
    makers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=seed),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed),
        "grid": lambda: optuna.samplers.BruteForceSampler(seed=seed),
    }
    return makers[space.sampler.name]()


class _OptunaLog:
    """Copies finished trials to a journal file in the background; 58 ms each would stall us."""

    def __init__(self, path: Path, name: str, directions: list[str]) -> None:
        self._queue: queue.Queue[optuna.trial.FrozenTrial | None] = queue.Queue()
        self._args = (path, name, directions)
        self._thread = threading.Thread(target=self._write, name="optuna-log", daemon=True)
        self._thread.start()

    def add(self, trial: optuna.trial.FrozenTrial) -> None:
        self._queue.put(trial)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(timeout=30)

    def _write(self) -> None:
        path, name, directions = self._args
        try:
            storage = JournalStorage(JournalFileBackend(str(path)))
            study = optuna.create_study(
                storage=storage, study_name=name, directions=directions, load_if_exists=True
            )
            known = {t.user_attrs.get("number") for t in study.trials}
            while (trial := self._queue.get()) is not None:
                if trial.number not in known:
                    trial.user_attrs = {**trial.user_attrs, "number": trial.number}
                    study.add_trial(trial)
        except Exception:  # a copy for a viewer must never stop the search
            logging.getLogger(__name__).warning("optuna.log cannot be written", exc_info=True)


class StudySearcher(Searcher):  # type: ignore[misc]
    """Hands planned trials to Ray Tune and tells their outcomes.

    Args:
        source: `Sampled` or `Design`.
        fingerprints: Identities of data and weights.
        plan: Called with every planned trial before it starts (writes the journal).
        stop: Called with a trial that the scheduler ended early.
        decisions: Epochs at which the scheduler decides, for a configuration.
        limit: Most trials of the study; None: until the source is exhausted.
        first: Trials of an interrupted driver, which go on first.
        known: Outcome by digest of finished trials.
        next_number: Number of the next new trial.
        may_start: Asked before every new trial (budget, interrupt).
    """

    def __init__(
        self,
        source: Sampled | Design,
        *,
        fingerprints: Mapping[str, str],
        plan: Callable[[Planned], None],
        stop: Callable[[str], None],
        decisions: Callable[[TrialConfig], list[int]],
        limit: int | None,
        first: list[Planned],
        known: dict[str, Mapping[str, Any]],
        next_number: int,
        may_start: Callable[[], bool],
    ) -> None:
        super().__init__(metric="val_accuracy", mode="max")
        self._source = source
        self._fingerprints = fingerprints
        self._plan = plan
        self._stop = stop
        self._decisions = decisions
        self._limit = limit
        self._first = deque(first)
        self._outcomes: dict[str, Mapping[str, Any] | None] = {
            **known,
            **{p.digest: None for p in first},
        }
        self._number = next_number
        self._may_start = may_start
        self._running: dict[str, Planned] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial for Tune, or FINISHED."""
        if not self._may_start():
            return Searcher.FINISHED
        planned = self._first.popleft() if self._first else self._new()
        if planned is None:
            return Searcher.FINISHED
        self._running[trial_id] = planned
        return {
            "trial": planned.trial,
            "params": planned.config.flat(),
            "decisions": self._decisions(planned.config),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn from a trial that has ended, whichever way."""
        planned = self._running.pop(trial_id, None)
        if planned is None or (result or {}).get("interrupted"):
            return
        outcome = dict(result or {})
        if error:
            outcome["status"] = "failed"
        elif "status" not in outcome:
            outcome |= {"status": "pruned", "num_epochs": outcome.get("epoch")}
        if outcome["status"] == "pruned":
            self._stop(planned.trial)
        self._outcomes[planned.digest] = outcome
        self._source.tell(planned, outcome)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Intermediate results need nothing: every epoch is in the journal."""

    def save(self, checkpoint_path: str) -> None:
        """The journal is the only state; Tune's own snapshots are not used."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def _new(self) -> Planned | None:
        if self._limit is not None and self._number >= self._limit:
            return None
        for _ in range(MAX_DUPLICATES):
            proposal = self._source.propose()
            if proposal is None:
                return None
            config, origin, cells, draw = proposal
            ids = (self._fingerprints["data"], self._fingerprints["weights"])
            planned = Planned(
                trial=f"{self._number:05d}",
                config=config,
                origin=origin,
                digest=config.digest(*ids),
                point=config.point(*ids),
                cells=cells,
                draw=draw,
            )
            if planned.digest in self._outcomes:
                self._source.repeat(self._outcomes[planned.digest])
                continue
            self._outcomes[planned.digest] = None
            self._number += 1
            self._source.started(planned)
            self._plan(planned)
            return planned
        return None
