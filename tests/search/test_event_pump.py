"""How events get from the dispatcher into the journal, and why a run stops; without Ray."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from search.driver import event_pump
from search.driver.event_pump import EventPump, answer_of
from search.driver.recorder import Recorder
from search.driver.stop_reason import StopReason
from search.study.journal import Journal
from tcpa_core.errors import StoppedError
from tcpa_core.record.events import Event, Notice
from tcpa_core.record.state import StudyState

Answer = tuple[list[Event], str | None]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of the dispatcher is a function, whose value is its answer; None: no answer yet."""

    def ready(calls: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return [call for call in calls if call is not None], []

    monkeypatch.setattr("ray.wait", ready)
    monkeypatch.setattr("ray.get", lambda call: call())


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    journal = Journal(tmp_path / "journal.jsonl")
    yield Recorder(journal, StudyState(), [heard.append])
    journal.close()
    heard.clear()


heard: list[Event] = []


def pump_of(
    answers: Callable[[], Answer], recorder: Recorder, stop: StopReason, silent_s: float = 0.0
) -> EventPump:
    dispatcher: Any = SimpleNamespace(next_events=SimpleNamespace(remote=lambda wait_s: answers))
    return EventPump(dispatcher, recorder, stop, lambda: silent_s)


def texts() -> list[str]:
    return [event.text for event in heard if isinstance(event, Notice)]


def wait_for(stop: StopReason) -> None:
    deadline = time.monotonic() + 20
    while not stop and time.monotonic() < deadline:
        time.sleep(0.01)


def test_all_that_has_happened_is_recorded_before_it_ends(recorder: Recorder) -> None:
    waiting = [Notice(text=str(i)) for i in range(5)]

    def answers() -> Answer:
        time.sleep(0.01)
        return ([waiting.pop(0)] if waiting else []), None

    pump = pump_of(answers, recorder, StopReason("s"))
    pump.close()
    assert texts() == ["0", "1", "2", "3", "4"]


def test_a_fault_of_the_dispatcher_stops_the_run_after_its_events(recorder: Recorder) -> None:
    stop = StopReason("s")
    pump = pump_of(lambda: ([Notice(text="lost")], "no worker starts"), recorder, stop)
    wait_for(stop)
    pump.close()
    assert texts() == ["lost"] and stop.text == "the driver failed: no worker starts"
    assert isinstance(stop.failure, StoppedError) and not stop.is_cluster_lost


def test_a_lost_dispatcher_is_recorded_at_once(recorder: Recorder) -> None:
    def answers() -> Answer:
        raise ActorUnavailableError("gone", None)

    stop = StopReason("s")
    pump_of(answers, recorder, stop).close()
    assert texts() == ["the Ray cluster of study 's' does not answer any more; this driver ends"]
    assert stop.is_cluster_lost and "tcpa resume s" in str(stop.failure)


def test_a_silent_head_is_a_lost_cluster(recorder: Recorder) -> None:
    stop = StopReason("s")
    pump = pump_of(lambda: ([], None), recorder, stop, silent_s=event_pump.ANSWER_S + 1)
    wait_for(stop)
    pump.close()
    assert stop.is_cluster_lost and "its head is gone" in str(stop.failure)


def test_a_cluster_that_is_lost_after_a_signal_is_no_failure(recorder: Recorder) -> None:
    """The signal may have gone to Ray as well."""
    stop = StopReason("s")
    stop.give("interrupted by SIGTERM")
    stop.lose_cluster(ActorUnavailableError("gone", None), recorder.record)
    assert stop.is_cluster_lost and stop.failure is None and not texts()
    assert stop.text == "interrupted by SIGTERM"


def test_a_call_that_nobody_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_pump, "ANSWER_S", 0.05)
    with pytest.raises(TimeoutError, match="dispatcher does not answer"):
        answer_of(None, 0.0, StopReason("s"))
