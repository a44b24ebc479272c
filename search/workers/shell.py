"""A worker's actor, which answers wherever Ray has a process.

Its class is sent as code (`search.workers.actors`), so it uses the standard library, Ray and
nothing else of this module: its node may have another version of our package, or none. It says
where it is and what is installed there; what needs the package comes in by `enter`, once that has
proved to be the driver's.
"""

import gc
import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray

PULSE = "pulse"
"""The thread of a worker that always answers."""
END = "end"
"""The thread of a worker that waits for the end of `run`."""


class PackWorkerShell:
    """A loop in one thread, commands in another, and a third that always answers.

    Ray calls `run` and `command` in the two threads of the default group, `pulse` and `end` in one
    of their own each: they answer while the others stand. Until `enter` nothing of ours is
    imported, and no device is touched before `ready`.

    Args:
        num_cpus: Of the worker, for torch's threads.
        num_gpus: Of the worker; 0: it trains on the processor.
    """

    def __init__(self, num_cpus: float, num_gpus: float) -> None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(num_cpus)))  # before torch is imported
        self._num_gpus = num_gpus
        self._worker: Any = None

    @staticmethod
    def node_facts(distributions: Iterable[str], packages: Iterable[str]) -> dict[str, str]:
        """Versions of what is installed here, by name, and "sources", a digest of our files.

        Args:
            distributions: Names as of `pip list`; those that are not installed are left out.
            packages: Ours; of two checkouts with one version one may lag behind. Where one of them
                is missing there is no digest.
        """
        found = {"python": platform.python_version()}
        for name in distributions:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        specs = [find_spec(name) for name in packages]
        origins = [spec.origin for spec in specs if spec and spec.origin]
        if len(origins) < len(specs):
            return found
        digest = hashlib.sha256()
        for folder in (Path(origin).parent for origin in origins):
            for path in sorted(folder.rglob("*.py")):
                digest.update(f"{path.relative_to(folder.parent)}\n".encode() + path.read_bytes())
        return found | {"sources": digest.hexdigest()}

    @staticmethod
    def folders(root: str) -> dict[str, Any]:
        """What is here of folders; nothing is written.

        Args:
            root: Folder of studies.

        Returns:
            "names", a digest of what the root holds, "" where it is not there; "cache", the folder
            of decoded images, and "free", bytes on its disk.
        """
        names = ""
        if os.path.isdir(root):
            names = hashlib.sha256("\n".join(sorted(os.listdir(root))).encode()).hexdigest()
        cache = Path(os.environ.get("TCPA_CACHE") or "~/.cache/tcpa").expanduser().absolute()
        there = next(folder for folder in (cache, *cache.parents) if folder.exists())
        return {"names": names, "cache": str(cache), "free": shutil.disk_usage(there).free}

    @staticmethod
    def gpu_id() -> str:
        """What Ray calls the GPU that it has given to this process."""
        ids = ray.get_runtime_context().get_accelerator_ids() if ray.is_initialized() else {}
        return ",".join(ids.get("GPU", ())) or os.environ.get("CUDA_VISIBLE_DEVICES", "0")

    def place(self) -> dict[str, Any]:
        """Where this process is, as of `search.workers.pack_worker.Place`."""
        return {
            "host": platform.node(),
            "device": self.gpu_id() if self._num_gpus else "cpu",
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id(),
        }

    def facts(self, distributions: Iterable[str], packages: Iterable[str]) -> dict[str, str]:
        """What is installed here, as of `node_facts`."""
        return self.node_facts(distributions, packages)

    def enter(self, make: Callable[[], Any]) -> None:
        """Make the `search.workers.pack_worker.PackWorker` that everything below is handed to.

        Args:
            make: Unpickled as this is called, which imports our package.
        """
        # Of an earlier study: what it keeps on a device goes before this one needs the room.
        self._worker = None
        gc.collect()
        self._worker = make()

    def fingerprints(self, *args: Any) -> Any:
        """As of `PackWorker`, like all that follow."""
        return self._worker.fingerprints(*args)

    def expect(self, *args: Any) -> None:
        self._worker.expect(*args)

    def ready(self) -> Any:
        return self._worker.ready()

    def probe(self, *args: Any) -> Any:
        return self._worker.probe(*args)

    def pulse(self) -> Any:
        return self._worker.pulse() if self._worker else None

    def run(self, *args: Any) -> None:
        self._worker.run(*args)

    def end(self) -> None:
        self._worker.end()

    def command(self, *args: Any) -> None:
        self._worker.command(*args)

    def halt(self) -> None:
        self._worker.halt()

    def clear(self) -> None:
        self._worker.clear()
