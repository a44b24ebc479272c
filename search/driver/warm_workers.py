"""Worker processes that outlive a study: a command that runs several keeps them for the next.

To start one takes ten seconds of a core, most of it to load torch, which for a short study is more
than the training.
"""

from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from search.workers.pack_worker import WorkerSpec
from search.workers.shell import PULSE
from search.workers.worker_handle import start_worker

ANSWER_S = 10.0
"""How long a process may take to say that it still lives."""


class WarmWorkers:
    """The worker processes of a command that runs several studies, one after the other.

    They belong to the driver, not to a study's dispatcher, and end with the driver's Ray.
    """

    def __init__(self) -> None:
        self._actors: list[Any] = []
        self._shape: tuple[float, float] = (0.0, 0.0)

    def take(self, spec: WorkerSpec) -> tuple[Any, ...]:
        """Actors for the workers of a study; those that have died or hang are replaced.

        Args:
            spec: How its workers are made.
        """
        shape = (spec.num_cpus, spec.num_gpus)
        if shape != self._shape:
            self._kill(self._actors)
            self._actors, self._shape = [], shape
        alive = [one for one in self._actors if _answers(one)]
        self._kill([one for one in self._actors if one not in alive])
        alive += [start_worker(spec, {}).actor for _ in range(spec.count - len(alive))]
        self._kill(alive[spec.count :])
        self._actors = alive[: spec.count]
        return tuple(self._actors)

    @staticmethod
    def _kill(actors: list[Any]) -> None:
        for actor in actors:
            ray.kill(actor)


def _answers(actor: Any) -> bool:
    with suppress(RayError, GetTimeoutError):
        ray.get(actor.pulse.options(concurrency_group=PULSE).remote(), timeout=ANSWER_S)
        return True
    return False
