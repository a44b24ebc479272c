"""Is this machine ready? Every check is one row, and a check that fails says what to do."""

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import ray
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.driver.cluster_address import AUTO, OPTION, cluster_address
from search.driver.placement import FACTORY, DeviceKind
from search.driver.ray_session import connect
from search.driver.tokens import doubt_of_token, token_here
from search.study.address import database_of, default_uri, resolved_uri
from search.study.provenance import versions
from search.tracking.mirror import check_tracker
from search.tracking.secrets import with_secrets, without_secrets
from search.verbs.doctor_nodes import show_nodes
from search.workers.gpu_proofs import prove_gpus
from tcpa_core.data.base import cache_root
from tcpa_core.errors import ConfigError, StudyError, TcpaError
from tcpa_core.record.values import Device

LEAST_FREE_GB = 5.0
"""Below this a disk counts as full: decoded data sets and checkpoints are a few GB."""


def examine(
    root: Path,
    console: Console,
    *,
    address: str | None = None,
    tracking_uri: str | None = None,
    device: DeviceKind = "auto",
    space: str | None = None,
) -> int:
    """Print the state of this machine; nothing is written.

    Args:
        device: What a study would be told. GPUs that torch cannot use are a warning; that it can
            use none is a failure where the user wants "cuda".
        space: Whose data and weights are looked for on every node of a cluster.

    Returns:
        0 when a study could run, 1 when a check failed.
    """
    checks: dict[str, Callable[[], str]] = {
        "versions": _versions,
        "processor": _processor,
        "GPU": _gpus,
        "studies": lambda: _folder(root, "--root"),
        "cache": lambda: _folder(cache_root(), "TCPA_CACHE"),
        "MLflow": lambda: _tracker(root, tracking_uri),
        "token": lambda: _token(address),
        "Ray": lambda: _ray(address, device),
    }
    cluster = cluster_address(address)
    if space is not None and cluster is None:
        raise ConfigError("--space: data are looked for on the nodes of a cluster; give --address.")
    table = Table("", "", "found", show_header=False)
    failed: set[str] = set()
    # Each check by itself: one that fails must not hide what else is wrong.
    for name, check in checks.items():
        try:
            mark, text = "ok", check()
        except _Doubt as err:
            mark, text = "WARNS", str(err)
        except TcpaError as err:
            mark, text = "FAILS", str(err)
            failed.add(name)
        table.add_row(name, mark, Text(text))
    console.print(table)
    if cluster is None or "Ray" in failed:
        return int(bool(failed))
    with connect(cluster.text, os.cpu_count() or 1, cluster.source):
        return show_nodes(root, space, console) or int(bool(failed))


def _versions() -> str:
    found = {"python": platform.python_version(), **versions()}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _processor() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}"


class _Doubt(TcpaError):
    """What a study could do without."""


def _gpus() -> str:
    """What torch sees from here; whether it can use them, workers say, in the row of Ray."""
    # Nothing is allocated: a GPU in exclusive mode would then refuse the workers.
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"{count} that torch sees on this machine" if count else "none that torch can use here"


def _folder(path: Path, option: str) -> str:
    """Free space of a folder that may not exist yet."""
    # Nothing is made to find out: the folder that would hold it says as much.
    parent = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise StudyError(f"{option}: {parent} cannot be written; choose a folder of yours.")
    free = shutil.disk_usage(parent).free / 1e9
    if free < LEAST_FREE_GB:
        raise StudyError(
            f"{option}: {path} has {free:.1f} GB free, less than {LEAST_FREE_GB:g}; make room or "
            "choose another disk."
        )
    return f"{path}, {free:.0f} GB free" + ("" if path.exists() else " (not made yet)")


def _tracker(root: Path, uri: str | None) -> str:
    if uri is not None:
        check_tracker(resolved_uri(with_secrets(uri)))
        return f"answers at {without_secrets(uri)}"
    database = database_of(root)
    if not database.is_file():
        return f"{database} is made by the first study"
    check_tracker(default_uri(root))
    return f"{database} can be read"


def _token(address: str | None) -> str:
    """The token that a cluster is shown, before Ray has made one for a cluster of this machine."""
    cluster = cluster_address(address)
    found = token_here(cluster is not None and cluster.text == AUTO)
    if doubt := doubt_of_token():
        raise _Doubt(f"{found}; {doubt}")
    return found


def _ray(address: str | None, device: DeviceKind) -> str:
    """What a cluster offers; without an address one is started here and stopped again.

    Its own workers try the GPUs that it counts: torch need not be able to use them.
    """
    cluster = cluster_address(address)
    text, source = (cluster.text, cluster.source) if cluster else (None, OPTION)
    with connect(text, os.cpu_count() or 1, source):
        counted = ray.cluster_resources()
        gpus = 0 if device == "cpu" else int(counted.get("GPU", 0))
        proved_gpus, refused, silent = prove_gpus(gpus, FACTORY) if gpus else ([], [], 0)
    where = f"cluster at {cluster.text}" if cluster else "starts on this machine"
    if cluster and cluster.source != OPTION:
        where += f" (${cluster.source})"
    text = f"{where}: {counted.get('CPU', 0):.0f} CPUs, {counted.get('GPU', 0):.0f} GPUs"
    if gpus:
        text += f", of which torch can use {len(proved_gpus)}"
        text += "".join(f"; {gpu.host} {gpu.id}: {_described(gpu)}" for gpu in proved_gpus)
    if silent:
        text += f" ({silent} gave no answer, most likely because they are in use)"
    if refused:
        text += f"; refused are {'; '.join(refused)}"
    if device == "cuda" and not proved_gpus:
        raise StudyError(f"--device cuda: {text}.")
    if refused:
        raise _Doubt(f"{text}. Studies do without them.")
    return text


def _described(gpu: Device) -> str:
    free, total = gpu.free_bytes / 2**30, gpu.memory_bytes / 2**30
    return f"{gpu.name}, {free:.0f} of {total:.0f} GiB free"
