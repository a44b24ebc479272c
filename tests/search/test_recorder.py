"""What is written of a study that runs, and in which order it is told; without Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from search.driver.recorder import Listener, Recorder
from search.driver.stop_reason import StopReason
from search.study.journal import Journal
from tcpa_core.errors import StoppedError
from tcpa_core.record.events import Event, Notice, StudyBegun, read_journal
from tcpa_core.record.state import StudyState
from tests.journals import event

METRIC = "val_accuracy"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.jsonl")
    yield opened
    opened.close()


def planned(trial: str) -> Event:
    return event({"kind": "planned", "trial": trial})


def epoch(trial: str, number: int, value: float = 0.5) -> Event:
    return event({"kind": "epoch", "trial": trial, "epoch": number, METRIC: value})


def ended(trial: str, status: str = "completed") -> Event:
    return event({"kind": status, "trial": trial})


def recorder_of(journal: Journal, *listeners: Listener) -> Recorder:
    return Recorder(journal, StudyState(METRIC), listeners)


def test_events_are_written_counted_and_then_told_in_their_order(journal: Journal) -> None:
    told: list[tuple[str, Event, int]] = []
    recorder = recorder_of(
        journal,
        lambda e: told.append(("first", e, recorder.state.trials["a"].epoch)),
        lambda e: told.append(("second", e, recorder.state.trials["a"].epoch)),
    )
    recorder.record(planned("a"))
    recorder.record(epoch("a", 1))
    written = list(read_journal(journal.path))
    assert [e.n for e in written] == [0, 1]
    assert [(who, e) for who, e, _ in told] == [
        ("first", written[0]), ("second", written[0]),
        ("first", written[1]), ("second", written[1]),
    ]  # fmt: skip
    assert [known for *_, known in told] == [0, 0, 1, 1]


def test_an_epoch_that_is_recorded_already_is_neither_written_nor_told(journal: Journal) -> None:
    told: list[Event] = []
    recorder = recorder_of(journal, told.append)
    recorder.record(planned("a"), planned("b"))
    recorder.record(epoch("a", 1, 0.1), epoch("a", 2, 0.2))
    recorder.record(epoch("a", 1, 0.9), epoch("a", 2, 0.9), epoch("b", 1), epoch("a", 3))
    kinds = [(e.kind, getattr(e, "trial", "")) for e in read_journal(journal.path)]
    assert kinds[4:] == [("epoch", "b"), ("epoch", "a")]
    assert len(told) == 6
    assert list(recorder.state.trials["a"].values.values())[:2] == [0.1, 0.2]


def test_trials_are_open_until_their_end_is_recorded(journal: Journal) -> None:
    recorder = recorder_of(journal)
    assert not recorder.has_open_trials
    recorder.record(planned("a"), planned("b"))
    recorder.record(ended("a"))
    assert recorder.has_open_trials
    recorder.record(ended("b", "failed"))
    assert not recorder.has_open_trials


def test_only_the_first_event_says_since_when_the_driver_s_time_counts(journal: Journal) -> None:
    recorder = recorder_of(journal)
    recorder.record(StudyBegun(name="s"))
    recorder.begin(2.0)
    recorder.record(planned("a"))
    recorder.record(planned("b"))
    first, second, third = read_journal(journal.path)
    assert (first.began, first.gpus) == (None, None)
    assert second.began is not None and second.gpus == 2.0
    assert (third.began, third.gpus) == (None, None)


def test_a_cluster_that_has_grown_meanwhile_is_counted_as_it_is(journal: Journal) -> None:
    recorder = recorder_of(journal)
    recorder.begin(2.0)
    recorder.record(Notice(text="grown", gpus=4.0))
    (notice,) = read_journal(journal.path)
    assert notice.began is not None and notice.gpus == 4.0


def test_nothing_is_written_once_another_driver_has_the_study(journal: Journal) -> None:
    owner: list[str] = []
    recorder = Recorder(journal, StudyState(), (), lambda: owner[-1] if owner else None)
    recorder.record(planned("a"))
    owner.append("pid 7 on other")
    with pytest.raises(StoppedError, match="taken the study over, .* pid 7 on other"):
        recorder.record(ended("a"))
    assert len(list(read_journal(journal.path))) == 1
    assert recorder.has_open_trials


def test_a_listener_that_fails_is_not_told_of_what_follows(journal: Journal) -> None:
    told: list[Event] = []

    def fail(event: Event) -> None:
        told.append(event)
        raise ZeroDivisionError

    recorder = recorder_of(journal, fail)
    with pytest.raises(ZeroDivisionError):
        recorder.record(planned("a"), planned("b"))
    assert len(told) == 1
    assert len(list(read_journal(journal.path))) == 2, "what is written stays written"


class TestStopReason:
    def test_the_first_reason_counts(self) -> None:
        stop = StopReason("s")
        assert not stop
        stop.give("interrupted by SIGTERM")
        stop.give("interrupted by SIGINT")
        assert stop and stop.text == "interrupted by SIGTERM"

    def test_a_fault_is_raised_in_the_end(self) -> None:
        stop, fault = StopReason("s"), OSError("no room")
        stop.fail(fault)
        assert stop.text == "the driver failed: no room" and stop.failure is fault
