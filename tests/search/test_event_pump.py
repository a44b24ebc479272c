"""How events get from the dispatcher into the journal, and why a run stops; without Ray."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError

from search.driver import event_pump, head
from search.driver.event_pump import EventPump, answer_of
from search.driver.head import Head, watched
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
    answers: Callable[[], Answer],
    recorder: Recorder,
    stop: StopReason,
    silent_s: Callable[[], float] = lambda: 0.0,
    address: str = "127.0.0.1:1",
) -> EventPump:
    dispatcher: Any = SimpleNamespace(next_events=SimpleNamespace(remote=lambda wait_s: answers))
    told = Head(address, silent_s, lambda text: recorder.record(Notice(text=text)))
    return EventPump(dispatcher, recorder, stop, told)


@pytest.fixture
def listening() -> Iterator[str]:
    """Address of something that takes connections and says nothing, as a head that stands."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


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


def test_a_silent_head_whose_port_is_closed_is_gone(recorder: Recorder) -> None:
    stop = StopReason("s")
    pump = pump_of(lambda: ([], None), recorder, stop, lambda: head.TOLD_S + 1)
    wait_for(stop)
    pump.close()
    assert stop.is_cluster_lost and "its head is gone" in str(stop.failure)


def test_a_silent_head_is_waited_for_and_the_user_reads_it_once(
    recorder: Recorder, listening: str
) -> None:
    stop, silence, asked = StopReason("s"), [0.0, 12.0, 21.0, 24.0, 26.0, 1.0, 3.0], []

    def silent_s() -> float:
        asked.append(1)
        return silence[min(len(asked), len(silence)) - 1]

    pump = pump_of(lambda: ([], None), recorder, stop, silent_s, listening)
    while len(asked) < 2 * len(silence):
        time.sleep(0.01)
    pump.close()
    assert not stop
    assert texts() == [
        f"no answer from the cluster at {listening} for 20 s; waiting",
        f"the cluster at {listening} answers again after 26 s",
    ]


def test_a_head_that_stays_silent_is_given_up_without_calling_it_gone(
    recorder: Recorder, listening: str
) -> None:
    stop = StopReason("s")
    pump = pump_of(lambda: ([], None), recorder, stop, lambda: 3600.0, listening)
    wait_for(stop)
    pump.close()
    assert stop.is_cluster_lost and f"no answer from {listening} for 3600 s" in str(stop.failure)
    assert "gone" not in str(stop.failure) and "tcpa resume s" in str(stop.failure)


def test_patience_outlasts_that_of_the_head(listening: str) -> None:
    """By Ray's settings it gives a node up after 65 s; connections need a while after a cut."""
    told: list[str] = []
    silent = Head(listening, lambda: 65.0 + 25.0, told.append)
    assert silent.look() and len(told) == 1


def test_a_driver_whose_node_was_given_up_meanwhile_says_what_to_type(listening: str) -> None:
    silence = [70.0, 0.0]
    told = Head(listening, lambda: silence.pop(0), lambda _: None)
    lost = ActorDiedError()
    assert told.explained(lost) is lost, "there was no silence"
    assert told.look() and f"ray start --address={listening}" in str(told.explained(lost))
    assert not told.look() and "given up the node of this machine" in str(told.explained(lost))


def test_a_dispatcher_may_stand_in_a_question_to_a_silent_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_pump, "ANSWER_S", 0.05)
    silence = iter([True] * 5)
    begun = []

    def is_silent() -> bool:
        time.sleep(0.03)
        begun.append(1)
        return next(silence, False)

    with pytest.raises(TimeoutError, match="dispatcher does not answer"):
        answer_of(None, 0.0, StopReason("s"), is_silent)
    assert len(begun) > 5


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


def test_a_head_that_is_lost_while_workers_start_is_noticed() -> None:
    def look() -> bool:
        raise GetTimeoutError("its head is gone")

    lost, errors = threading.Event(), []

    def lose(err: RayError) -> None:
        errors.append(str(err))
        lost.set()

    with watched(SimpleNamespace(look=look), lose):
        assert lost.wait(60), "the main thread may stand in a call of Ray meanwhile"
    assert errors == ["its head is gone"]
