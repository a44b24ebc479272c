"""A checkpoint is read back exactly, or refused; it is never silently wrong."""

from pathlib import Path

import pytest
import torch

from tcpa_core.errors import CheckpointError, StorageError
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "trial" / "last.safetensors"
    save_checkpoint(path, {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(1)}, {"epoch": 3})
    return path


def test_round_trip(saved: Path) -> None:
    tensors, info = load_checkpoint(saved)
    assert info["epoch"] == 3
    assert torch.equal(tensors["a"], torch.arange(6.0).view(2, 3))
    assert [p.name for p in saved.parent.iterdir()] == [saved.name], "no temporary file stays"


def test_every_flipped_byte_is_noticed(saved: Path) -> None:
    """No flipped byte changes tensors or values unnoticed."""
    good_tensors, good_info = load_checkpoint(saved)
    data = saved.read_bytes()
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 1
        saved.write_bytes(bytes(broken))
        try:
            tensors, info = load_checkpoint(saved)
        except CheckpointError:
            continue
        same = all(torch.equal(tensors[k], good_tensors[k]) for k in good_tensors)
        assert same and info == good_info, f"byte {position} changed the content unnoticed"


@pytest.mark.parametrize("length", [0, 5, 100, -3])
def test_torn_file(saved: Path, length: int) -> None:
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        load_checkpoint(saved)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors is no readable"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


def test_pickle_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        load_checkpoint(path)


def test_failed_write_keeps_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tcpa_core.record.whole_file.os.fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        save_checkpoint(saved, {"a": torch.zeros(1)}, {"epoch": 4})
    assert load_checkpoint(saved)[1]["epoch"] == 3
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
