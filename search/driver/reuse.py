"""Takes what earlier studies have completed into a study, instead of training it again.

A trial that was planned and is found gets the record that it has there: its epochs and its end, as
if it had been trained here, with a `Reused` event that says where it was. A search of the very same
space is repeated as a whole, trial by trial in its order, so that those that were stopped early are
known, too, and the sampler goes on where it would have. What is taken costs no time of the study's
budget. All of it is in the study's own journal: the earlier study may be deleted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from search.driver.recorder import Recorder
from search.driver.selection import is_every_trial_tested, trials_to_test
from search.proposals.make_source import make_source, most_trials
from search.proposals.planner import Planner
from search.proposals.source import Later, Outcome
from search.study.earlier import Earlier, Found
from search.study.folder import StudyDir
from search.study.kept_state import keep_files, keep_state
from search.study.repetition import NO_SCORES, Repetition
from spaces.space import Space
from tcpa_core.record.events import Ended, Epoch, Finished, Planned, Reused, Tested, TrialEvent


class Reuse:
    """What a study that runs takes from earlier ones.

    Args:
        earlier: The studies.
        space: Of the study that runs.
        study: Its folder.
        recorder: Its journal and state.
    """

    def __init__(self, earlier: Earlier, space: Space, study: StudyDir, recorder: Recorder) -> None:
        self._earlier = earlier
        self._space = space
        self._study = study
        self._recorder = recorder
        self._state = recorder.state
        self._tests_all = is_every_trial_tested(space)
        self._takes_single = space.scheduler.herd is None
        """Others begin from the states of a population's trials, which earlier studies lack."""
        self._prints: Mapping[str, str] = study.document()["fingerprints"]
        self._learn_from: Sequence[str] = study.document().get("learn_from") or ()
        self.limit = most_trials(space)
        """Most trials of the study, as of `Planner`."""

    def take(self, planned: Planned) -> Outcome | None:
        """Record a new trial and, if it is found, its outcome; None: it has to be trained."""
        found = self._earlier.find(planned.digest) if self._takes_single else None
        if found is None:
            self._recorder.record(planned)
            return None
        self._record(found, planned, is_new=True)
        return self._state.outcome(planned.trial)

    def test(self, planned: Planned) -> bool:
        """Take over the test score of a trial that was reused and is selected now.

        Returns:
            False: it has to be read here, as the earlier study never did.
        """
        if self._state.trials[planned.trial].reused is None:
            return False
        found = self._earlier.find(planned.digest)
        if found is None or found.tested is None:
            return False
        keep_files(found, self._study, planned.trial)
        self._recorder.record(replace(found.tested, trial=planned.trial, n=None, gpus=None))
        return True

    def ahead(self, begin: Callable[[], None], must_stop: Callable[[], object]) -> bool:
        """Take all that can be taken before workers are started.

        Args:
            begin: Called before anything is recorded.
            must_stop: Whether the user wants the study to stop.

        Returns:
            Whether nothing is left to do; the study is finished then.
        """
        self._repeat(begin)
        if not self._takes_single:
            return self._is_finished_by_repeating(begin)
        for planned in [t.planned for t in self._state.unfinished().values() if not t.started]:
            if (found := self._earlier.find(planned.digest)) is not None:
                begin()
                self._record(found, planned, is_new=False)
        if not self._is_complete(begin, must_stop):
            return False
        return self._finish(begin)

    def _is_finished_by_repeating(self, begin: Callable[[], None]) -> bool:
        """Whether the study is a population that was taken over as a whole."""
        return bool(self._state.reused()) and self._finish(begin)

    def _finish(self, begin: Callable[[], None]) -> bool:
        """Record the end of a study of which all trials have ended, and the selected are scored."""
        if self._state.unfinished():
            return False
        left = trials_to_test(self._space, self._state)
        if not all([self.test(planned) for planned in left]):
            return False
        begin()
        self._recorder.record(Finished())
        return True

    def _repeat(self, begin: Callable[[], None]) -> None:
        """Take over a search of the same space."""
        found = Repetition.find(
            self._earlier,
            self._space,
            self._prints,
            self._state,
            self.limit,
            self._learn_from,
        )
        if found is None:
            return
        if found.is_whole:  # also where a budget of time is not spent by what is taken
            self.limit = found.num_trials
        for batch in found.batches(self._study):
            begin()
            self._recorder.record(*batch)

    def _is_complete(self, begin: Callable[[], None], must_stop: Callable[[], object]) -> bool:
        """Take trials as they are proposed, up to the first one that has to be trained."""
        if self.limit is not None and len(self._state.trials) >= self.limit:
            return True
        # Going through thousands of trials of its own once more would take a sampler minutes.
        if len(self._state.reused()) < len(self._state.trials):
            return False
        planner = Planner(
            make_source(self._space, self._study.name, None, self._state.learned),
            self._prints,
            self.limit,
        )
        try:
            planner.replay(self._state.outcomes())
            while (planned := planner.new()) is not None:
                if isinstance(planned, Later) or must_stop():
                    return False
                found = self._earlier.find(planned.digest)
                if found is None:
                    return False
                begin()
                self._record(found, planned, is_new=True)
                planner.tell(planned, self._state.outcome(planned.trial) or {})
            return True
        finally:
            planner.close()

    def _record(self, found: Found, planned: Planned, *, is_new: bool) -> None:
        trial = planned.trial
        reused = Reused(
            trial=trial,
            study=found.study,
            study_id=found.study_id,
            source=found.trial,
            checkpoint=keep_state(found, self._study, trial),
        )
        if self._tests_all and found.tested is not None:
            keep_files(found, self._study, trial)
        # In one flush: a driver that is killed leaves all of it or, torn, what is completed later.
        head: Sequence[TrialEvent] = (planned, reused) if is_new else (reused,)
        self._recorder.record(*head, *as_here(found.events, trial, self._tests_all, found.tested))


def as_here(
    events: Sequence[TrialEvent], trial: str, tests_all: bool, tested: Tested | None
) -> list[TrialEvent]:
    """Epochs and end of a trial under its name here.

    Its score on the test split is known only where every trial's is: elsewhere that of what is
    selected is taken over, and of nothing else.
    """
    scores = {n: getattr(tested, n, None) for n in NO_SCORES} if tests_all else NO_SCORES
    stamp: dict[str, Any] = {"trial": trial, "n": None, "began": None, "gpus": None}
    found: list[TrialEvent] = [replace(e, **stamp) for e in events if isinstance(e, Epoch)]
    ended = next(e for e in reversed(events) if isinstance(e, Ended))
    return [*found, replace(ended, **stamp, result=replace(ended.result, **scores))]
