"""A Ray connection for the length of a study, and what Ctrl-C does meanwhile."""

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray.exceptions import RayError

from tcpa_core.errors import StudyError
from tcpa_core.training.allocator import WORKER_ENV

LOOK_S = 2.0
"""Time between two looks at a cluster for nodes that have joined."""

_OBJECT_STORE_BYTES = 100 * 2**20
"""Nothing large travels between processes; Ray's default is a third of the memory."""


@contextmanager
def connect(address: str | None, num_cpus: int) -> Iterator[None]:
    """A quiet Ray connection, closed in the end; one that is open already is used and left open.

    Args:
        address: A running cluster; None starts one on this machine, on the loopback interface.
        num_cpus: Of the cluster that is started.

    Raises:
        StudyError: No cluster answers, or none could be started.
    """
    if ray.is_initialized():
        yield
        return
    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised or recorded
    # Ray prints what happens to workers and nodes past its loggers, 25 lines for a lost node.
    ray_worker.print_to_stdstream = lambda *_, **__: None
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    scratch = None if address else tempfile.mkdtemp(prefix="tcpa-ray-", dir=_short_folder())
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            # The environment is inherited; a runtime_env would cost seconds at the start.
            with _environment(WORKER_ENV), _loopback_only():
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _temp_dir=scratch,
                    **quiet,
                )
    except Exception as err:  # bare ones, too: "The current node timed out during startup"
        why = str(err).splitlines()[0] if str(err) else type(err).__name__
        hint = "start one with 'ray start --head' or leave it out" if address else "try again"
        raise StudyError(
            f"--address: no Ray cluster at {address or 'this machine'} ({why}); {hint}."
        ) from err
    try:
        yield
    finally:
        ray.shutdown()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


class Devices:
    """Counts the cluster's GPUs or CPUs every two seconds, as long as Ray's head answers.

    In a thread of its own: without a head the question hangs until Ray ends the process.

    Args:
        resource: "GPU" or "CPU".
    """

    def __init__(self, resource: str) -> None:
        self._resource = resource
        self.count = self._ask()
        """As of the last answer."""
        self._answered = time.monotonic()
        self._ended = threading.Event()
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
            while not self._ended.wait(LOOK_S):
                self.count = self._ask()
                self._answered = time.monotonic()

    def _ask(self) -> int:
        return int(ray.cluster_resources().get(self._resource, 0.0))


@contextmanager
def on_interrupt(interrupt: Callable[[str], None]) -> Iterator[None]:
    """Call `interrupt` with a reason on the first Ctrl-C or SIGTERM; the second ends at once.

    Only in the main thread; elsewhere signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for name in old:
            signal.signal(name, signal.SIG_DFL)
        interrupt(f"interrupted by {signal.Signals(number).name}")

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Let a cluster that starts here listen on 127.0.0.1, as Ray does on macOS.

    Ray 2.60 replaces a loopback address given to `ray.init` by the machine's own and listens on all
    interfaces. Its switch is an environment variable, read when Ray is imported; processes that it
    starts read it again.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _short_folder() -> str:
    """Ray's socket names may be 107 bytes long, which a deep temporary folder exceeds."""
    return "/tmp" if os.access("/tmp", os.W_OK) else str(Path(tempfile.gettempdir()))
