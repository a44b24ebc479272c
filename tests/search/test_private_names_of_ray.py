"""Names that Ray and Ray Tune keep to themselves: each failure says which has moved, and for what.

Optuna is used by its public names alone, which `test_no_other_file_uses_private_names` holds.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

ROOT = Path(__file__).parents[2]
RAY = f"Ray {ray.__version__}"
MODULES = [
    ("ray._private.worker", "print_to_stdstream", "search/ray_internals.py",
     "the function that prints lines of worker and node logs in the driver"),
    ("ray._private.ray_constants", "ENABLE_RAY_CLUSTER", "search/ray_internals.py",
     "the switch that keeps Ray on 127.0.0.1 under macOS and Windows"),
    ("ray._private.ray_constants", "ENABLE_RAY_CLUSTERS_ENV_VAR", "search/ray_internals.py",
     "the name of that switch's environment variable"),
    ("ray._private.worker", "global_worker", "search/ray_internals.py",
     "this process's connection, whose `gcs_client` asks the cluster's head"),
    ("ray.core.generated.autoscaler_pb2", "GetClusterResourceStateReply", "search/ray_internals.py",
     "the head's answer to what nodes have and what waits for them"),
    ("ray.core.generated.common_pb2", "LABEL_OPERATOR_NOT_IN", "search/ray_internals.py",
     "how a request says on which nodes it must not run"),
    ("ray._private.services", "find_bootstrap_address", "search/ray_internals.py",
     "where `ray start` notes the address of this machine's cluster"),
    ("ray._private.services", "find_gcs_addresses", "search/ray_internals.py",
     "the heads that the processes of this machine belong to"),
    ("ray._private.services", "find_node_ids", "search/ray_internals.py",
     "the ids of the nodes that run on this machine"),
    ("ray._private.services", "resolve_ip_for_localhost", "search/ray_internals.py",
     "what `ray.init` makes of a loopback address"),
    ("ray._raylet", "GcsClient", "search/ray_internals.py",
     "what asks a head without joining its cluster"),
    ("ray._raylet", "Config", "search/ray_internals.py",
     "Ray's settings, of which the health checks of nodes are read"),
    ("ray._common.usage.usage_constants", "CLUSTER_METADATA_KEY", "search/ray_internals.py",
     "the key under which a head keeps the versions of Ray and Python"),
    ("ray._private.utils", "set_sigterm_handler", "search/ray_internals.py",
     "the function with which `ray.init` takes SIGTERM for itself"),
    ("ray.tune.execution.tune_controller", "TuneController", "search/tune/internals.py",
     "the class whose `step` is one turn of Tune's loop"),
    ("ray.air.execution", "ResourceManager", "search/tune/trial_handle.py",
     "the interface that grants Tune the places of its actors"),
    ("ray.air", "AcquiredResources", "search/tune/trial_handle.py",
     "what a resource manager gives, whose `annotate_remote_entities` makes actors"),
    ("ray.tune.search", "SearchGenerator", "search/tune/loop.py",
     "what turns a searcher into Tune's search algorithm"),
]  # fmt: skip
CONTROLLER = [
    ("_trials", "a list of all trials"),
    ("_live_trials", "a set of the trials that have not ended"),
    ("_stopped_trials", "a set of trials that have ended in order"),
    ("_failed_trials", "a set of trials that have ended with an error"),
    ("_trials_to_cache", "a set of trials whose state goes into the next snapshot"),
]


@pytest.mark.parametrize(("module", "name", "used_by", "look_for"), MODULES)
def test_ray_has_it_where_it_was(module: str, name: str, used_by: str, look_for: str) -> None:
    assert name in (ROOT / used_by).read_text(), "not used any more: take it from this list"
    try:
        found = hasattr(import_module(module), name)
    except ImportError:
        found = False
    assert found, f"{RAY} moved {module}.{name}, which {used_by} uses; look for {look_for}."


def test_a_cluster_can_be_given_its_folder() -> None:
    option = import_module("search.ray_internals").SCRATCH_OPTION
    assert f'"{option}"' in inspect.getsource(ray.init), (
        f"ray.init of {RAY} does not take {option!r} any more, which search/driver/ray_session.py "
        "gives it; look for the option that says where its sockets and logs lie."
    )


def test_an_actor_says_whether_its_constructor_failed() -> None:
    assert isinstance(getattr(RayActorError, "actor_init_failed", None), property), (
        f"RayActorError of {RAY} has no actor_init_failed, by which "
        "search/workers/ray_errors.py tells faults in the code from lost nodes."
    )


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("ClusterResourceState",
         ("node_states", "pending_resource_requests", "pending_gang_resource_requests")),
        ("NodeState", ("node_id", "status", "total_resources", "available_resources", "labels")),
        ("ResourceRequestByCount", ("request", "count")),
        ("ResourceRequest", ("resources_bundle", "label_selectors")),
        ("GangResourceRequest", ("requests", "details", "bundle_selectors")),
    ],
)  # fmt: skip
def test_the_head_still_tells(message: str, names: tuple[str, ...]) -> None:
    fields = getattr(import_module("ray.core.generated.autoscaler_pb2"), message).DESCRIPTOR.fields
    missing = set(names) - {field.name for field in fields}
    assert not missing, (
        f"{message} of {RAY} has no {missing}, which search/ray_internals.py reads to see what "
        "waits for a place; look for it in what `ray status` shows."
    )


def controller() -> Any:
    """Tune's controller; loaded in the test, so that the first one says where it has gone."""
    return import_module("ray.tune.execution.tune_controller").TuneController


@pytest.mark.parametrize(("name", "look_for"), CONTROLLER)
def test_the_controller_still_keeps(name: str, look_for: str) -> None:
    kept = re.search(rf"self\.{name}\b[^=\n]*=", inspect.getsource(controller().__init__))
    assert kept, (
        f"{RAY} moved TuneController.{name}, which search/tune/internals.py clears of trials that "
        f"have ended; look for {look_for}, or drop `Controller.on_step_end` and pay 40 KiB a trial."
    )


@pytest.mark.parametrize("name", ["checkpoint", "on_step_begin", "on_step_end"])
def test_the_controller_still_calls(name: str) -> None:
    calls = f"self.{name}("
    assert hasattr(controller(), name) and calls in inspect.getsource(controller()), (
        f"TuneController of {RAY} does not call {name} any more, which search/tune/internals.py "
        "replaces; look for where it writes snapshots, where it asks Ray's head for resources, and "
        "where a step of its loop ends."
    )


@pytest.mark.parametrize("name", ["update_max_pending_trials", "cleanup", "is_finished", "step"])
def test_the_loop_still_finds(name: str) -> None:
    assert hasattr(controller(), name), (
        f"{RAY} moved TuneController.{name}, which search/tune/loop.py calls; look for it in "
        "ray.tune.execution."
    )


def test_the_number_of_trials_at_once_can_be_changed() -> None:
    limiter = import_module("ray.tune.search").ConcurrencyLimiter
    assert hasattr(limiter, "set_max_concurrency"), (
        f"ConcurrencyLimiter of {RAY} has no set_max_concurrency, which search/tune/loop.py calls "
        "when a cluster has grown; look for where it keeps `max_concurrent`."
    )


ALLOWED = {"search/ray_internals.py", "search/tune/internals.py",
           "search/tracking/mlflow_internals.py"}  # fmt: skip
LIBRARIES = {"ray", "optuna", "mlflow"}


def _private(tree: ast.AST) -> Iterator[str]:
    """Private names of the libraries that a file imports, and private attributes of its values."""
    imported = [list(_parts(node)) for node in ast.walk(tree)]
    used = [parts for names in imported for parts in names if parts[0] in LIBRARIES]
    yield from (".".join(parts) for parts in used if any(part.startswith("_") for part in parts))
    for node in ast.walk(tree) if used else ():
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=str(name)) if re.match("_[^_]", name):
                yield ast.unparse(node)


def _parts(node: ast.AST) -> Iterator[list[str]]:
    match node:
        case ast.ImportFrom(module=str(module), names=names):
            yield from (f"{module}.{alias.name}".split(".") for alias in names)
        case ast.Import(names=names):
            yield from (alias.name.split(".") for alias in names)


def test_no_other_file_uses_private_names() -> None:
    wrong = [
        f"{file}: {found}"
        for path in sorted((ROOT / "search").rglob("*.py"))
        if (file := path.relative_to(ROOT).as_posix()) not in ALLOWED
        for found in _private(ast.parse(path.read_text()))
    ]
    assert not wrong, "private names stand in one file per library:\n" + "\n".join(wrong)
