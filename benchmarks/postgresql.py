"""A PostgreSQL of one's own for a measurement or a test: started, killed and started again."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = Path("/usr/lib/postgresql")
"""Where Debian's package puts what is not on the PATH."""
UNPRIVILEGED = ("postgres", "nobody")
"""Users to run as where we are root, which PostgreSQL refuses."""
WAIT_S = 60


class PostgreSQL:
    """A database server on a loopback port, in a temporary folder. A context manager."""

    def __init__(self) -> None:
        self._bin = _programs()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"postgresql+psycopg://tcpa@127.0.0.1:{self._port}/postgres"

    @staticmethod
    def is_installed() -> bool:
        """Whether PostgreSQL's programs are found."""
        try:
            _programs()
        except FileNotFoundError:
            return False
        return True

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="tcpa-postgresql-")
        self._folder = Path(self._temporary.name)
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "tcpa", "--no-sync", "-A", "trust")
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._temporary.cleanup()

    def start(self) -> None:
        """Start, and wait until connections are taken."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        log = str(self._folder / "log")
        self._control("start", "-w", "-t", str(WAIT_S), "-o", options, "-l", log)

    def stop(self) -> None:
        """Break all connections off and stop."""
        self._control("stop", "-w", "-m", "immediate")

    def restart(self) -> None:
        """Stop in the middle of whatever runs, and start."""
        self.stop()
        self.start()

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        user = _unprivileged().pw_name if os.geteuid() == 0 else None
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            user=user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a server that goes on would keep a pipe open
            stderr=subprocess.DEVNULL,
            timeout=2 * WAIT_S,
        )
        if done.returncode:
            log = self._folder / "log"
            text = log.read_text()[-2000:] if log.is_file() else ""
            raise RuntimeError(f"{program} {arguments} ended with {done.returncode}: {text}")


def _programs() -> Path:
    """Folder of initdb and pg_ctl.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(PROGRAMS.glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file():
            return folder
    raise FileNotFoundError("PostgreSQL's initdb and pg_ctl were not found")


def _unprivileged() -> pwd.struct_passwd:
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError(f"PostgreSQL needs one of the users {', '.join(UNPRIVILEGED)}")
