"""Nodes on which workers were killed are looked at when a study ends; no others are."""

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorUnschedulableError

from search.workers import node_clearing
from search.workers.node_clearing import NodeClearing
from search.workers.pack_worker import WorkerSpec
from search.workers.trial_files import FilesSpec

SPEC = WorkerSpec(
    study_dir=Path("/study"),
    cache_dir=None,
    factory="module:name",
    count=2,
    slots=1,
    num_cpus=1,
    num_gpus=0,
    env={},
    files=FilesSpec(study_id="id", storage="s3://bucket/study"),
)


class Witness:
    """A process on a node; it notes what it is asked, and "gone" is not there any longer."""

    def __init__(self, node: str, asked: list[str], fault: str) -> None:
        self._node, self._asked, self._fault = node, asked, fault
        self.actor = SimpleNamespace(clear=SimpleNamespace(remote=self._clear))

    async def find_place(self) -> None:
        if self._node == "gone":
            raise ActorUnschedulableError("no such node")

    async def package_fault(self) -> str:
        return self._fault

    async def enter(self) -> str:
        return ""

    async def _clear(self) -> None:
        self._asked.append(self._node)

    def kill(self) -> None:
        self._asked.append(f"{self._node} killed")


def asked_at_the_end(
    monkeypatch: pytest.MonkeyPatch, clearing: NodeClearing, fault: str = ""
) -> list[str]:
    asked: list[str] = []
    monkeypatch.setattr(
        node_clearing, "start_witness", lambda spec, node: Witness(node, asked, fault)
    )
    asyncio.run(clearing.clear())
    return sorted(asked)


def begun(spec: WorkerSpec = SPEC) -> NodeClearing:
    clearing = NodeClearing(spec)
    for node in ("in order", "one of two", "one of two", "gone"):
        clearing.begin(node)
    clearing.end("in order")
    clearing.end("one of two")
    return clearing


def test_nodes_are_looked_at_where_a_worker_did_not_end_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert asked_at_the_end(monkeypatch, begun()) == [
        "gone killed", "one of two", "one of two killed",
    ]  # fmt: skip
    # another version of the package may know other files
    assert asked_at_the_end(monkeypatch, begun(), "other sources") == [
        "gone killed", "one of two killed",
    ]  # fmt: skip


def test_a_study_on_one_machine_keeps_all_in_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_at_the_end(monkeypatch, begun(replace(SPEC, files=FilesSpec()))) == []
