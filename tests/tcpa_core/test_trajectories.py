"""The losses of every method are those of the last version, see scripts/trajectories.py."""

import json
from pathlib import Path

import pytest
import torch

from scripts.trajectories import machine, trajectory, write_images

KEPT = json.loads((Path(__file__).parent / "trajectories.json").read_text())
CLOSE = 1e-3
"""Relative difference that other processors or versions of torch may make in two epochs."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trajectories")
    write_images(folder / "images")
    return folder


@pytest.mark.parametrize("method", KEPT["trajectories"])
def test_the_losses_of_a_method_have_not_changed(method: str, folder: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = trajectory(method, folder / "images", folder / "cache")
    finally:
        torch.set_num_threads(threads)
    kept = KEPT["trajectories"][method]
    if machine() == KEPT["machine"]:
        assert found == kept, "to the last bit"
    losses = [[float.fromhex(epoch["val_loss"]) for epoch in run] for run in (found, kept)]
    assert losses[0] == pytest.approx(losses[1], rel=CLOSE)
