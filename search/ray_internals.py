"""Names that Ray keeps to itself and this package needs; those of Ray Tune are in `search.tune`.

`tests/search/test_private_names_of_ray.py` says which of them a new version has moved.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
from ray._private import ray_constants, services
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.gcs_utils import GcsNodeInfo
from ray._raylet import Config, GcsClient  # type: ignore[attr-defined]
from ray.core.generated import autoscaler_pb2, common_pb2

from search.workers.cluster_view import MARK, NODE_ID, ClusterView, Node, Request

SCRATCH_OPTION = "_temp_dir"
"""Argument of `ray.init`: the folder of a cluster's sockets and logs."""


def silence_node_messages() -> None:
    """Keep Ray from printing what happens to workers and nodes.

    It prints past its loggers, 25 lines for a lost node; what matters of it is an event of ours.
    """
    ray_worker.print_to_stdstream = lambda *_, **__: None


@contextmanager
def sigterm_left_alone() -> Iterator[None]:
    """Keep `ray.init` from handling SIGTERM, which would end the process amid its start."""
    before = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = before


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


_KEPT = "tcpa"
"""Where the head keeps what studies tell each other."""


def cluster_view() -> ClusterView:
    """What the cluster's head knows of nodes and of what waits for them; 0.4 to 3 ms.

    Raises:
        Exception: The head does not answer; of a class that Ray does not promise.
    """
    reply = autoscaler_pb2.GetClusterResourceStateReply()
    reply.ParseFromString(ray_worker.global_worker.gcs_client.get_cluster_resource_state())
    state = reply.cluster_resource_state
    gone = (autoscaler_pb2.NodeStatus.DEAD, autoscaler_pb2.NodeStatus.DRAINING)
    alive = {one.node_id.hex(): one for one in state.node_states if one.status not in gone}
    nodes = {
        name: Node(dict(one.total_resources), dict(one.available_resources))
        for name, one in alive.items()
    }
    labels = {name: {**one.labels, NODE_ID: name} for name, one in alive.items()}
    requests = [
        _request([one.request], labels, one.count) for one in state.pending_resource_requests
    ]
    for gang in state.pending_gang_resource_requests:
        bundles = next((one.resource_requests for one in gang.bundle_selectors), gang.requests)
        requests.append(_request(bundles, labels, strategy=gang.details.partition(":")[2]))
    # What runs inside a group that waits is no request of its own.
    return ClusterView(nodes, [one for one in requests if not _is_in_group(one)])


def kept_by_head() -> dict[str, bytes]:
    """What studies have told each other, by their names.

    Raises:
        Exception: As `cluster_view`.
    """
    gcs, kept = ray_worker.global_worker.gcs_client, _KEPT.encode()
    keys = gcs.internal_kv_keys(b"", kept)
    found = gcs.internal_kv_multi_get(keys, kept) if keys else {}
    return {key.decode(): value for key, value in found.items()}


def keep_in_head(name: str, value: bytes | None) -> None:
    """Tell other studies something, in place of what was told before; None: nothing any more.

    Raises:
        Exception: As `cluster_view`.
    """
    gcs, key, kept = ray_worker.global_worker.gcs_client, name.encode(), _KEPT.encode()
    if value is None:
        gcs.internal_kv_del(key, False, kept)
    else:
        gcs.internal_kv_put(key, value, True, kept)


def _request(
    bundles: Iterable[Any],
    labels: Mapping[str, Mapping[str, str]],
    count: int = 1,
    strategy: str = "",
) -> Request:
    bundles = list(bundles)
    shapes = [dict(one.resources_bundle) for one in bundles]
    if strategy.startswith("STRICT_PACK"):
        names = {name for shape in shapes for name in shape}
        shapes = [{name: sum(shape.get(name, 0.0) for shape in shapes) for name in names}]
    # Alternatives, of which one has to hold; what it says of the study is in each.
    selectors = [one.label_constraints for one in bundles[0].label_selectors]
    excluded = frozenset(
        node
        for node, has in labels.items()
        if selectors and not any(all(_holds(part, has) for part in one) for one in selectors)
    )
    marks = {
        value
        for one in selectors
        for part in one
        for value in part.label_values
        if part.label_key == NODE_ID and value.startswith(MARK)
    }
    return Request(
        shapes, count, strategy.startswith("STRICT_SPREAD"), excluded, next(iter(marks), "")
    )


def _holds(constraint: Any, labels: Mapping[str, str]) -> bool:
    is_in = labels.get(constraint.label_key) in constraint.label_values
    excludes = common_pb2.LABEL_OPERATOR_NOT_IN
    return is_in != (constraint.operator == excludes)


def _is_in_group(request: Request) -> bool:
    return any("_group_" in name for shape in request.shapes for name in shape)


def cluster_of_this_machine() -> str | None:
    """HOST:PORT of the head of the cluster that was started here last; None: there is none.

    What "auto" means to `ray.init`; $RAY_ADDRESS is read by `search.driver.cluster_address`.
    """
    found = services.find_bootstrap_address(None)
    running = sorted(services.find_gcs_addresses())
    return found or (running[0] if running else None)


def without_loopback(host: str) -> str:
    """The host, with this machine's own address for a loopback one, as `ray.init` takes it."""
    return str(services.resolve_ip_for_localhost(host))


def head_answer(address: str, timeout_s: float) -> dict[str, Any]:
    """What the head of a cluster says of itself, asked without joining it.

    Ray retries for 40 s where nobody answers, prints, and may end the process: to be called in one
    of its own.

    Args:
        address: HOST:PORT.
        timeout_s: Of each question once the head has answered the first.

    Returns:
        "ray", "python": its versions; "is_here": whether a node of it runs on this machine.

    Raises:
        RayError: It refuses to answer, as where a token is missing or wrong.
    """
    head = GcsClient(address=address)
    told = head.internal_kv_get(CLUSTER_METADATA_KEY, ray_constants.KV_NAMESPACE_CLUSTER, timeout_s)
    versions = json.loads(told) if told else {}
    here = set(services.find_node_ids())
    nodes = head.get_all_node_info(timeout=timeout_s, state_filter=GcsNodeInfo.GcsNodeState.ALIVE)
    return {
        "ray": versions.get("ray_version", ""),
        "python": versions.get("python_version", ""),
        "is_here": any(node.hex() in here for node in nodes),
    }


def find_dead_connections() -> None:
    """Have this process ask every 10 s whether a connection to the cluster that is silent is dead.

    A head drops connections that were cut for 30 s, and Ray asks after 5 minutes: a question whose
    answer fell into the cut hung so long, with all others of the process behind it (Ray 2.60).
    """
    _set(grpc_client_keepalive_time_ms=10_000, grpc_client_keepalive_timeout_ms=10_000)


def outlive_head() -> None:
    """Have Ray leave it to this process how long it waits for a head that does not answer.

    Else it ends the process with exit code 1 after 60 s, whatever is still to be done (Ray 2.60).
    """
    _set(gcs_rpc_server_reconnect_timeout_s=3600)


def _set(**settings: int) -> None:
    """Ray's settings for this process, where the user has none of their own."""
    for name, value in settings.items():
        os.environ.setdefault(f"RAY_{name}", str(value))
    Config.initialize("")  # else read when Ray was imported


def node_patience_s() -> float:
    """Seconds of silence after which a head gives a node up, by the settings of this process.

    62 s were measured with Ray's own settings (2.60), where 5 questions wait 10 s and pause 3 s.
    """
    each_ms = Config.health_check_timeout_ms() + Config.health_check_period_ms()
    return float(Config.health_check_failure_threshold() * each_ms / 1000)
