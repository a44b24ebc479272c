"""A study of the same space as one that was run before: it goes the same way, trial by trial."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from search.study.description import Description
from search.study.earlier import Earlier, Found, found_of
from search.study.folder import StudyDir
from search.study.glance import glance
from search.study.kept_state import keep_state
from spaces.space import Space
from tcpa_core.config import Flat, begun_from, file_settings
from tcpa_core.errors import ConfigError, RecordError
from tcpa_core.record import files
from tcpa_core.record.events import Ended, Epoch, Event, Planned, Reused, TrialEvent, read_journal
from tcpa_core.record.state import StudyState, TrialState
from tcpa_core.record.values import TrialResult

AT_ONCE = 1000
"""Events that are recorded in one flush, about."""
NO_SCORES: Mapping[str, Any] = {
    f.name: None for f in fields(TrialResult) if f.name.startswith("test_")
}
"""The test split is read for what is selected; of all else no score is taken over."""


@dataclass(frozen=True, slots=True)
class Repetition:
    """A study that was run before, and the one that repeats it.

    What it has completed or stopped early is taken over as it is, and of one that is finished what
    has failed, too; all else is planned as there, and trained. A population is taken over as a
    whole or not at all: the states that its trials begin from are not.
    """

    folder: Path
    document: Description
    before: StudyState
    """Where it stands."""
    here: StudyState
    """Where the study stands that repeats it."""
    is_whole: bool
    """It is finished, with the same budget: the one that repeats it ends with its last trial."""
    taken: Collection[str]
    """Trials whose record is taken over."""
    places: Flat
    """Where data and weights lie for the one that repeats it; the same ones may have moved."""

    @classmethod
    def find(
        cls,
        earlier: Earlier,
        space: Space,
        prints: Mapping[str, str],
        here: StudyState,
        limit: int | None,
        learn_from: Sequence[str] = (),
    ) -> Self | None:
        """The one from which most can be taken; None: there is none.

        Args:
            prints: Fingerprints of data and weights.
            limit: Most trials of the study; None: as many as its time allows.
            learn_from: Whose results its sampler is given.
            here: Where the study stands that may repeat it; it may have gone another way.
        """
        now = _plain(space.as_dict())
        places = {path: value for path, value in space.base.items() if path in file_settings()}
        best: Self | None = None
        for folder, document in earlier.studies():
            if _asked(document["space"]) != _asked(now) or document["fingerprints"] != prints:
                continue
            if (document.get("learn_from") or []) != list(learn_from):
                continue
            with suppress(RecordError, ConfigError, OSError):  # what is whole is found one by one
                before = StudyState.of(glance(folder / files.JOURNAL))
                if limit is not None and before.num_places > limit:
                    continue
                if not _is_same(before, here, prints, places):
                    continue
                is_whole = before.is_finished and _budget(document["space"]) == _budget(now)
                if space.ablation is not None and not is_whole:
                    continue  # the trials of a design are found one by one
                taken = {
                    name
                    for name, one in before.trials.items()
                    if earlier.runs_same_code(document, one.planned.params)
                    and _counts(folder, document, one, is_whole=is_whole)
                }
                if space.scheduler.herd and not (is_whole and len(taken) == len(before.trials)):
                    continue
                if taken and (best is None or len(taken) > len(best.taken)):
                    best = cls(folder, document, before, here, is_whole, taken, places)
        return best

    @property
    def num_trials(self) -> int:
        """Trials that it has planned, as a budget counts them."""
        return self.before.num_places

    def batches(self, study: StudyDir) -> Iterator[list[TrialEvent]]:
        """What the study that repeats it is to record, in the order in which it was there.

        Raises:
            StorageError: A trained state cannot be written.
        """
        batch: list[TrialEvent] = []
        for event in read_journal(self.folder / files.JOURNAL):
            batch += self._here(event, study)
            if len(batch) >= AT_ONCE:
                yield batch
                batch = []
        if batch:
            yield batch

    def _here(self, event: Event, study: StudyDir) -> Iterator[TrialEvent]:
        """An event of it as the study records it; none of what it has already."""
        if not isinstance(event, TrialEvent):
            return
        known = self.here.trials.get(event.trial)
        is_open = known is None or not (known.started or known.ended)
        is_taken = is_open and event.trial in self.taken
        again: TrialEvent = replace(event, n=None, began=None, gpus=None)
        if isinstance(again, Planned):
            again = _moved(again, self.places)
        if isinstance(event, Planned):
            if known is None:
                yield again
            if is_taken:
                yield self._reused(event.trial, study)
        elif isinstance(event, Epoch) and is_taken:
            yield again
        elif isinstance(event, Ended) and is_taken and self._is_last(event):
            yield replace(event, n=None, began=None, gpus=None, result=_unscored(event.result))

    def _reused(self, trial: str, study: StudyDir) -> Reused:
        found = _found(self.folder, self.document, self.before.trials[trial])
        has_ended = self.before.trials[trial].status == "completed"
        return Reused(
            trial=trial,
            study=found.study,
            study_id=found.study_id,
            source=found.trial,
            checkpoint=keep_state(found, study, trial) if has_ended else "absent",
        )

    def _is_last(self, event: Ended) -> bool:
        ended = self.before.trials[event.trial].ended
        return ended is not None and ended.n == event.n


def _unscored(result: TrialResult) -> TrialResult:
    return replace(result, **NO_SCORES)


def _counts(folder: Path, document: Description, trial: TrialState, *, is_whole: bool) -> bool:
    """Whether a trial's record is taken over: what may be selected can be tested."""
    if trial.status != "completed":
        return trial.status == "pruned" or (is_whole and trial.status == "failed")
    found = _found(folder, document, trial)
    return is_whole or found.has_state or found.tested is not None


def _found(folder: Path, document: Description, trial: TrialState) -> Found:
    parts = (trial.planned, trial.reused, trial.ended, trial.tested)
    events = [one for one in parts if one is not None]
    return found_of(folder, document, trial.planned.trial, events)


def _is_same(before: StudyState, here: StudyState, prints: Mapping[str, str], places: Flat) -> bool:
    """Whether the study has gone the same way so far, and trials have the same digests today."""
    for name, one in here.trials.items():
        if name not in before.trials or before.trials[name].planned.digest != one.planned.digest:
            return False
    ids = prints["data"], prints["weights"]
    return all(
        _digest_today(before, _moved(one.planned, places), ids) == one.planned.digest
        for one in before.trials.values()
    )


def _moved(planned: Planned, places: Flat) -> Planned:
    """A trial with its data and weights where they lie now."""
    there = {path: value for path, value in places.items() if path in planned.params}
    return replace(planned, params={**planned.params, **there})


def _digest_today(before: StudyState, planned: Planned, ids: tuple[str, str]) -> str:
    """The digest that this version gives a trial; that of its parent is checked by itself."""
    own, parent = planned.config.digest(*ids), planned.parent
    if parent is None:
        return own
    return begun_from(own, before.trials[parent.trial].planned.digest, parent.epoch)


def _asked(space: Mapping[str, Any]) -> Mapping[str, Any]:
    """What decides which trials a search proposes, and which of them it stops.

    Not where files lie: what they hold is in the fingerprints.
    """
    base = {path: v for path, v in space.get("base", {}).items() if path not in file_settings()}
    parts = {key: part for key, part in space.items() if key not in ("name", "cluster", "budget")}
    return {**parts, "base": base}


def _budget(space: Mapping[str, Any]) -> Mapping[str, Any]:
    limits = ("trials", "hours", "gpu_hours")
    return {key: space.get("budget", {}).get(key) for key in limits}


def _plain(space: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(json.dumps(space))
    return found
