"""What a cluster consists of, and whether it still answers."""

import threading
import time
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

POLL_S = 2.0
"""Time between two counts, which find the nodes that have joined."""


class Devices:
    """Counts the cluster's GPUs, CPUs and nodes every two seconds, as long as its head answers.

    In a thread of its own: without a head the question hangs until Ray ends the process.
    """

    def __init__(self) -> None:
        # In the caller's thread first: whoever starts workers needs numbers at once.
        self.gpus, self.cpus = self._ask()
        """As of the last answer. Ray counts GPUs that torch may not be able to use."""
        self.nodes: list[dict[str, Any]] = []
        """As of `ray.nodes`."""
        self._answered = time.monotonic()
        self._ended = threading.Event()
        # Never joined: it may hang in its question for as long as this process lives.
        threading.Thread(target=self._work, name="devices", daemon=True).start()

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._answered

    def close(self) -> None:
        """Ask no more."""
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.wait(POLL_S):
            with suppress(RayError):  # cut off, perhaps for a while: `silent_s` tells
                self.gpus, self.cpus = self._ask()
                self._answered = time.monotonic()
                if not self._ended.is_set():  # Ray starts a cluster for who asks without one
                    self.nodes = ray.nodes()

    @staticmethod
    def _ask() -> tuple[int, int]:
        found = ray.cluster_resources()
        return int(found.get("GPU", 0.0)), int(found.get("CPU", 0.0))
