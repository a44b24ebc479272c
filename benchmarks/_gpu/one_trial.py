"""A process that trains one trial, as a search without packs starts one for each.

It tells when every epoch has ended and with what, one JSON value a line.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from tcpa_core.config import Flat
from tcpa_core.record.values import EpochReport


@contextmanager
def process(flat: Flat, device: str, cache: Path, folder: Path | None) -> Iterator[Popen[str]]:
    """Such a process; it is ended on the way out if it has not ended by itself.

    Args:
        flat: Settings of the trial.
        device: A torch device.
        cache: Decoded images.
        folder: Of its checkpoints; None: none are written.
    """
    job = json.dumps({"flat": flat, "device": device, "cache": str(cache)})
    command = [sys.executable, "-m", "benchmarks._gpu.one_trial", job, str(folder or "")]
    with Popen(command, stdout=PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def lines(started: Popen[str]) -> Iterator[Any]:
    """What it says, as it says it."""
    assert started.stdout is not None
    for text in started.stdout:
        if text.startswith("{"):
            yield json.loads(text)


def main() -> None:
    """Train and test the trial."""
    from tcpa_core.training.run_trial import run_trial

    job = json.loads(sys.argv[1])

    def on_epoch(report: EpochReport) -> None:
        print(json.dumps({"at": time.time(), "report": asdict(report)}), flush=True)

    result = run_trial(
        job["flat"],
        on_epoch=on_epoch,
        folder=Path(sys.argv[2]) if sys.argv[2] else None,
        cache_dir=Path(job["cache"]),
        device=job["device"],
    )
    if result.status != "completed":
        sys.exit(f"the trial ended as {result.status}: {result.reason}")


if __name__ == "__main__":
    main()
