"""A batch system for hosts made of namespaces: what SLURM does with one job on several nodes.

The batch shell sees the folder that the hosts share and nothing else of them, as on the first node
of a job. `srun` runs a command once on every host; `scontrol` names the hosts and notes requeues.

    with Hosts("abc") as hosts:
        job = Job(hosts, script)
        job.start()
        job.signal(signal.SIGTERM)
        job.wait()
        job.requeues
"""

import os
import shlex
import signal
import subprocess

from benchmarks.hosts import Hosts

_SRUN = """#!/bin/bash
# srun OPTIONS... COMMAND...: once on every host; ends with the worst exit code.
printf '%s\\n' srun "$@" | tr '\\n' '\\0' >> "$SHIM/calls"
while [[ $1 == -* ]]; do shift; done
tasks=() i=0
for host in $HOSTS; do
  "$SHIM/enter-$host" env SLURM_PROCID=$i SLURM_NODEID=$i SLURMD_NODENAME="$host" \\
    SLURM_JOB_ID="$SLURM_JOB_ID" SLURM_JOB_NUM_NODES="$SLURM_JOB_NUM_NODES" "$@" \\
    </dev/null > >(sed -u "s/^/$i: /") 2>&1 &
  tasks+=($!) i=$((i + 1))
done
worst=0
for task in "${tasks[@]}"; do
  wait "$task" || { code=$?; [ "$code" -le "$worst" ] || worst=$code; }
done
exit "$worst"
"""
_SCONTROL = """#!/bin/bash
case $1 in
show) case $2 in
  hostnames) printf '%s\\n' $HOSTS;;
  job) echo "JobId=$3 JobState=${JOB_STATE:-RUNNING}";;
  esac;;
requeue) echo "$2" >> "$SHIM/requeues";;
esac
"""
_GETENT = """#!/bin/bash
grep -E " $2\\$" "$SHIM/addresses"
"""
_BATCH = """
set -e
mount -t tmpfs -o size=1m tmpfs /mnt
mkdir /mnt/shared
mount --bind "$1" /mnt/shared
cd /mnt/shared
exec bash "$2"
"""


class Job:
    """A batch script on hosts that are up.

    Args:
        script: Text of the script.
        number: Of the job.
    """

    def __init__(self, hosts: Hosts, script: str, number: int = 4711) -> None:
        self._hosts = list(hosts)
        self._shared = hosts.shared
        self._shim = hosts.shared / ".batch"
        self._shim.mkdir()
        self._number = number
        self._restarts = 0
        self.log = hosts.shared / "job.log"
        """What the job has printed, over all its restarts."""
        self.process: subprocess.Popen[bytes] | None = None
        for name, text in (("srun", _SRUN), ("scontrol", _SCONTROL), ("getent", _GETENT)):
            self._write(name, text)
        for host in self._hosts:
            enter = shlex.join(host.command())
            self._write(f"enter-{host.name}", f'#!/bin/bash\nexec {enter} "$@"\n')
        known = "".join(f"{one.address} {one.name}\n" for one in self._hosts)
        (self._shim / "addresses").write_text(known)
        self._script = self._shim / "script.sh"
        self._script.write_text(script)

    @property
    def requeues(self) -> int:
        """How often the job has asked to be requeued."""
        told = self._shim / "requeues"
        return len(told.read_text().splitlines()) if told.exists() else 0

    def start(self) -> None:
        """Start the batch shell, for the first time or after a requeue."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "bash", "-c", _BATCH, "batch"]
                + [str(self._shared), str(self._script)],
                env={
                    "PATH": f"{self._shim}:/usr/sbin:/usr/bin:/sbin:/bin",
                    "SHIM": str(self._shim),
                    "HOSTS": " ".join(one.name for one in self._hosts),
                    "SLURM_JOB_ID": str(self._number),
                    "SLURM_JOB_NODELIST": "host[a-c]",
                    "SLURM_JOB_NUM_NODES": str(len(self._hosts)),
                    "SLURM_RESTART_COUNT": str(self._restarts),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._restarts += 1

    def signal(self, number: int, *, to_all: bool = False) -> None:
        """Send a signal to the batch shell, or to all processes of the job, as its end does."""
        assert self.process is not None, "the job has not started"
        self.process.send_signal(number)
        if to_all:
            for host in self._hosts:
                # But for what keeps a host up, which is none of the job's.
                host.run("pkill", f"-{int(number)}", "-v", "-x", "sleep")

    def wait(self, timeout: float) -> int:
        """Wait for the end of the batch shell; its exit code."""
        assert self.process is not None, "the job has not started"
        return self.process.wait(timeout)

    def end(self) -> None:
        """End the batch shell and its srun, whatever they do; the hosts end the rest."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _write(self, name: str, text: str) -> None:
        path = self._shim / name
        path.write_text(text)
        path.chmod(0o755)
