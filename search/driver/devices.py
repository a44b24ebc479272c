"""How many GPUs or CPUs a cluster has, and whether it still answers."""

import threading
import time
from contextlib import suppress

import ray
from ray.exceptions import RayError

POLL_S = 2.0
"""Time between two counts, which find the nodes that have joined."""


class Devices:
    """Counts the cluster's GPUs or CPUs every two seconds, as long as Ray's head answers.

    In a thread of its own: without a head the question hangs until Ray ends the process.

    Args:
        resource: "GPU" or "CPU".
    """

    def __init__(self, resource: str) -> None:
        self._resource = resource
        # In the caller's thread first: whoever starts workers needs a number at once.
        self.count = self._ask()
        """As of the last answer."""
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
        with suppress(RayError):  # the cluster is gone: `silent_s` tells
            while not self._ended.wait(POLL_S):
                self.count = self._ask()
                self._answered = time.monotonic()

    def _ask(self) -> int:
        return int(ray.cluster_resources().get(self._resource, 0.0))
