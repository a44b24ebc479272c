"""Names that Ray keeps to itself and this package needs; those of Ray Tune are in `search.tune`.

`tests/search/test_private_names_of_ray.py` says which of them a new version has moved.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ray._private import ray_constants
from ray._private import worker as ray_worker

SCRATCH_OPTION = "_temp_dir"
"""Argument of `ray.init`: the folder of a cluster's sockets and logs."""


def silence_node_messages() -> None:
    """Keep Ray from printing what happens to workers and nodes.

    It prints past its loggers, 25 lines for a lost node; what matters of it is an event of ours.
    """
    ray_worker.print_to_stdstream = lambda *_, **__: None


@contextmanager
def loopback_only() -> Iterator[None]:
    """Let a cluster that starts here listen on 127.0.0.1, as Ray does on macOS.

    Ray 2.60 replaces a loopback address given to `ray.init` by the machine's own and listens on all
    interfaces. Its switch is an environment variable, read when Ray is imported; processes that it
    starts read it again.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a while: processes that are started meanwhile inherit them."""
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
