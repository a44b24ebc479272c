"""Files reach another node whole, a piece at a time, and no damaged piece is used."""

import asyncio
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from search.driver.placement import FACTORY
from search.study.identity import fingerprints_of
from search.workers import sending
from search.workers.cargo import cargo_of, parts_to_send
from search.workers.needs import Needs
from search.workers.pack_worker import PackWorker, Place, WorkerSpec
from search.workers.sending import AT_ONCE, PIECE_BYTES, SILENT_S, Fetcher, Offer, Sender
from spaces.load import space_of
from spaces.space import Space
from tcpa_core.data.base import open_manifest
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.model.load_backbone import weights_path
from tcpa_core.record.events import Ended, Event
from tcpa_core.settings import BackboneConfig
from tcpa_core.training.commands import Submit
from tests.tcpa_core.data_layouts import make


class Handle:
    """Of a sender in this process; may damage what it hands over."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.damaged = 0
        """Answers that come damaged."""
        self.asked: list[int] = []
        self.piece = SimpleNamespace(remote=self._piece)
        self.has_all = SimpleNamespace(remote=lambda *args: asyncio.run(sender.has_all(*args)))

    def _piece(self, who: str, name: str, start: int) -> Any:
        self.asked.append(start)
        piece = asyncio.run(self.sender.piece(who, name, start))
        if self.damaged and piece:
            self.damaged -= 1
            return piece[0], piece[1][:-1] + bytes([piece[1][-1] ^ 1])
        return piece


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending.ray, "get", lambda answer: answer)
    monkeypatch.setattr(Fetcher, "who", "hostb/1/node")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "f").write_bytes(bytes(range(256)) * (PIECE_BYTES // 256) + b"the end")
    return tmp_path / "f"


def fetcher(file: Path) -> tuple[Fetcher, Handle]:
    handle = Handle(Sender({"weights/a/f": file}))
    return Fetcher(handle, {"weights/a/f": file.stat().st_size}), handle


class TestPieces:
    def test_make_up_the_file(self, file: Path) -> None:
        fetch, handle = fetcher(file)
        assert b"".join(fetch("weights/a/f")) == file.read_bytes()
        assert handle.asked == [0, PIECE_BYTES]

    def test_a_damaged_one_is_asked_for_again(self, file: Path) -> None:
        fetch, handle = fetcher(file)
        handle.damaged = 2
        assert b"".join(fetch("weights/a/f")) == file.read_bytes()
        handle.damaged = 3
        with pytest.raises(DataError, match="3 times, a piece of weights/a/f came damaged"):
            list(fetch("weights/a/f"))

    def test_a_file_that_is_gone_is_named(self, file: Path) -> None:
        fetch, _ = fetcher(file)
        file.unlink()
        with pytest.raises(DataError, match=f"{file} of the driver's node cannot be read"):
            list(fetch("weights/a/f"))

    def test_a_file_that_has_shrunk_is_no_endless_wait(self, file: Path) -> None:
        fetch, _ = fetcher(file)
        file.write_bytes(b"short")
        with pytest.raises(DataError, match="has become shorter"):
            list(fetch("weights/a/f"))

    def test_a_lost_sender_is_no_trial_s_fault(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lost(_: object) -> None:
            raise ray.exceptions.ActorUnavailableError("its node is gone", None)

        monkeypatch.setattr(sending.ray, "get", lost)
        fetch, _ = fetcher(file)
        with pytest.raises(DataError, match="does not come from the driver's node") as caught:
            list(fetch("weights/a/f"))
        assert isinstance(caught.value.__cause__, OSError)

    def test_one_sentence_says_what_a_host_was_sent(self, file: Path) -> None:
        fetch, handle = fetcher(file)
        list(fetch("weights/a/f"))
        fetch.close()
        fetch.close()  # nothing more was sent
        [said] = asyncio.run(handle.sender.news())
        assert "has no weights of this study: 4.2 MB were sent to its cache (--ship-data)" in said


class TestTurns:
    def ask(self, sender: Sender, who: str) -> bool:
        return asyncio.run(sender.piece(who, "f", 0)) is not None

    @pytest.fixture
    def sender(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> Sender:
        monkeypatch.setattr(sending, "TURN_S", 0.0)
        return Sender({"f": file})

    def test_only_so_many_are_served_at_a_time(self, sender: Sender) -> None:
        assert all(self.ask(sender, f"node {i}") for i in range(AT_ONCE))
        assert not self.ask(sender, "another")
        assert self.ask(sender, "node 0")
        asyncio.run(sender.has_all("node 0", "host"))
        assert self.ask(sender, "another")
        assert not self.ask(sender, "node 0")

    def test_one_that_has_died_takes_no_turn(
        self, sender: Sender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert all(self.ask(sender, f"node {i}") for i in range(AT_ONCE))
        now = sending.time.monotonic()
        monkeypatch.setattr(sending.time, "monotonic", lambda: now + SILENT_S + 1)
        assert self.ask(sender, "another")

    def test_who_waits_asks_again_and_shows_life(self, file: Path) -> None:
        _, handle = fetcher(file)
        answers = iter([None, None, (zlib.crc32(b"x"), b"x")])
        handle.piece = SimpleNamespace(remote=lambda *_: next(answers))
        assert list(Fetcher(handle, {"f": 1})("f")) == [b"", b"", b"x"]


def space(root: str | None, **axes: Any) -> Space:
    data = {"name": "folder", "root": root} if root else {"name": "digits"}
    return space_of(
        {
            "name": "s",
            "base": {"data": data, "methods": ["linear"], "train": {"epochs": 1}},
            "axes": {"optim.lr": {"float": [0.01, 0.1]}, **axes},
            "budget": {"trials": 2},
        }
    )


class TestCargo:
    def test_is_what_a_node_needs(self, tmp_path: Path) -> None:
        cfg = make("folder", tmp_path / "root")
        cargo = cargo_of(space(cfg.root), tmp_path / "cache")
        [manifest] = cargo.manifests.values()
        assert all(path.stat().st_size == cargo.sizes[name] for name, path in cargo.files.items())
        handle = Handle(Sender(cargo.files))
        data = open_manifest(manifest, tmp_path / "b", fetch=Fetcher(handle, cargo.sizes))
        assert data.num_classes == 3 and data.img_size == 32

    def test_what_comes_with_the_package_is_not_sent(self, tmp_path: Path) -> None:
        cargo = cargo_of(space(None), tmp_path / "cache")
        assert not (cargo.files or cargo.manifests or cargo.bundles)

    def test_every_pair_of_values_is_there(self) -> None:
        parts = parts_to_send(
            space(
                "/data",
                **{
                    "data.split_seed": {"int": [0, 3]},
                    "backbone.img_size": {"choice": [32, 40, 48]},
                    "data.erase_prob": {"float": [0.0, 0.5]},
                },
            )
        )
        found = {(data.split_seed, backbone.img_size) for data, backbone in parts}
        assert found == {(seed, size) for seed in range(4) for size in (32, 40, 48)}
        assert len(parts) == len(found)

    @pytest.mark.parametrize("axis", [{"float": [0.1, 0.5]}, {"float": [0.1, 0.5], "step": 0.001}])
    def test_ever_new_data_sets_are_refused_by_name(self, axis: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="--ship-data: axis data.val_fraction has"):
            parts_to_send(space("/data", **{"data.val_fraction": axis}))


def test_a_pack_worker_is_sent_what_it_lacks_and_trains_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "driver"))
    cfg = make("folder", tmp_path / "root")
    weights = tmp_path / "w.safetensors"
    shutil.copy(weights_path(BackboneConfig()), weights)
    asked = space(cfg.root, **{"backbone.weights": {"choice": [str(weights)]}})
    [config] = asked.trials[:1]
    prints = fingerprints_of([config])
    needs = Needs(data=[config.data], backbones=[config.backbone], fingerprints=prints)
    cargo = cargo_of(asked, None)
    handle = Handle(Sender(cargo.files))
    offer = Offer(Fetcher(handle, cargo.sizes), cargo.manifests, cargo.bundles)

    def trained(study: str, cache: str, offer: Offer | None) -> tuple[float | None, float | None]:
        spec = WorkerSpec(
            study_dir=tmp_path / study, cache_dir=tmp_path / cache, factory=FACTORY,
            count=1, slots=1, num_cpus=1, num_gpus=0, env={}, needs=needs, offer=offer,
        )  # fmt: skip
        worker: Any = PackWorker(spec, Place("hostb", "cpu", 1))
        found = worker.fingerprints(needs.data, needs.backbones)
        assert needs.files_fault(found) == ""
        worker.expect(found)
        worker._worker.take(
            Submit(trial="a", params=config.flat(), until_epoch=1, test_at_end=True)
        )
        events: list[Event] = []
        while not worker._worker.idle:
            events += worker._worker.work()
        [ended] = [event.result for event in events if isinstance(event, Ended)]
        assert ended.status == "completed", ended.reason
        return ended.test_loss, ended.val_loss

    there = trained("a", "there", None)
    assert not handle.asked
    shutil.rmtree(tmp_path / "root")
    moved = weights.rename(tmp_path / "moved")
    handle.sender._files = {n: moved if p == weights else p for n, p in cargo.files.items()}
    assert trained("b", "here", offer) == there
    [said] = asyncio.run(handle.sender.news())
    assert "has no data and no weights of this study" in said
    sent = len(handle.asked)
    assert trained("c", "here", offer) == there and len(handle.asked) == sent
