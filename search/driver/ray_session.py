"""A Ray connection for the length of a study."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from search.driver.cluster_address import OPTION, ClusterAddress
from search.driver.cluster_check import check_cluster
from search.driver.signals import announcements_blocked, put_off
from search.ray_internals import (
    SCRATCH_OPTION,
    environment,
    find_dead_connections,
    loopback_only,
    outlive_head,
    sigterm_left_alone,
    silence_node_messages,
)
from tcpa_core.errors import StoppedError, StudyError
from tcpa_core.training.allocator import WORKER_ENV

# Read by Ray when it starts, some by every process of it; a user's own values count.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

_OBJECT_STORE_BYTES = 100 * 2**20
"""Nothing large travels between processes; Ray's default is a third of the memory."""


@contextmanager
def connect(address: str | None, num_cpus: int, source: str = OPTION) -> Iterator[None]:
    """A quiet Ray connection, closed in the end; one that is open already is used and left open.

    Args:
        address: A running cluster; None starts one on this machine, on the loopback interface.
        num_cpus: Of the cluster that is started.
        source: Where the address comes from, for messages.

    Raises:
        StudyError: No cluster answers, or this machine has no part in it.
        StoppedError: None could be started.
    """
    # Whoever opened the connection (a test, a notebook, another study) closes it.
    if ray.is_initialized():
        yield
        return
    if address:
        check_cluster(ClusterAddress(address, source))
        find_dead_connections()
        outlive_head()
    scratch = None if address else tempfile.mkdtemp(prefix="tcpa-ray-", dir=_short_folder())
    try:
        # A half-started Ray would be left behind; it takes SIGTERM for itself as well.
        with put_off("Ray has started"), sigterm_left_alone():
            _start(address, num_cpus, source, scratch)
        yield
    finally:
        ray.shutdown()
        # Ray leaves the logs of every cluster behind.
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _start(address: str | None, num_cpus: int, source: str, scratch: str | None) -> None:
    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised or recorded
    silence_node_messages()
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        if address:
            ray.init(address=address, **quiet)
            return
        # The environment is inherited; a runtime_env would cost seconds at the start. A terminal
        # that closes and `timeout -s USR1` reach all processes: the driver's alone acts on it.
        with environment(WORKER_ENV), loopback_only(), announcements_blocked():
            ray.init(
                address="local",
                num_cpus=num_cpus,
                num_gpus=_mig_slices(),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **{SCRATCH_OPTION: scratch},
                **quiet,
            )
    except Exception as err:  # bare ones, too: "The current node timed out during startup"
        why = str(err).splitlines()[0] if str(err) else type(err).__name__
        if address:
            raise StudyError(
                f"{source}: the cluster at {address} answers, but Ray cannot join it ({why}); see "
                "'ray status' on a machine of it, or leave the address out."
            ) from err
        raise StoppedError(f"Ray does not start on this machine ({why}); try again.") from err


def _mig_slices() -> int | None:
    """Slices of GPUs that this process may use; None: Ray counts, which it does in whole cards."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return sum(one.startswith("MIG-") for one in visible) or None


def _short_folder() -> str:
    """Ray's socket names may be 107 bytes long, which a deep temporary folder exceeds."""
    return "/tmp" if os.access("/tmp", os.W_OK) else str(Path(tempfile.gettempdir()))
