"""The head of the cluster while a study runs: whether it answers, is only silent, or is gone."""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray.exceptions import GetTimeoutError, RayError

from search.driver.cluster_address import OPTION, host_and_port
from search.ray_internals import node_patience_s

TOLD_S = 20.0
"""Silence of which the user reads."""
TCP_S = 30.0
"""What connections need after a cut: they send again after pauses that have doubled meanwhile."""
CONNECT_S = 2.0
LOOK_S = 0.5
"""Between two looks while workers start."""


class Head:
    """Waits for a head that is silent, as long as Ray itself would take this machine back.

    A cut of 25 s costs nothing. One of about a minute is the end: the head has then given up the
    node of this driver, and all that it had started (Ray 2.60, measured).

    Args:
        address: HOST:PORT.
        silent_s: Seconds since it last answered.
        say: Called with a sentence for the user.
    """

    def __init__(
        self, address: str, silent_s: Callable[[], float], say: Callable[[str], None]
    ) -> None:
        self._address = address
        self._silent_s = silent_s
        self._say = say
        self._longest_s = 0.0
        """Of the silence that the user has read of; 0: there is none."""
        self._heard_again = -math.inf
        """When a silence ended last."""
        self.patience_s = node_patience_s() + TCP_S
        """Of a silence that may end."""

    def look(self) -> bool:
        """Tell the user of a silence, and of its end.

        Returns:
            Whether it is silent.

        Raises:
            GetTimeoutError: The head is gone, or was silent for too long.
        """
        silent_s = self._silent_s()
        if silent_s < TOLD_S:
            if self._longest_s:
                self._say(
                    f"the cluster at {self._address} answers again after {self._longest_s:.0f} s"
                )
                self._heard_again = time.monotonic()
            self._longest_s = 0.0
            return False
        if self._listens() is False:
            raise GetTimeoutError(f"its head is gone: nothing listens at {self._address} any more")
        if silent_s > self.patience_s:
            raise self._unreachable(silent_s)
        if not self._longest_s:
            self._say(f"no answer from the cluster at {self._address} for {TOLD_S:.0f} s; waiting")
        self._longest_s = silent_s
        return True

    def explained(self, err: RayError) -> RayError:
        """The error, or what it comes from: a head that is silent, or gave this machine up."""
        just_now = time.monotonic() - self._heard_again < TOLD_S
        if isinstance(err, GetTimeoutError) or not (self._longest_s or just_now):
            return err
        # Ray's own processes wait a minute for a head and end.
        if self._longest_s and not self._listens():
            return self._unreachable(self._silent_s())
        return GetTimeoutError(
            f"the head at {self._address} has given up the node of this machine, which was cut off "
            f"for too long; type here: ray stop; ray start --address={self._address}"
        )

    def _unreachable(self, silent_s: float) -> GetTimeoutError:
        return GetTimeoutError(
            f"no answer from {self._address} for {silent_s:.0f} s: its machine or the network "
            "between is down"
        )

    def _listens(self) -> bool | None:
        """Whether something listens there; False: its machine says no, None: nobody answers."""
        try:
            with socket.create_connection(host_and_port(self._address, OPTION), CONNECT_S):
                return True
        except ConnectionRefusedError:
            return False
        except OSError:
            return None


@contextmanager
def watched(head: Head, lose: Callable[[RayError], None]) -> Iterator[None]:
    """Look at the head in a thread, where the main thread asks things of it without a limit.

    Args:
        lose: Called once with what has become of it, if it is gone or was silent for too long.
    """
    left = threading.Event()

    def watch() -> None:
        while not left.wait(LOOK_S):
            try:
                head.look()
            except RayError as err:
                lose(err)
                return

    thread = threading.Thread(target=watch, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()
