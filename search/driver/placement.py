"""Where the trials of a study run; changes no result."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where trials run; changes no result."""

    address: str | None = None
    """Ray cluster; None starts one on this machine."""
    workers: int | None = None
    """Pack workers; None: one per GPU, or one per CPU where there is no GPU."""
    slots: int | None = None
    """Trials that one worker holds at once; None: as many as still raise
    throughput (see `search.driver.concurrency`)."""
    cache_dir: Path | None = None
    worker_factory: str = "tcpa_core.training.worker:Worker"
