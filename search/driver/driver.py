"""Run a study to the end of its budget, or take an interrupted one up again."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import ray
from ray.exceptions import RayError

from search.driver.cluster_address import VARIABLE
from search.driver.event_pump import POLL_S, EventPump, answer_of
from search.driver.head import Head, watched
from search.driver.last_exit import ended_if_stuck
from search.driver.placement import Placement
from search.driver.ray_session import connect
from search.driver.recorder import Listener, Recorder
from search.driver.reuse import Reuse
from search.driver.selection import trials_to_test
from search.driver.signals import on_interrupt
from search.driver.stop_reason import StopReason
from search.driver.workforce import Workforce
from search.proposals.learned import learn
from search.proposals.make_source import make_source, most_trials
from search.proposals.planner import Planner
from search.proposals.samplers.base import check_sampler
from search.proposals.source import Outcome
from search.proposals.suggestions import Suggestions
from search.study.earlier import Earlier
from search.study.folder import StudyDir
from search.study.journal import Journal
from search.study.working_copy import tell
from search.tune.early_stopping import EarlyStopping, compared_by_epoch
from search.tune.following import following
from search.tune.loop import run_trials
from search.tune.schedulers.base import Successor
from search.tune.searcher import StudySearcher
from search.tune.trial_handle import Slots
from search.workers.node_clearing import CLEAR_S
from search.workers.worker_pool import HALT_S
from spaces.space import Space
from tcpa_core.errors import StorageError
from tcpa_core.record.events import (
    Finished,
    Learned,
    Notice,
    Planned,
    Resumed,
    Stopped,
    StudyBegun,
)
from tcpa_core.record.files import OPTUNA_LOG


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """How a study ended."""

    counts: Mapping[str, int]
    """Trials by final status."""
    reason: str
    """"finished", or why it stopped before."""
    without_score: Mapping[str, str] = field(default_factory=dict)
    """Trials that should have been scored on the test split and could not, and why."""
    num_reused: int = 0
    """Trials that were taken from earlier studies."""
    waited_s: float = 0.0
    """Seconds in which a worker's slot was idle because no suggestion was ready."""

    @property
    def finished(self) -> bool:
        """True when nothing is left to do."""
        return self.reason == "finished"


def run_study(
    space: Space,
    study: StudyDir,
    *,
    placement: Placement | None = None,
    listeners: Sequence[Listener] = (),
    notices: Sequence[str] = (),
    on_signal: Callable[[str], None] = lambda reason: None,
    earlier: Earlier | None = None,
) -> StudyOutcome:
    """Run what is left of a study: all of it if it is new.

    A signal ends it in order (trials keep their last checkpoint), a second Ctrl-C or SIGTERM at
    once (see `search.driver.signals`).

    Args:
        notices: Sentences for the journal on what the study goes on with.
        on_signal: Called with the reason where a signal asks for the end, within its handler: it
            must neither print nor wait.
        earlier: Studies from which trials are taken that they have completed; None: none is.

    Raises:
        ConfigError: The sampler's package is not installed.
        StudyError: Another driver runs it, or no Ray cluster answers at the address.
        StoppedError: It had to stop: a disk is full, no worker starts, or the cluster is gone.
        RecordError: The journal is damaged.
    """
    check_sampler(space.sampler)
    # Before the journal is opened, which cuts off a torn last line.
    notices = [study.lock(tell), *notices]
    journal = None
    try:
        journal = Journal(study.journal_path)
        if journal.dropped_bytes:
            notices.append(f"left out a torn last line of {journal.dropped_bytes} bytes")
        state = study.state(space.objective[0].metric, compared_by_epoch(space))
        if state.is_finished and not state.without_score():
            return StudyOutcome(state.counts(), "finished")
        recorder = Recorder(journal, state, listeners, study.taken_over_by)
        placed = (placement or Placement()).within(space.cluster)
        reuse = Reuse(earlier, space, study, recorder) if earlier else None
        run = StudyRun(space, study, placed, recorder, reuse)
        outcome = run.go(list(filter(None, notices)), on_signal)
        study.send()
        return outcome
    except OSError as err:
        # From wherever it comes: a full disk stops a study with what is recorded kept.
        if err.errno not in StorageError.ERRNOS:
            raise
        raise StorageError.of(Path(err.filename or study.path), err) from err
    finally:
        if journal is not None:
            journal.close()
        study.unlock()


class StudyRun:
    """One run of a study, from the start of its workers to its last event.

    Three threads share it: this one stands in Tune's loop, `EventPump` records what becomes of the
    trials, `Suggestions` prepares the next ones. They meet in the recorder and the stop reason.
    """

    def __init__(
        self,
        space: Space,
        study: StudyDir,
        placement: Placement,
        recorder: Recorder,
        reuse: Reuse | None = None,
    ) -> None:
        self._space = space
        self._study = study
        self._placement = placement
        self._recorder = recorder
        self._state = recorder.state
        self._reuse = reuse
        self._has_begun = False
        self._stop = StopReason(study.name)
        self._waited_s = 0.0

    def go(self, notices: Sequence[str], on_signal: Callable[[str], None]) -> StudyOutcome:
        """Run to the end of the budget, an interrupt or a fault of the driver.

        Args:
            notices: What the user should know of the study's state.
            on_signal: As of `run_study`.
        """

        def stop(reason: str) -> None:
            self._stop.give(reason)
            on_signal(reason)

        where = self._placement
        with on_interrupt(stop):
            begin = partial(self._begin, notices)
            if self._reuse and self._reuse.ahead(begin, lambda: self._stop):
                return self._outcome("finished")
            if where.address_source == VARIABLE:
                notices = [f"trials run on {where.cluster}", *notices]
            connection = connect(where.address, where.num_cpus, where.address_source)
            with ended_if_stuck(self._stop), connection:
                self._begin(notices)
                self._start_and_work()
            # After the connection is closed, so that no worker outlives its study.
            if self._stop.failure is not None:
                raise self._stop.failure
            reason = self._stop.text
            self._recorder.record(Stopped(reason=reason) if reason else Finished())
        return self._outcome(reason or "finished")

    def _outcome(self, reason: str) -> StudyOutcome:
        return StudyOutcome(
            counts=self._state.counts(),
            reason=reason,
            without_score=self._state.without_score(),
            num_reused=len(self._state.reused()),
            waited_s=self._waited_s,
        )

    def _begin(self, notices: Iterable[str]) -> None:
        """Record once that this driver has begun."""
        if not self._has_begun:
            self._has_begun = True
            is_new = self._state.is_empty
            begun = StudyBegun(name=self._study.name) if is_new else Resumed()
            self._recorder.record(begun, *(self._lesson() if is_new else ()))
            self._recorder.record(*(Notice(text=text) for text in notices))

    def _lesson(self) -> list[Learned]:
        """What the sampler of a new study is given from before it."""
        sources = self._study.document().get("learn_from") or ()
        return learn(sources, self._space, self._study.path.parent).told if sources else []

    def _start_and_work(self) -> None:
        """Start workers, run the trials and let the workers go."""
        workforce = Workforce(self._space, self._study, self._placement, self._recorder.record)
        devices = workforce.devices
        head = Head(
            ray.get_runtime_context().gcs_address,
            lambda: devices.silent_s,
            lambda text: self._recorder.record(Notice(text=text)),
        )
        try:
            with watched(head, self._lose_cluster):
                workforce.start(self._state, self._stop)
        except RayError as err:
            self._lose_cluster(head.explained(err))
        else:
            if not self._stop.is_cluster_lost:
                self._work(workforce, head)
        finally:
            workforce.close()

    def _lose_cluster(self, err: RayError) -> None:
        try:
            self._stop.lose_cluster(err, self._recorder.record)
        except Exception as fault:  # the main thread raises it
            self._stop.fail(fault)

    def _work(self, workforce: Workforce, head: Head) -> None:
        """Run the trials, while a thread records what becomes of them."""
        # Starting Ray and measuring packs counts for no budget.
        self._recorder.begin(workforce.held_gpus)
        dispatcher = workforce.dispatcher
        pump = EventPump(dispatcher, self._recorder, self._stop, head)
        try:
            self._run_trials(workforce)
            # Tune knows that a trial has ended before its last events have come through the pump;
            # what is selected is read from the journal.
            while not self._stop and self._recorder.has_open_trials:
                time.sleep(0.05)
            self._test_selected(workforce)
        except RayError as err:
            self._lose_cluster(head.explained(err))
        finally:
            if not self._stop.is_cluster_lost:
                with suppress(RayError):
                    answer_of(dispatcher.halt.remote(), HALT_S, self._stop)
                    if not self._stop:  # else somebody waits, and a resumed study does it
                        answer_of(dispatcher.clear.remote(), CLEAR_S, self._stop)
            pump.close()  # after the halt, which has events, too
            if not self._stop.is_cluster_lost:
                # A connection that was open before us stays, and with it what it has started.
                ray.kill(dispatcher)

    def _run_trials(self, workforce: Workforce) -> None:
        """Let Tune run the trials that the space asks for."""
        log = self._study.path / OPTUNA_LOG
        source = make_source(self._space, self._study.name, log, self._state.learned)
        prints = self._study.document()["fingerprints"]
        limit = self._reuse.limit if self._reuse else most_trials(self._space)
        planner = Planner(source, prints, limit)
        stopping = EarlyStopping(self._space, self._state)
        sampled = [(one, end) for one, end in self._state.outcomes() if one.parent is None]
        suggestions = Suggestions(planner, sampled, ahead=max(2, workforce.num_at_once // 4))

        def succeed(successor: Successor) -> None:
            planned = following(successor, self._state, prints)
            self._recorder.record(planned)
            stopping.join(planned)
            searcher.begin(planned)

        def plan(planned: Planned) -> Outcome | None:
            stopping.join(planned)
            if self._reuse is None:
                self._recorder.record(planned)
                return None
            if (outcome := self._reuse.take(planned)) is not None:
                stopping.count(self._state.trials[planned.trial])
            return outcome

        def follow() -> int:
            workforce.follow()
            if searcher.is_exhausted:
                workforce.expect(searcher.num_handed)
            return workforce.num_at_once

        try:
            # Trials of earlier drivers are in the journal already, so they are not planned again.
            searcher = StudySearcher(
                suggestions,
                [one.planned for one in self._state.unfinished().values()],
                plan=plan,
                stop=lambda trial: workforce.dispatcher.stop.remote(trial),
                may_start=lambda: not self._is_over_budget(workforce.num_gpus),
                population=herd.population if (herd := self._space.scheduler.herd) else None,
            )
            stopping.on_successor = succeed
            for successor in stopping.due_successors():
                succeed(successor)
            run_trials(
                self._study.name,
                searcher,
                stopping,
                Slots(workforce.dispatcher, searcher.trials, stopping.decisions),
                on_tick=follow,
                stop=lambda: self._stop,
            )
        finally:
            suggestions.close()
            self._waited_s = suggestions.waited_s

    def _test_selected(self, workforce: Workforce) -> None:
        """Read the test split once, for the configuration that the search selected."""
        if self._stop:
            return
        for planned in trials_to_test(self._space, self._state):
            if self._reuse and self._reuse.test(planned):
                continue
            tested = workforce.dispatcher.test.remote(planned)
            while not self._stop and not ray.wait([tested], timeout=POLL_S)[0]:
                pass

    def _is_over_budget(self, num_gpus: float) -> bool:
        """True when no new trial may start. Time of earlier drivers counts."""
        budget = self._space.budget
        spent, now = self._state.spent, self._recorder.now()
        is_over = budget.hours is not None and spent.hours(now) >= budget.hours
        if budget.gpu_hours is not None:
            is_over |= spent.gpu_hours(num_gpus, now) >= budget.gpu_hours
        return is_over or bool(self._stop)
