"""What workers and the dispatcher do while the network between them is cut; without Ray."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from search.driver.nodes import Nodes
from search.workers import reach, worker_handle
from search.workers.dispatcher import Dispatcher
from search.workers.pack_worker import PackWorker, Place, WorkerSpec
from search.workers.reach import is_reached
from search.workers.worker_handle import WorkerHandle
from tcpa_core.record.events import Notice
from tcpa_core.record.values import Pulse
from tcpa_core.training.commands import Stop

CUT = ActorUnavailableError("the network was cut", None)
STOPS = [Stop(trial=f"{n:05d}") for n in range(5)]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "RETRY_S", 0.0)
    monkeypatch.setattr(worker_handle, "RETRY_S", 0.0)


def worker_of(work: Callable[[], list[Any]]) -> tuple[PackWorker, list[Any]]:
    """A pack worker whose trainer is this function, and the commands that it has taken."""
    taken: list[Any] = []
    trainers.append(
        SimpleNamespace(
            work=work, idle=True, take=taken.append, pulse=lambda: Pulse(signs=1, is_idle=False)
        )
    )
    spec = WorkerSpec(
        study_dir=Path("nowhere"),
        cache_dir=None,
        factory=f"{__name__}:make_trainer",
        count=1,
        slots=1,
        num_cpus=1,
        num_gpus=0,
        env={},
    )
    return PackWorker(spec, Place(host="a", device="cpu", pid=0)), taken


trainers: list[Any] = []


def make_trainer(*_: Any) -> Any:
    return trainers.pop()


def test_events_are_handed_over_once_however_often_the_answer_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether a call whose connection broke was carried out, nobody knows: here all were."""
    dispatcher = object.__new__(Dispatcher)
    dispatcher._batches, got = {}, []
    dispatcher._table = SimpleNamespace(  # type: ignore[assignment]
        is_ready=lambda _: True, take=lambda events: events, place=lambda: []
    )
    dispatcher._pool = SimpleNamespace(has_worked=lambda: None)  # type: ignore[assignment]
    monkeypatch.setattr(dispatcher, "_publish", got.extend)
    lost = iter([True, False, True, True, True, False])
    pulses = []

    def call(worker_number: int, batch: int, events: list[Any]) -> None:
        asyncio.run(dispatcher.push(worker_number, batch, events))
        pulses.append(worker.pulse())
        if next(lost):
            raise CUT

    handle = SimpleNamespace(push=SimpleNamespace(remote=lambda *args: lambda: call(*args)))
    monkeypatch.setattr("ray.get", lambda made: made())
    waiting = [[Notice(text="1"), Notice(text="2")], [Notice(text="3")]]

    def work() -> list[Any]:
        if not waiting:
            worker.halt()
            return []
        return waiting.pop(0)

    worker, _ = worker_of(work)
    worker.run(handle, 7)
    assert [event.text for event in got] == ["1", "2", "3"]
    assert all(pulse.is_idle for pulse in pulses), "a cut is no hang"
    assert not worker.pulse().is_idle
    worker.end()


def test_a_dispatcher_that_is_gone_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Any) -> None:
        raise ActorDiedError

    monkeypatch.setattr("ray.get", gone)
    worker, _ = worker_of(lambda: [Notice(text="1")])
    handle: Any = SimpleNamespace(push=SimpleNamespace(remote=lambda *_: None))
    with pytest.raises(ActorDiedError):
        worker.run(handle, 0)
    with pytest.raises(ActorDiedError):  # for who has lost the connection since
        worker.end()


def test_commands_that_come_twice_or_overtake_are_taken_once_in_order() -> None:
    worker, taken = worker_of(list)
    for number in (1, 1, 3, 4, 3, 2, 1, 5, 2):
        worker.command(number, STOPS[number - 1])
    assert taken == STOPS


class Actor:
    """An actor handle whose calls end as it is told, one after the other; "never" for ever."""

    def __init__(self, **ends: list[Any]) -> None:
        self.calls: list[tuple[str, Any]] = []
        for name, results in ends.items():
            method = SimpleNamespace(remote=self._call(name, results))
            method.options = lambda method=method, **_: method
            setattr(self, name, method)

    def _call(self, name: str, results: list[Any]) -> Callable[..., Any]:
        async def end() -> Any:
            result = results.pop(0)
            if isinstance(result, BaseException):
                raise result
            return result

        def remote(*args: Any) -> Any:
            self.calls.append((name, args))
            return end()

        return remote


def test_a_command_whose_connection_broke_is_sent_again() -> None:
    actor = Actor(command=[CUT, CUT, None])
    asyncio.run(_sent(WorkerHandle(actor, SPEC), STOPS[0]))
    assert actor.calls == [("command", (1, STOPS[0]))] * 3


SPEC: Any = SimpleNamespace(num_gpus=0.0, silence_s=0.04)


async def _sent(handle: WorkerHandle, command: Any) -> None:
    await handle.send(command)


def test_a_worker_whose_connection_broke_is_followed_on() -> None:
    actor = Actor(run=[CUT], end=[CUT, CUT, None])
    asyncio.run(WorkerHandle(actor, SPEC).run("dispatcher", 3))
    assert actor.calls == [("run", ("dispatcher", 3)), *([("end", ())] * 3)]


def test_a_worker_that_neither_answers_nor_dies_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_handle, "CUT_S", -1.0)
    actor = Actor(run=[CUT])
    with pytest.raises(ActorUnavailableError):
        asyncio.run(WorkerHandle(actor, SPEC).run("dispatcher", 3))


def test_a_machine_answers_for_processes_that_stand_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reach, "CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        assert asyncio.run(is_reached(address)), "nobody accepts"
        full = [socket.socket() for _ in range(4)]
        for one in full:
            one.setblocking(False)
            one.connect_ex(address)
        assert not asyncio.run(is_reached(address)), "packets are swallowed"
        for one in full:
            one.close()
    assert asyncio.run(is_reached(address)), "its machine says that nothing listens"
    assert asyncio.run(is_reached(None)), "nobody knows where it is"


@pytest.mark.parametrize("reached", [True, False])
def test_only_a_process_whose_machine_answers_can_hang(
    monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    async def is_reached(_: Any) -> bool:
        return reached

    monkeypatch.setattr(worker_handle, "is_reached", is_reached)
    actor = Actor(pulse=[CUT] * 1000)
    handle = WorkerHandle(actor, SPEC)
    looks = iter([True] * 30)
    loss = asyncio.run(handle.hang(lambda: next(looks, False), lambda: ["00001"]))
    assert (loss is not None) == reached


def node(name: str, host: str, alive: bool, reason: int = 0, why: str = "") -> dict[str, Any]:
    return {
        "NodeID": name,
        "Alive": alive,
        "NodeManagerHostname": host,
        "NodeManagerAddress": f"10.0.0.{len(host)}",
        "DeathReason": reason,
        "DeathReasonMessage": why,
    }


def test_nodes_that_are_given_up_are_named_once_with_what_to_type_there() -> None:
    nodes = Nodes("10.0.0.1:6379")
    silent = "health check failed due to missing too many heartbeats"
    assert nodes.news([node("x", "old", False, 2)]) == [], "before this driver came"
    assert nodes.news([node("1", "a", True), node("2", "bb", True)]) == []
    lost = [node("1", "a", True), node("2", "bb", False, 2, silent)]
    (word,) = nodes.news(lost)
    assert word.startswith("Ray has given up the node on bb (10.0.0.2) (it has not answered")
    assert word.endswith("type there: ray stop; ray start --address=10.0.0.1:6379")
    assert nodes.news(lost) == []
    assert nodes.news([*lost, node("3", "ccc", True)]) == [], "another host is no return"
    assert nodes.news([*lost, node("4", "bb", True)]) == [
        "a node on bb (10.0.0.2) is in the cluster again"
    ]


def test_a_node_that_was_stopped_by_its_user_or_an_autoscaler_needs_no_word() -> None:
    nodes = Nodes("10.0.0.1:6379")
    nodes.news([node(str(reason), f"{reason}", True) for reason in (0, 1, 3, 4)])
    assert (
        nodes.news([node(str(reason), f"{reason}", False, reason) for reason in (0, 1, 3, 4)]) == []
    )
