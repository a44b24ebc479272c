"""The pack size is measured, remembered, and bound by memory."""

import json
import os
import time
from pathlib import Path

import pytest
import torch

import tcpa_core.training.probe
from tcpa_core.chain import pack_capacity
from tcpa_core.config import TrialConfig
from tcpa_core.errors import OutOfMemoryError
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig
from tcpa_core.training.pack import Pack
from tcpa_core.training.probe import pack_size
from tcpa_core.training.trial_data import load_trial_data


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    backbone = load_backbone(BackboneConfig())
    cache = tmp_path_factory.mktemp("cache")
    return Pack(backbone, load_trial_data(config(), backbone, cache_dir=cache))


def config(methods: tuple[str, ...] = ("vpt",)) -> TrialConfig:
    return TrialConfig.from_flat({"methods": list(methods), "train.batch_size": 4})


def set_speed(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> list[int]:
    """Let a step of n members take seconds[n]; the sizes that were tried."""
    tried: list[int] = []

    def steps(pack: Pack, configs: list[TrialConfig]) -> list[float]:
        tried.append(len(configs))
        if len(configs) not in seconds:
            raise MemoryError("too much")
        return [seconds[len(configs)]]

    monkeypatch.setattr(tcpa_core.training.probe, "_timed_steps", steps)
    return tried


def test_it_stops_where_doubling_gains_nothing(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = set_speed(monkeypatch, {1: 1.0, 2: 1.1, 4: 1.3, 8: 2.6})
    found = pack_size(pack, config(), cache_dir=tmp_path)
    assert found.members == 4
    assert tried == [1, 2, 4, 8]
    assert found.images_per_s[4] == pytest.approx(16 / 1.3)


def test_it_is_measured_once(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = set_speed(monkeypatch, {1: 1.0, 2: 2.0})
    first = pack_size(pack, config(), cache_dir=tmp_path)
    assert pack_size(pack, config(), cache_dir=tmp_path) == first
    assert tried == [1, 2]
    pack_size(pack, config(("tcpa",)), cache_dir=tmp_path)
    assert tried == [1, 2, 1, 2]


def test_a_damaged_record_is_measured_again(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = set_speed(monkeypatch, {1: 1.0, 2: 2.0})
    pack_size(pack, config(), cache_dir=tmp_path)
    (record,) = (tmp_path / "packs").iterdir()
    record.write_text(record.read_text()[:-5])
    pack_size(pack, config(), cache_dir=tmp_path)
    assert tried == [1, 2, 1, 2]
    assert json.loads(record.read_text())["members"] == 1


def test_memory_bounds_it(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_speed(monkeypatch, {1: 1.0, 2: 1.0, 4: 1.0})
    assert pack_size(pack, config(), cache_dir=tmp_path).members == 4
    used = iter([0, 100, 220, 440])
    monkeypatch.setattr(tcpa_core.training.probe, "held_bytes", lambda device: next(used))
    monkeypatch.setattr(tcpa_core.training.probe, "free_bytes", lambda device: 500)
    found = pack_size(pack, config(), cache_dir=tmp_path / "other")
    assert found.members == 2, "four members need 440 of the 400 bytes that may be used"


def test_not_even_one_fits(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_speed(monkeypatch, {})
    with pytest.raises(OutOfMemoryError, match=r"train.batch_size=4: too much"):
        pack_size(pack, config(), cache_dir=tmp_path)


def test_a_real_probe_leaves_the_pack_as_it_was(pack: Pack, tmp_path: Path) -> None:
    before = {name: p.clone() for name, p in pack.backbone.named_parameters()}
    found = pack_size(pack, config(), cache_dir=tmp_path)
    assert found.members >= 1
    assert all(speed > 0 for speed in found.images_per_s.values())
    for name, parameter in pack.backbone.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_methods_that_train_the_backbone_are_alone(pack: Pack, tmp_path: Path) -> None:
    alone = config(("full",))
    assert pack_capacity(alone) == 1
    assert pack_size(pack, alone, cache_dir=tmp_path).members == 1
    assert not (tmp_path / "packs").exists()


class Card:
    """What torch's functions say of a GPU whose packs take 10 bytes a member and 5 more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.allocated, self.peak = 1000, 100, 5000
        probe = tcpa_core.training.probe
        monkeypatch.setattr(probe, "free_bytes", lambda _: self.free)
        monkeypatch.setattr(probe, "reset_peak", self._reset)
        monkeypatch.setattr(probe, "held_bytes", lambda _: self.peak)
        monkeypatch.setattr(probe, "_timed_steps", self._steps)
        self.tried: list[int] = []
        self.seconds = 0.1

    def _reset(self, device: torch.device) -> None:
        self.peak = self.allocated

    def _steps(self, pack: Pack, configs: list[TrialConfig]) -> list[float]:
        self.tried.append(len(configs))
        self.peak = max(self.peak, self.allocated + 10 * len(configs) + 5)
        return [self.seconds, self.seconds]


def test_every_size_has_a_peak_of_its_own(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the device has held before."""
    card = Card(monkeypatch)
    card.free = 100
    found = pack_size(pack, config(), cache_dir=tmp_path)
    assert (found.members, found.bytes_per_member, found.is_full) == (4, 11, True)
    assert card.tried == [1, 2, 4], "eight would take 88 of the 80 bytes that may be used"


def test_what_memory_has_bounded_is_measured_again_where_more_is_free(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(monkeypatch)
    card.free = 20  # beside another user
    assert pack_size(pack, config(), cache_dir=tmp_path).members == 1
    card.free = 24
    assert pack_size(pack, config(), cache_dir=tmp_path).members == 1 and card.tried == [1]
    card.free = 1000
    assert pack_size(pack, config(), cache_dir=tmp_path).members == 64
    assert card.tried == [1, 1, 2, 4, 8, 16, 32, 64]


def test_less_free_memory_than_at_the_probe_means_fewer_members(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(monkeypatch)
    assert pack_size(pack, config(), cache_dir=tmp_path).members == 64
    card.free = 250
    assert pack_size(pack, config(), cache_dir=tmp_path).members == 16
    assert pack_size(pack, config(), cache_dir=tmp_path, share=0.5).members == 8
    card.free = 1
    assert pack_size(pack, config(), cache_dir=tmp_path).members == 1
    assert len(card.tried) == 7


def test_a_record_ages(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch)
    card.seconds = 3.0
    pack_size(pack, config(), cache_dir=tmp_path)
    assert card.tried == [1], "the timed steps took too long for another size"
    (record,) = (tmp_path / "packs").iterdir()
    old = time.time() - tcpa_core.training.probe.MAX_AGE_S
    os.utime(record, (old + 60, old + 60))
    pack_size(pack, config(), cache_dir=tmp_path)
    assert card.tried == [1]
    os.utime(record, (old - 60, old - 60))
    pack_size(pack, config(), cache_dir=tmp_path)
    assert card.tried == [1, 1]
