"""Studies in processes of their own, Ray clusters of several nodes, and ways to break them.

Everything is real but the training: `tcpa` as a process, its Ray, its workers, its MLflow mirror.
"""

import atexit
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import ray
from mlflow import MlflowClient
from ray.cluster_utils import Cluster

from search.study.address import default_uri
from search.study.folder import StudyDir
from search.study.identity import fingerprints_of
from spaces.load import space_of
from spaces.space import Space

ROOT = Path(__file__).parents[2]
FACTORY = "benchmarks._faults.stub:make_worker"
PATIENCE_S = 240.0
"""What is waited for comes in seconds; a busy machine takes longer."""
_ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),  # workers import the stub
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "400",
    "RAY_worker_niceness": "0",  # Ray's 15 starves workers on a machine that does something else
    # Ray's head asks its nodes every 3 s, waits 10 s and gives one up after 5 times: 65 s.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}


def make_space(trials: int = 12, epochs: int = 6, **changes: Any) -> Space:
    """Random points of two axes: suggestions that depend on the seed alone."""
    space: dict[str, Any] = {
        "name": "faults",
        "base": {"methods": ["linear"], "train.epochs": epochs},
        "axes": {
            "optim.lr": {"float": [1e-4, 1e-1], "log": True},
            "optim.weight_decay": {"float": [0.0, 0.1]},
        },
        "objective": {"metric": "val_accuracy", "goal": "maximize"},
        "sampler": {"name": "random"},
        "scheduler": {"name": "none"},
        "budget": {"trials": trials},
    }
    return space_of(space | changes)


def make_study(
    root: Path, space: Space, *, workers: int | None = 2, slots: int = 2, **orders: Any
) -> StudyDir:
    """A new study with stub training.

    Args:
        root: Folder of the study and of its MLflow database.
        space: What it runs.
        workers: As `search.driver.placement.Placement`.
        slots: As `search.driver.placement.Placement`.
        orders: What the stub does wrong, see `tests.search.stub` and `benchmarks._faults.stub`.
    """
    root.mkdir(parents=True, exist_ok=True)
    placement = {"workers": workers, "slots": slots, "worker_factory": FACTORY}
    (root / "placement.json").write_text(json.dumps(placement))
    add_database(root)
    prints = fingerprints_of(space.trials)
    study = StudyDir.create(root, "faults", space, prints, default_uri(root))
    order(study, **orders)
    return study


def add_database(root: Path) -> None:
    """Give a folder an MLflow database without runs; to make one takes 5 s of the processor."""
    with closing(sqlite3.connect(_database())) as source:
        source.execute("VACUUM INTO ?", (str(root / "mlflow.db"),))


@cache
def _database() -> str:
    path = Path(tempfile.mkdtemp(prefix="tcpa-mlflow-")) / "mlflow.db"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments(max_results=1)
    return str(path)


def order(study: StudyDir, **orders: Any) -> None:
    """Tell the stub what to do wrong from the next worker on; nothing: train as it should."""
    placement = json.loads((study.path.parent / "placement.json").read_text())
    (study.path / "stub.json").write_text(json.dumps({"slots": placement["slots"], **orders}))


def slowness() -> float:
    """How much longer work takes here and now than on an idle processor; at least 1."""
    wall, used = time.monotonic(), time.process_time()
    while time.process_time() - used < 0.3:
        pass
    return max(1.0, (time.monotonic() - wall) / 0.3)


class Driver:
    """`tcpa resume STUDY` as a process of its own, with its output in a file.

    Args:
        study: The study; a new one is begun, an interrupted one is taken up.
        address: Ray cluster; None starts one for this driver alone.
        command: Another command line than `tcpa resume STUDY`.
    """

    def __init__(
        self, study: StudyDir, address: str | None = None, command: list[str] | None = None
    ) -> None:
        self.study = study
        root = str(study.path.parent)
        stub = ["-m", "benchmarks._faults.driver", "resume", study.name, "--root", root]
        line = [sys.executable, *(command or stub), *(["--address", address] if address else [])]
        self._log = tempfile.NamedTemporaryFile(dir=root, suffix=".driver", delete=False)
        journal = study.journal_path.read_bytes() if study.journal_path.exists() else b""
        self._size = journal.rfind(b"\n") + 1  # what a killed driver left of a line is cut off
        self.process = subprocess.Popen(
            line,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | _ENVIRONMENT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return Path(self._log.name).read_text(errors="replace")

    def events(self) -> Iterator[dict[str, Any]]:
        """Whole journal lines since its start."""
        if not self.study.journal_path.exists():
            return
        with self.study.journal_path.open("rb") as file:
            file.seek(self._size)
            yield from (json.loads(line) for line in file if line.endswith(b"\n"))

    def kinds(self) -> Counter[str]:
        """How many events of each kind this driver wrote."""
        return Counter(event["kind"] for event in self.events())

    def wait_for(self, kind: str, number: int = 1) -> float:
        """Wait until this driver has written so many events of a kind; the seconds it took."""
        return self.wait_until(lambda: self.kinds()[kind] >= number, f"{number} {kind}")

    def wait_until(
        self, holds: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S
    ) -> float:
        """Wait until something holds while the driver runs; the seconds it took.

        Raises:
            AssertionError: The driver has ended, or the time is over.
        """
        begun = time.monotonic()
        while not holds():
            ended = self.process.poll() is not None
            assert not ended or holds(), f"the driver ended before {what}:\n{self.output}"
            assert time.monotonic() - begun < PATIENCE_S, f"no {what}, driver:\n{self.output}"
            time.sleep(0.02)
        return time.monotonic() - begun

    def kill(self) -> None:
        """End it as a power cut does, and wait until everything that it started is gone."""
        self.process.kill()
        self.process.wait()
        begun = time.monotonic()
        while left := self.remaining():
            assert time.monotonic() - begun < PATIENCE_S, f"outlive the driver: {left}"
            time.sleep(0.05)

    def end(self, number: int, *, group: bool = False, timeout_s: float = PATIENCE_S) -> float:
        """Send a signal and wait; the seconds that it took to end.

        Args:
            number: The signal.
            group: To all that it has started, too, as a terminal's Ctrl-C and batch systems do.
            timeout_s: How long to wait.
        """
        begun = time.monotonic()
        os.killpg(self.process.pid, number) if group else self.process.send_signal(number)
        self.process.wait(timeout_s)
        return time.monotonic() - begun

    def finish(self, timeout_s: float = 2 * PATIENCE_S) -> int:
        """Wait for its own end; the exit code."""
        return self.process.wait(timeout_s)

    def remaining(self) -> list[str]:
        """Processes of its session; Ray's own agents notice its end a little later."""
        found = [_stat(pid) for pid in _pids()]
        alive = [s for s in found if s and s.session == self.process.pid and s.state != "Z"]
        lines = [_command(s.pid) for s in alive if s.pid != self.process.pid]
        return [line for line in lines if line and "agent" not in line.lower()]

    def workers(self) -> list[int]:
        """Process ids of the pack workers of its own Ray."""
        return workers_below(self.process.pid)

    def clear(self) -> None:
        """End it and all that it started, whatever state they are in."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in _pids():
            stat = _stat(pid)
            if stat and stat.session == self.process.pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


class Nodes:
    """A Ray cluster on this machine: a head without processors, and nodes of one each."""

    def __init__(self, count: int) -> None:
        if ray.is_initialized():  # the nodes would take its address for theirs
            raise RuntimeError("this process has a Ray connection already; close it first")
        with patch.dict(os.environ, _ENVIRONMENT):
            self._cluster = Cluster(
                initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
            )
        self.nodes: list[Any] = []
        self._frozen: list[int] = []
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        """What `--address` takes."""
        return str(self._cluster.address)

    def add(self, num_gpus: int = 0) -> None:
        """A node joins. Its GPUs are counted, and not there."""
        with patch.dict(os.environ, _ENVIRONMENT):
            self.nodes.append(self._cluster.add_node(num_cpus=1, num_gpus=num_gpus))

    def lose(self, node: Any) -> None:
        """Kill a node: its raylet first, so that nothing on it can say farewell."""
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def freeze(self, node: Any) -> None:
        """Stop a node's processes: no connection is closed, as when its power or cable goes."""
        for pid in below(_raylet_of(node)):
            self._frozen.append(pid)
            os.kill(pid, signal.SIGSTOP)

    def lose_head(self) -> None:
        """Kill the head, and with it the cluster."""
        self._let_go()
        head = self._cluster.head_node
        head.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)

    def workers(self, node: Any) -> list[int]:
        """Process ids of the pack workers on a node."""
        return workers_below(_raylet_of(node))

    def close(self) -> None:
        """End every process of the cluster."""
        self._let_go()
        for node in [*self._cluster.worker_nodes, self._cluster.head_node]:
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        for pid in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _let_go(self) -> None:
        """Close the connection to the head, which would end this process a minute after it."""
        self._cluster.global_state.disconnect()


@contextmanager
def cluster(count: int) -> Iterator[Nodes]:
    """A cluster for the length of a test."""
    nodes = Nodes(count)
    try:
        yield nodes
    finally:
        nodes.close()


def _raylet_of(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


class _Stat:
    """State, parent and session of a process, from /proc."""

    def __init__(self, pid: int, text: str) -> None:
        fields = text.rpartition(")")[2].split()
        self.pid, self.state = pid, fields[0]
        self.parent, self.session = int(fields[1]), int(fields[3])


def _pids() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    try:
        return _Stat(pid, Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def below(root: int) -> set[int]:
    """A process and its descendants."""
    parents = {s.pid: s.parent for s in map(_stat, _pids()) if s}
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def workers_below(root: int) -> list[int]:
    """Pack workers among the descendants of a process."""
    return [pid for pid in below(root) if _command(pid).startswith("ray::PackWorker")]
