"""What a node has to show, when it is refused and used again; no Ray is needed."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from search.workers.failure_attribution import MAX_RESTARTS, WorkerLoss
from search.workers.final_tests import FinalTests
from search.workers.needs import DISTRIBUTIONS, PACKAGES, Needs, driver_facts, needs_of
from search.workers.nodes import Nodes
from search.workers.pack_worker import Place
from search.workers.shell import PackWorkerShell
from search.workers.trial_table import TrialTable
from tcpa_core.command import DISTRIBUTION
from tcpa_core.config import TrialConfig
from tcpa_core.record import events
from tcpa_core.record.events import Notice
from tests.search.test_trial_table import planned

A, B = Place("hosta", "cpu", 1, "node-a"), Place("hostb", "cpu", 2, "node-b")


class Cluster:
    """Nodes whose faults a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pause_s: float = 0.01) -> None:
        self.faults: dict[str, str] = {}
        self.said: list[str] = []
        self.changes = 0
        self.asked: list[str] = []
        self.alive = {"node-a", "node-b"}
        monkeypatch.setattr("search.workers.nodes.alive_nodes", lambda: self.alive)
        self.nodes = Nodes(
            say=self.said.append, on_change=self._change, ask_again=self.ask, pause_s=pause_s
        )

    def _change(self) -> None:
        self.changes += 1

    async def ask(self, node: str) -> str:
        self.asked.append(node)
        await asyncio.sleep(0.001)
        return self.faults.get(node, "")

    async def comes(self, place: Place) -> bool:
        return await self.nodes.passes(place, "files", lambda: self.ask(place.node))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.005)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_a_node_is_asked_once_however_many_workers_come(cluster: Cluster) -> None:
    async def scene() -> list[bool]:
        return await asyncio.gather(*(cluster.comes(place) for place in (A, A, A, B, A)))

    assert asyncio.run(scene()) == [True] * 5
    assert sorted(cluster.asked) == ["node-a", "node-b"] and not cluster.said
    assert cluster.nodes.refused == set()


def test_a_refused_node_is_named_once_and_kept_away_from(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, pause_s=60.0)
    cluster.faults["node-b"] = "its data are others"

    async def scene() -> list[bool]:
        found = await asyncio.gather(*(cluster.comes(place) for place in (A, B, B, B)))
        cluster.nodes.close()
        return found

    assert asyncio.run(scene()) == [True, False, False, False]
    (text,) = cluster.said
    assert text == (
        "hostb is not used: its data are others; it is asked again in 1 min, then after longer "
        "pauses"
    )
    assert cluster.asked.count("node-b") == 1 and cluster.changes == 1
    assert cluster.nodes.refused == {"node-b"}
    assert cluster.nodes.faults == ["hostb: its data are others"]


def test_a_node_that_passes_later_is_used_and_said(cluster: Cluster) -> None:
    cluster.faults["node-b"] = "its data are others"

    async def scene() -> None:
        assert not await cluster.comes(B)
        await cluster.until(lambda: len(cluster.asked) >= 3)
        del cluster.faults["node-b"]
        await cluster.until(lambda: not cluster.nodes.refused)
        assert await cluster.comes(B)

    asyncio.run(scene())
    assert len(cluster.said) == 2 and "hostb is used from here on" in cluster.said[1]
    assert cluster.changes == 2 and cluster.nodes.refused == set()


def test_another_reason_is_said_and_a_lost_node_is_forgotten(cluster: Cluster) -> None:
    cluster.faults["node-b"] = "it has no package"

    async def scene() -> None:
        assert not await cluster.comes(B)
        cluster.faults["node-b"] = "its data are others"
        await cluster.until(lambda: len(cluster.said) == 2)
        cluster.alive = {"node-a"}
        await cluster.until(lambda: not cluster.nodes.refused)

    asyncio.run(scene())
    assert cluster.said[1] == "hostb is still not used: its data are others"


def test_pauses_grow(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.faults["node-b"] = "it has no package"
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    async def scene() -> None:
        assert not await cluster.comes(B)
        monkeypatch.setattr("search.workers.nodes.asyncio.sleep", sleep)
        while sum(pause > 0.005 for pause in pauses) < 4:
            await real(0.001)
        cluster.nodes.close()

    asyncio.run(scene())
    long = [pause for pause in pauses if pause > 0.005]
    assert long[:4] == [0.01, 0.02, 0.04, 0.08]


def test_one_who_dies_while_asking_leaves_the_question_to_the_next(cluster: Cluster) -> None:
    async def dies() -> str:
        raise ConnectionError("its process has died")

    async def scene() -> bool:
        with pytest.raises(ConnectionError):
            await cluster.nodes.passes(A, "files", dies)
        return await cluster.comes(A)

    assert asyncio.run(scene()) and cluster.asked == ["node-a"]


NEEDS = Needs(facts={"python": "3.11.7", DISTRIBUTION: "1.0", "torch": "2.11.0+cpu",
                     "torchvision": "0.26.0", "timm": "1.0.23", "numpy": "2.0.0", "ray": "2.60.0",
                     "sources": "s"})  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({}, ""),
        ({"torch": "2.11.0+cu130"}, ""),  # a head without a GPU has another build
        ({"python": "3.11.2"}, ""),
        ({DISTRIBUTION: "0.9"}, ""),  # an editable install: the files are the same
        ({"sources": None}, f"it has no {DISTRIBUTION}; install version 1.0 there"),
        ({"sources": "t"}, f"its source files of {DISTRIBUTION} 1.0 are not the driver's"),
        ({"sources": "t", DISTRIBUTION: "0.9"}, f"it has {DISTRIBUTION} 0.9, the driver has 1.0"),
        ({"torch": "2.12.0"}, "it has torch 2.12.0, the driver has 2.11.0"),
        ({"timm": None}, "it has no timm, the driver has 1.0.23"),
        ({"numpy": "1.26.4"}, "it has numpy 1.26.4, the driver has 2.0.0"),
        ({"python": "3.12.1"}, "it has python 3.12, the driver has 3.11"),
    ],
)
def test_what_is_installed_is_compared(changes: dict[str, str | None], because: str) -> None:
    theirs = {name: text for name, text in {**NEEDS.facts, **changes}.items() if text is not None}
    found = NEEDS.package_fault(theirs)
    assert found.startswith(because) and bool(found) == bool(because)


def test_this_process_has_what_it_needs_itself() -> None:
    needs = needs_of([TrialConfig()], {})
    assert needs.package_fault(PackWorkerShell.node_facts(DISTRIBUTIONS, PACKAGES)) == ""
    assert len(driver_facts()["sources"]) == 64


def test_other_data_and_weights_are_named_by_place_and_fingerprint() -> None:
    config = TrialConfig.from_flat({"data.name": "folder", "data.root": "/data/tiny"})
    needs = needs_of([config], {"data": "a" * 64, "weights": "sha256:" + "b" * 16})
    right = {"data": ["a" * 64], "weights": ["sha256:" + "b" * 16]}
    assert needs.files_fault(right) == ""
    fault = needs.files_fault({**right, "data": ["c" * 64]})
    assert "its data of /data/tiny are not those" in fault
    assert f"fingerprint {'c' * 12}, planned with {'a' * 12}" in fault
    assert "sha256:cccc" in needs.files_fault({**right, "weights": ["sha256:" + "c" * 16]})


def test_a_lagging_checkout_has_another_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = PackWorkerShell.node_facts([], ["some_package"])
    (package / "more.py").write_text("")
    after = PackWorkerShell.node_facts([], ["some_package"])
    assert before["sources"] != after["sources"]
    assert "sources" not in PackWorkerShell.node_facts(["nowhere"], ["no_package_of_that_name"])


def test_a_test_that_no_worker_survives_ends_with_a_sentence() -> None:
    tests, loss = FinalTests(), WorkerLoss("its worker process has died")
    tests.ask(planned("00001"))
    for number in range(MAX_RESTARTS):
        assert [one.trial for one in tests.send_to(number)] == ["00001"]
        assert not list(tests.send_to(number)), "it is sent once"
        assert not list(tests.lose(number, loss))
    for harmless in (
        replace(loss, with_node=True),
        replace(loss, is_wanted=True),
        replace(loss, of_node=True),
    ):
        assert list(tests.send_to(50))
        assert not list(tests.lose(50, harmless))
    assert list(tests.send_to(51))
    (tested,) = tests.lose(51, loss)
    assert tested.test_accuracy is None
    assert tested.reason == "the worker ended 4 times over it: its worker process has died"
    assert not list(tests.send_to(52))


def test_a_missing_score_is_told_once() -> None:
    table = TrialTable([], 2, test_at_end=False)
    table.welcome(0)
    (order,) = table.test(planned("00001"))
    assert order.worker == 0
    no_score = events.Tested(trial="00001", test_loss=None, test_accuracy=None, reason="no file.")
    tested, notice = table.take([no_score])
    assert tested == no_score and isinstance(notice, Notice)
    assert notice.text == "trial 00001 has no score on the test split: no file"
    assert table.take([no_score]) == []


def test_a_lost_worker_hands_its_test_to_one_that_is_ready() -> None:
    table = TrialTable([], 2, test_at_end=False)
    table.welcome(0)
    table.welcome(1)
    (order,) = table.test(planned("00001"))
    _, orders = table.lose(order.worker, WorkerLoss("its worker process has died"))
    assert [one.worker for one in orders] == [1 - order.worker]


def test_what_is_wrong_with_a_node_counts_against_no_trial() -> None:
    table = TrialTable([], 2, test_at_end=False)
    table.advance(planned("00001"), 4)
    for number in range(2 * MAX_RESTARTS):
        assert table.welcome(number)
        told, _ = table.lose(number, WorkerLoss("its data have changed", of_node=True))
        assert told == [], "it was said when the node was refused"
