"""The pack size is measured, remembered, and bound by memory."""

import json
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

    def step(pack: Pack, configs: list[TrialConfig]) -> float:
        tried.append(len(configs))
        if len(configs) not in seconds:
            raise MemoryError("too much")
        return seconds[len(configs)]

    monkeypatch.setattr(tcpa_core.training.probe, "_fastest_step", step)
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
