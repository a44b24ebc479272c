"""The stub worker of the search's tests, which can also be held at a chosen point.

`stub.json` of the study may say `{"hold": {"trial": T, "epoch": E, "saved": true}}`: the worker
then writes the file `held` there and waits, before or after the checkpoint of that epoch, until it
is killed or the file `release` appears.
"""

import time
from pathlib import Path

from tests.search.stub import StubWorker


class HeldWorker(StubWorker):
    """Waits where it is told to, so that a fault can strike at a chosen point."""

    def _misbehave(self, trial: str, epoch: int, after_saving: bool = False) -> None:
        super()._misbehave(trial, epoch, after_saving)
        hold = self._plan.get("hold")
        if hold != {"trial": trial, "epoch": epoch, "saved": after_saving}:
            return
        if (self._study / "release").exists():
            return
        (self._study / "held").touch()
        while not (self._study / "release").exists():
            time.sleep(0.02)


def make_worker(study_dir: Path, cache_dir: Path | None, device: str) -> HeldWorker:
    """What `Placement.worker_factory` names."""
    return HeldWorker(study_dir, cache_dir, device)
