"""A dispatcher with stub workers, spoken to as the driver does."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import ray

from search.workers.dispatcher import Dispatcher
from search.workers.pack_worker import WorkerSpec
from search.workers.quarantine import PAUSE_S
from tcpa_core.record.events import Planned

FACTORY = "tests.search.stub:make_worker"
TIMEOUT_S = 60


def get(reference: Any) -> Any:
    """What an actor answers; a hang is an error."""
    return ray.get(reference, timeout=TIMEOUT_S)


PARAMS = {"train.epochs": 4, "optim.lr": 0.01, "seed": 0}


def planned(trial: str) -> Planned:
    return Planned(trial=trial, params=PARAMS, digest="d", point="p", origin="sampler", draw={})


class Client:
    """A dispatcher with everything that it has reported."""

    def __init__(
        self,
        folder: Path,
        *,
        count: int = 1,
        slots: int = 2,
        num_gpus: float = 0.0,
        aside_s: float = PAUSE_S,
        **orders: Any,
    ) -> None:
        (folder / "stub.json").write_text(json.dumps({"slots": slots, **orders}))
        spec = WorkerSpec(
            study_dir=folder,
            cache_dir=None,
            factory=FACTORY,
            count=count,
            slots=slots,
            num_cpus=1,
            num_gpus=num_gpus,
            env={},
            aside_s=aside_s,
        )
        self.actor = ray.remote(Dispatcher).options(num_cpus=0, max_concurrency=100).remote(
            spec, ["val_accuracy"], False
        )  # fmt: skip
        self.events: list[dict[str, Any]] = []
        get(self.actor.start.remote())

    def advance(self, trial: str, until: int) -> Any:
        return self.actor.advance.remote(planned(trial), until)

    def epochs(self, trial: str) -> list[int]:
        self.read()
        return [e["epoch"] for e in self.events if (e["kind"], e.get("trial")) == ("epoch", trial)]

    def kinds(self) -> Counter[str]:
        self.read()
        return Counter(e["kind"] for e in self.events)

    def read(self) -> str | None:
        events, fault = get(self.actor.next_events.remote(0.0))
        self.events += [event.as_dict() for event in events]
        return fault

    def close(self) -> None:
        """End the workers and the dispatcher."""
        try:
            get(self.actor.halt.remote())
        finally:
            ray.kill(self.actor)
