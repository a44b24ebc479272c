"""Several hosts on one machine, made of Linux namespaces: a cluster as people have it.

Each host has a network address, host name, HOME, /tmp, /dev/shm and processes of its own, and a
folder that all of them share: what nodes of `ray.cluster_utils` have in common, these do not.

    with Hosts("abc") as hosts:
        a, b, c = hosts
        a.start_ray()
        b.start_ray(head=a)
        a.run("tcpa", "search", "quickstart", "--root", "/mnt/shared/studies", "--address", "auto")
        b.cut()

It needs root, iproute2 and util-linux; `why_none` says what is missing. Nothing that happens in a
host reaches the network of the machine.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHECKOUT = Path(__file__).parents[1]
PORT = 6379
"""Of a Ray head."""
OBJECT_STORE_BYTES = 100_000_000
START_S = 30.0
"""A host that is not there by then never will be."""

# $1: the host's folder, $2: the common one, $3: the host's name, $4: the checkout.
_INIT = """
set -e
hostname "$3"
mount -t tmpfs -o size=10m tmpfs /mnt
mkdir -p /mnt/home /mnt/local /mnt/data /mnt/shared
for name in home local data; do mount --bind "$1/$name" /mnt/$name; done
mount --bind "$2" /mnt/shared
mount --bind "$1/hosts" /etc/hosts
mount -t tmpfs -o size=600m tmpfs /dev/shm
case "$4" in /tmp/*) mkdir -p "$1$4"; mount --bind "$4" "$1$4";; esac
mount --rbind "$1/tmp" /tmp
touch /mnt/local/.is_up
while :; do sleep 3600 & wait $!; done
"""


def why_none() -> str:
    """Why this machine cannot have such hosts; "": it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts made of namespaces need root on Linux"
    for tool in ("ip", "nsenter", "unshare", "mount"):
        if shutil.which(tool) is None:
            return f"hosts made of namespaces need {tool!r} (Debian: iproute2, util-linux)"
    name = f"tcpa-try-{os.getpid()}"
    tried = (["ip", "netns", "add", name], ["ip", "netns", "del", name])
    made = [subprocess.run(command, capture_output=True, text=True) for command in tried]
    if any(one.returncode for one in made):
        return f"no network namespaces here: {made[0].stderr.strip()}"
    entered = subprocess.run(
        ["unshare", "--uts", "--mount", "--pid", "--ipc", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
    )
    return f"no namespaces here: {entered.stderr.strip()}" if entered.returncode else ""


class Host:
    """One of the hosts; made by `Hosts`.

    Args:
        name: Host name.
        address: IPv4 address.
        folder: What it has for itself: home, local, data and tmp lie there.
        switch: Network namespace of the switch that joins the hosts.
    """

    def __init__(self, name: str, address: str, folder: Path, switch: str) -> None:
        self.name = name
        self.address = address
        self.home = folder / "home"
        """HOME, /mnt/home within."""
        self.data = folder / "data"
        """/mnt/data within: what other hosts lack, unless it is put there, too."""
        self.local = folder / "local"
        """/mnt/local within."""
        self.tmp = folder / "tmp"
        """/tmp within."""
        self.bin = Path(sys.executable).parent
        """Programs that come first on PATH: of the environment that runs this, or of another."""
        self.env: dict[str, str] = {}
        """Environment variables of all its processes, beside the few that they have."""
        self._folder = folder
        self._switch = switch
        self._network = f"{switch}-{name}"
        self._plug = f"sw-{name}"
        self._init: subprocess.Popen[bytes] | None = None

    def command(self, *words: str | Path, env: Mapping[str, str] | None = None) -> list[str]:
        """The command of this machine that runs a command in the host."""
        inside = {
            "PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/mnt/home",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            **self.env,
            **(env or {}),
        }
        enter = ["nsenter", "-t", str(self._first()), "-n", "-u", "-m", "-p", "-i", "env", "-i"]
        values = [f"{name}={value}" for name, value in inside.items()]
        at_home = ["bash", "-c", 'cd /mnt/home && exec "$@"', self.name]
        return [*enter, *values, *at_home, *map(str, words)]

    def run(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        timeout: float = 120.0,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host to its end, with its output as text.

        Raises:
            CalledProcessError: It failed, and `check` is set.
            TimeoutExpired: It did not end.
        """
        done = subprocess.run(
            self.command(*words, env=env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            print(done.stdout, done.stderr, file=sys.stderr)
            done.check_returncode()
        return done

    def start(
        self, *words: str | Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command in the host. A signal to what is returned does not reach it: `kill`."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        return subprocess.Popen(
            self.command(*words, env=env), stdin=subprocess.DEVNULL, text=True, **options
        )

    def kill(self, pattern: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to the processes of the host whose command line matches a pattern."""
        self.run("pkill", f"-{int(number)}", "-f", pattern)

    def start_ray(
        self, head: "Host | None" = None, *, cpus: int = 1, options: Sequence[str] = ()
    ) -> None:
        """Start a Ray node: the head of a cluster, or one that joins it."""
        role = (
            ["--head", "--port", str(PORT), "--include-dashboard", "false"]
            if head is None
            else ["--address", f"{head.address}:{PORT}"]
        )
        memory = ["--object-store-memory", str(OBJECT_STORE_BYTES), "--disable-usage-stats"]
        self.run("ray", "start", *role, "--num-cpus", str(cpus), *memory, *options, check=True)

    def stop_ray(self) -> None:
        """End the Ray node in order."""
        self.run("ray", "stop", "--force")

    def cut(self) -> None:
        """Take the host off the network: whatever is sent to it is swallowed."""
        self._link("down")

    def join(self) -> None:
        """Bring it back."""
        self._link("up")

    def _first(self) -> int:
        """Process that stands in all namespaces of the host."""
        assert self._init is not None, "the host is not up"
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text()
        return int(children.split()[0])

    def _link(self, state: str) -> None:
        _ip("-n", self._switch, "link", "set", self._plug, state)

    def _up(self, shared: Path, hosts: str) -> None:
        for name in ("home", "local", "data", "tmp"):
            (self._folder / name).mkdir(parents=True)
        self.tmp.chmod(0o1777)
        (self._folder / "hosts").write_text(hosts)
        inside, outside = self._network, self._switch
        _ip("netns", "add", inside)
        cable = ["type", "veth", "peer", "name", "eth0", "netns", inside]
        _ip("-n", outside, "link", "add", self._plug, *cable)
        _ip("-n", outside, "link", "set", self._plug, "master", "br0", "up")
        _ip("-n", inside, "link", "set", "lo", "up")
        _ip("-n", inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", inside, "link", "set", "eth0", "up")
        unshared = ["unshare", "--uts", "--mount", "--pid", "--ipc", "--fork", "--mount-proc"]
        # `ip netns exec` becomes `unshare`, whose only child is the first process of the host.
        said = self._folder / "init.log"
        with said.open("w") as log:
            self._init = subprocess.Popen(
                ["ip", "netns", "exec", inside, *unshared, "bash", "-c", _INIT, "init"]
                + [str(self._folder), str(shared), self.name, str(CHECKOUT)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + START_S
        while not (self.local / ".is_up").exists():
            if self._init.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"host {self.name} does not start: {said.read_text()}")
            time.sleep(0.05)

    def _down(self) -> None:
        if self._init is not None:
            # With its first process the kernel ends all others of the host.
            with suppress(OSError, IndexError):
                os.kill(self._first(), signal.SIGKILL)
            self._init.wait(30)
            self._init = None
        subprocess.run(["ip", "netns", "del", self._network], capture_output=True)


class Hosts:
    """A few hosts on a switch of their own, for the length of a `with` block.

    Args:
        names: A letter for each; "abc" gives hosta, hostb and hostc, 10.77.0.1 to 10.77.0.3.
    """

    def __init__(self, names: str = "abc") -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tcpa-hosts-"))
        self._switch = self._folder.name.removeprefix("tcpa-hosts-")
        self.shared = self._folder / "shared"
        """/mnt/shared within every host."""
        self._hosts = [
            Host(f"host{name}", f"10.77.0.{i}", self._folder / name, self._switch)
            for i, name in enumerate(names, start=1)
        ]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts)

    def __enter__(self) -> Self:
        try:
            self.shared.mkdir()
            _ip("netns", "add", self._switch)
            _ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "br0", "up")
            known = "".join(f"{one.address} {one.name}\n" for one in self._hosts)
            for host in self._hosts:
                host._up(self.shared, f"127.0.0.1 localhost\n{known}")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        for host in self._hosts:
            host._down()
        subprocess.run(["ip", "netns", "del", self._switch], capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
