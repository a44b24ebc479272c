"""Run a study to the end of its budget, or take an interrupted one up again."""

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher, SearchGenerator

from search.dispatcher import Dispatcher, WorkerSpec
from search.sampler import Design, Planned, Sampled, StudySearcher
from search.study import Journal, StudyDir
from search.trainable import PackTrial, Slots
from spaces.space import Space
from tcpa_core.config import TrialConfig
from tcpa_core.errors import StudyError
from tcpa_core.record import FINAL_KINDS

Listener = Callable[[Mapping[str, Any]], None]
"""Called with every journal event, in order, from a background thread."""

POLL_S = 0.5

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where trials run; changes no result."""

    address: str | None = None
    """Ray cluster; None starts one on this machine."""
    workers: int | None = None
    """Pack workers; None: one per GPU, or one per CPU where there is no GPU."""
    slots: int = 4
    """Trials that one worker trains together."""
    cache_dir: Path | None = None
    worker_factory: str = "tcpa_core.worker:Worker"


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """How a study ended."""

    counts: Mapping[str, int]
    """Trials by final status."""
    reason: str
    """"finished", or why it stopped before."""

    @property
    def finished(self) -> bool:
        """True when nothing is left to do."""
        return self.reason == "finished"


@dataclass(slots=True)
class _Past:
    """What the journal of an earlier driver says."""

    planned: dict[str, Planned] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    tested: bool = False
    finished: bool = False
    empty: bool = True


def run_study(
    space: Space,
    study: StudyDir,
    *,
    placement: Placement | None = None,
    listeners: Sequence[Listener] = (),
) -> StudyOutcome:
    """Run what is left of a study: all of it if it is new.

    Ctrl-C or SIGTERM once ends it in order (trials keep their last checkpoint), twice at once.

    Raises:
        StudyError: Another driver runs it, the folder cannot be written, or no Ray cluster answers
            at the address.
        RecordError: The journal is damaged.
    """
    placement = placement or Placement()
    study.lock()
    journal = None
    try:
        journal = Journal(study.journal_path)
        past = _read_past(study)
        if past.finished:
            return StudyOutcome(_count(past), "finished")
        run = _Run(space, study, placement, journal, past, listeners)
        return run.go()
    finally:
        if journal is not None:
            journal.close()
        study.unlock()


class _Run:
    """One driver's run of a study."""

    def __init__(
        self,
        space: Space,
        study: StudyDir,
        placement: Placement,
        journal: Journal,
        past: _Past,
        listeners: Sequence[Listener],
    ) -> None:
        self._space = space
        self._study = study
        self._placement = placement
        self._journal = journal
        self._past = past
        self._listeners = listeners
        self._counts = Counter(_count(past))
        self._params = {trial: p.config.flat() for trial, p in past.planned.items()}
        self._finals: dict[str, dict[str, Any]] = dict(past.outcomes)
        self._stop_reason = ""
        self._started = time.monotonic()
        self._failure: BaseException | None = None
        self._closing = threading.Event()
        self._num_gpus = 0.0

    def go(self) -> StudyOutcome:
        """Run to the end of the budget, an interrupt or a fault of the driver."""
        if self._past.empty:
            self._record({"kind": "study", "name": self._study.name})
        else:
            self._record({"kind": "resumed"})
        with _ray(self._placement), _signals(self._interrupt):
            self._num_gpus = ray.cluster_resources().get("GPU", 0.0)
            self._dispatcher = self._start_dispatcher()
            pump = threading.Thread(target=self._pump, name="events", daemon=True)
            pump.start()
            try:
                self._tune()
                self._settle()
                if not self._stop_reason and not self._space.ablation:
                    self._test_selected()
            finally:
                self._closing.set()
                pump.join(timeout=30)
        if self._failure is not None:
            raise self._failure
        self._record({"kind": "stopped", "reason": self._stop_reason} if self._stop_reason
                     else {"kind": "finished"})  # fmt: skip
        return StudyOutcome(dict(self._counts), self._stop_reason or "finished")

    def _start_dispatcher(self) -> Any:
        on_gpu = self._num_gpus > 0
        count = self._placement.workers or int(
            self._num_gpus if on_gpu else ray.cluster_resources()["CPU"] - 1
        )
        spec = WorkerSpec(
            study_dir=self._study.path.resolve(),
            cache_dir=self._placement.cache_dir,
            factory=self._placement.worker_factory,
            count=max(1, count),
            slots=self._placement.slots,
            num_cpus=1,
            num_gpus=1 if on_gpu else 0,
        )
        self._concurrency = spec.count * spec.slots
        actor = ray.remote(Dispatcher).options(num_cpus=0, max_concurrency=10_000)
        dispatcher = actor.remote(spec, self._space.ablation is not None)
        ray.get(dispatcher.start.remote())
        return dispatcher

    def _tune(self) -> None:
        """Let Ray Tune run the trials."""
        source: Sampled | Design
        if self._space.ablation:
            source = Design(self._space)
        else:
            source = Sampled(self._space, self._study.path / "optuna.log", self._study.name)
        first, known = [], {}
        for trial, planned in self._past.planned.items():
            outcome = self._past.outcomes.get(trial)
            if outcome is None:
                first.append(planned)
            else:
                known[planned.digest] = outcome
                source.replay(planned, outcome)
        searcher = StudySearcher(
            source,
            fingerprints=self._study.document()["fingerprints"],
            plan=lambda planned: self._record(planned.event()),
            stop=lambda trial: self._dispatcher.stop.remote(trial),
            decisions=self._decisions,
            limit=None if self._space.ablation else self._space.budget.trials,
            first=first,
            known=known,
            next_number=len(self._past.planned),
            may_start=lambda: not self._over_budget(),
        )
        scratch = tempfile.mkdtemp(prefix="tcpa-tune-")
        try:
            self._drive(ConcurrencyLimiter(searcher, self._concurrency), scratch)
        finally:
            source.close()
            shutil.rmtree(scratch, ignore_errors=True)

    def _drive(self, searcher: Searcher, scratch: str) -> None:
        """Tune's own loop, without its console, snapshots and signal handlers."""
        tune.register_trainable(PackTrial.__name__, PackTrial)
        experiment = Experiment(
            self._study.name,
            PackTrial.__name__,
            num_samples=sys.maxsize,
            storage_path=scratch,
        )
        algorithm = SearchGenerator(searcher)
        algorithm.add_configurations([experiment])
        controller = _Controller(
            search_alg=algorithm,
            scheduler=self._scheduler(),
            storage=experiment.storage,
            resource_manager_factory=lambda: Slots(self._dispatcher),
        )
        try:
            while not controller.is_finished() and not self._stop_reason:
                controller.step()
        finally:
            controller.cleanup()

    def _scheduler(self) -> TrialScheduler:
        scheduler = self._space.scheduler
        if self._space.ablation or scheduler.name == "none" or len(self._space.objective) > 1:
            return FIFOScheduler()
        objective = self._space.objective[0]
        return ASHAScheduler(
            time_attr="epoch",
            metric=objective.metric,
            mode="max" if objective.goal == "maximize" else "min",
            max_t=_most_epochs(self._space),
            grace_period=scheduler.grace_epochs,
            reduction_factor=scheduler.reduction_factor,
        )

    def _decisions(self, config: TrialConfig) -> list[int]:
        """Epochs at which the scheduler may end a trial: ASHA's rungs and the last epoch."""
        epochs = config.train.epochs
        scheduler = self._space.scheduler
        rungs = []
        if not self._space.ablation and scheduler.name == "asha":
            rung = scheduler.grace_epochs
            while rung < epochs:
                rungs.append(rung)
                rung *= scheduler.reduction_factor
        return [*rungs, epochs]

    def _settle(self) -> None:
        """Wait until the workers have recorded the end of every trial."""
        while not self._stop_reason and not ray.get(self._dispatcher.settled.remote()):
            time.sleep(0.05)

    def _test_selected(self) -> None:
        """Read the test split once, for the configuration that the search selected."""
        trial = self._selected()
        if trial is None or self._past.tested:
            return
        ray.get(self._dispatcher.test.remote(trial, self._params[trial]))

    def _selected(self) -> str | None:
        objective = self._space.objective[0]
        sign = 1 if objective.goal == "maximize" else -1
        scored = {
            trial: sign * final[objective.metric]
            for trial, final in self._finals.items()
            if final["status"] == "completed" and final.get(objective.metric) is not None
        }
        return max(scored, key=lambda trial: scored[trial]) if scored else None

    def _over_budget(self) -> bool:
        """True when no new trial may start."""
        budget = self._space.budget
        hours = (time.monotonic() - self._started) / 3600
        spent = budget.hours is not None and hours >= budget.hours
        on_gpus = hours * self._num_gpus
        spent |= budget.gpu_hours is not None and on_gpus >= budget.gpu_hours
        return spent or bool(self._stop_reason)

    def _interrupt(self, reason: str) -> None:
        self._stop_reason = reason
        self._dispatcher.interrupt.remote()

    def _pump(self) -> None:
        """Carry events from the dispatcher to the journal and the listeners."""
        while True:
            closing = self._closing.is_set()
            try:
                call = self._dispatcher.next_events.remote(0.0 if closing else POLL_S)
                events, fault = ray.get(call)
                if events:
                    self._record(*events)
                if fault is not None:
                    raise StudyError(
                        f"{fault}; correct that, then 'tcpa resume {self._study.name}'."
                    )
            except BaseException as err:  # the main thread raises it
                self._failure = err
                self._interrupt(f"the driver failed: {err}")
                return
            if closing and not events:
                return

    def _record(self, *events: Mapping[str, Any]) -> None:
        self._journal.append(*events)
        for event in events:
            if event["kind"] == "planned":
                self._params[str(event["trial"])] = event["params"]
            if event["kind"] in FINAL_KINDS:
                self._counts[str(event["status"])] += 1
                self._finals[str(event["trial"])] = dict(event)
            for listener in self._listeners:
                listener(event)


class _Controller(TuneController):  # type: ignore[misc]
    """Tune's controller without snapshots: a study is taken up from its journal alone."""

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Write nothing."""


def _most_epochs(space: Space) -> int:
    """Epochs of the longest trial that a space can hold."""
    return max(space.config(point, space.seeds[0]).train.epochs for point in space.corners())


def _read_past(study: StudyDir) -> _Past:
    past = _Past()
    for event in study.events():
        past.empty = False
        kind = event["kind"]
        if kind == "planned":
            past.planned[event["trial"]] = Planned(
                trial=event["trial"],
                config=TrialConfig.from_flat(event["params"]),
                origin=event["origin"],
                digest=event["digest"],
                point=event["point"],
                cells=event["labels"]["cells"],
                draw=event["draw"],
            )
        elif kind in FINAL_KINDS:
            past.outcomes[event["trial"]] = event
        elif kind == "tested":
            past.tested = True
        elif kind == "finished":
            past.finished = True
    return past


def _count(past: _Past) -> dict[str, int]:
    return dict(Counter(str(outcome["status"]) for outcome in past.outcomes.values()))


@contextmanager
def _ray(placement: Placement) -> Iterator[None]:
    """A Ray connection, quiet, and closed in the end."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if placement.address:
            ray.init(address=placement.address, **quiet)
        else:
            cpus = max(placement.workers or 0, os.cpu_count() or 1)
            ray.init(
                address="local",
                num_cpus=cpus + 1,  # the light side of the trials uses next to nothing
                include_dashboard=False,
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError) as err:
        raise StudyError(
            f"--address: no Ray cluster at {placement.address or 'this machine'} "
            f"({str(err).splitlines()[0]}); start one with 'ray start --head' or leave it out."
        ) from err
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _signals(interrupt: Callable[[str], None]) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: stop in order; second: at once. Only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for name in old:
            signal.signal(name, signal.SIG_DFL)
        interrupt(f"interrupted by {signal.Signals(number).name}")

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
