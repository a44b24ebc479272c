"""What the doctor says of the nodes of a cluster: stand-ins, which say what this machine has."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError
from rich.console import Console

from search.verbs.doctor_nodes import show_nodes
from search.workers.pack_worker import Place, WorkerSpec
from search.workers.shell import PackWorkerShell


class Witness:
    """A process on a node, which answers as this one would, but for what a test changes."""

    def __init__(self, spec: WorkerSpec, node: str, found: dict[str, Any]) -> None:
        self.spec = spec
        self.place: Place | None = None
        self._node = node
        self._found = found
        facts, folders = self._facts, self._folders
        self.actor = SimpleNamespace(
            facts=SimpleNamespace(remote=facts), folders=SimpleNamespace(remote=folders)
        )
        self.is_ended = False

    async def _facts(self, *args: Any) -> dict[str, str]:
        facts = {**PackWorkerShell.node_facts(*args), **self._found}
        return {name: text for name, text in facts.items() if text is not None}

    async def _folders(self, root: str) -> dict[str, Any]:
        return PackWorkerShell.folders(self._found.get("root", root))

    async def find_place(self) -> Place:
        if self._found.get("is_lost"):
            raise RayActorError
        self.place = Place(self._node, "cpu", 1, self._node)
        return self.place

    async def package_fault(self) -> str:
        return self.spec.needs.package_fault(await self._facts((), ("tcpa_core",)) | self._found)

    def kill(self) -> None:
        self.is_ended = True


def shown(
    monkeypatch: pytest.MonkeyPatch, root: Path, **nodes: dict[str, Any]
) -> tuple[int, dict[str, str]]:
    """Exit code, and the row of each node."""
    witnesses: list[Witness] = []

    def start(spec: WorkerSpec, node: str) -> Witness:
        witnesses.append(Witness(spec, node, nodes[node]))
        return witnesses[-1]

    listed = [
        {"NodeID": name, "NodeManagerHostname": name, "Alive": True, "Resources": {"CPU": 4.0}}
        for name in nodes
    ]
    dead = {"NodeID": "dead", "NodeManagerHostname": "dead", "Alive": False, "Resources": {}}
    monkeypatch.setattr("ray.nodes", lambda: [*listed, dead])
    monkeypatch.setattr("search.workers.node_looks.start_witness", start)
    out = io.StringIO()
    code = show_nodes(root, None, Console(file=out, width=500))
    assert witnesses and all(witness.is_ended for witness in witnesses)
    lines = out.getvalue().splitlines()
    assert not any("dead" in line for line in lines)
    return code, {name: next(line for line in lines if f" {name} " in line) for name in nodes}


def test_every_node_has_a_row_with_its_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "studies" / "one").mkdir(parents=True)
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    facts = PackWorkerShell.node_facts(
        ("tcpa-search", "torch", "torchvision", "timm", "numpy", "ray"),
        ("tcpa_core", "spaces", "search"),
    )
    code, rows = shown(
        monkeypatch,
        tmp_path / "studies",
        hosta=facts,
        hostb={**facts, "torch": "1.13.0", "root": str(tmp_path)},
        hostc={**facts, "root": str(tmp_path / "nowhere")},
        hostd={"is_lost": True},
    )
    assert code == 0
    assert " ok " in rows["hosta"] and " seen " in rows["hosta"] and "GB free" in rows["hosta"]
    assert "4 CPU, 0 GPU" in rows["hosta"] and str(tmp_path / "cache") in rows["hosta"]
    assert "REFUSED: it has torch 1.13.0" in rows["hostb"] and "another folder" in rows["hostb"]
    assert "not there" in rows["hostc"]
    assert "REFUSED: " in rows["hostd"] and "missing" in rows["hostd"]


def test_a_cluster_without_a_node_that_passes_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, _ = shown(monkeypatch, tmp_path, hosta={"is_lost": True})
    assert code == 1
