"""A batch script for SLURM that starts a Ray cluster on its nodes and runs a study there.

Its rules are those of `ray symmetric-run` (Ray >= 2.49) and sbatch; `job.sh` is what it does.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from shlex import quote

from tcpa_core.errors import ConfigError

_WORD = re.compile(r"[A-Za-z0-9_.,+:@%/=-]+")
_TIMES = {
    "minutes[:seconds]": r"(?P<m>\d+)(:(?P<s>\d\d?))?",
    "hours:minutes:seconds": r"(?P<h>\d+):(?P<m>\d\d?):(?P<s>\d\d?)",
    "days-hours[:minutes[:seconds]]": (r"(?P<d>\d+)-(?P<h>\d\d?)(:(?P<m>\d\d?)(:(?P<s>\d\d?))?)?"),
}
_UNIT_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_LEAST_S = 240
"""SLURM keeps time to the minute, and a study needs some to stop in."""
_WARNING_S = 300
MAX_REQUEUES = 50
"""A study that always stops, as on a full disk, is not started for ever."""


def seconds_of(time: str) -> int:
    """The length of a job as sbatch takes it.

    Raises:
        ConfigError: It is none, or too short for a study to stop in.
    """
    tried = (re.fullmatch(form, time, re.ASCII) for form in _TIMES.values())
    found = next(filter(None, tried), None)
    if found is None:
        raise ConfigError(
            f"--time must be as of sbatch ({', '.join(_TIMES)}), got {time!r}; for example "
            "12:00:00."
        )
    length = sum(_UNIT_S[unit] * int(n) for unit, n in found.groupdict().items() if n)
    if length < _LEAST_S:
        raise ConfigError(
            f"--time must be at least {_LEAST_S // 60} minutes, got {time!r}; hours are written as "
            "HH:MM:SS, a number alone is minutes."
        )
    return length


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """What a job asks SLURM for.

    Raises:
        ConfigError: A value is none that sbatch takes.
    """

    nodes: int
    gpus_per_node: int
    time: str
    cpus_per_task: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None

    def __post_init__(self) -> None:
        seconds_of(self.time)
        for name in ("partition", "account", "qos"):
            value = getattr(self, name)
            # Written into comment lines, where nothing can be quoted for certain.
            if value is not None and not _WORD.fullmatch(value):
                raise ConfigError(
                    f"--{name} must be a name as SLURM has them (letters, digits, _ . , + : @ % / "
                    f"= -), got {value!r}; 'sacctmgr show assoc' and 'sinfo' list yours."
                )

    @property
    def warning_s(self) -> int:
        """How long before its limit a job is told to stop."""
        return min(_WARNING_S, seconds_of(self.time) // 4)

    def directives(self, study: str) -> Iterator[str]:
        """The options of sbatch."""
        yield f"--job-name=tcpa-{study}"
        yield f"--nodes={self.nodes}"
        yield "--ntasks-per-node=1"
        if self.gpus_per_node:
            yield f"--gpus-per-node={self.gpus_per_node}"
        for name in ("cpus_per_task", "partition", "account", "qos"):
            if (value := getattr(self, name)) is not None:
                yield f"--{name.replace('_', '-')}={value}"
        # `ray symmetric-run` wants a node for itself and stops every Ray of the user there.
        yield "--exclusive"
        yield "--mem=0"
        yield f"--time={self.time}"
        yield "--requeue"
        yield f"--signal=B:USR1@{self.warning_s}"
        yield "--no-kill"
        yield f"--output=tcpa-{study}-%j.log"
        yield "--open-mode=append"


def batch_script(
    job: BatchJob, study: str, command: Sequence[str], folder: Path | None, cache: Path | None
) -> str:
    """The text of the script.

    Args:
        study: A checked name: it becomes part of file names.
        command: What the first node runs, but for `--address`.
        folder: Shared by all nodes; None: the one that it is submitted from.
        cache: Of decoded images, on every node; None: one that the job makes and removes.
    """
    directives = "\n".join(f"#SBATCH {one}" for one in job.directives(study))
    words = "\n  ".join(map(quote, command))
    body = files("search.clusters").joinpath("job.sh").read_text(encoding="utf-8")
    return f"""#!/bin/bash
# Study {study} on {job.nodes} nodes. Submit it once: it requeues itself until the study is done.
{directives}
# Functions travel to the nodes as text, which a linter cannot follow.
# shellcheck disable=SC1003,SC2016,SC2089,SC2090,SC2317,SC2329

# What makes 'tcpa' and 'ray' run on every node; edit it:
# module load cuda
export PATH={quote(str(Path(sys.executable).parent))}:"$PATH"

COMMAND=(
  {words}
)
FOLDER={'"$PWD"' if folder is None else quote(str(folder))} # shared by all nodes
CACHE={"" if cache is None else quote(str(cache))} # of each node; empty: below SLURM_TMPDIR or /tmp
CPUS={job.cpus_per_task or ""} # of each node; empty: all
GPUS={job.gpus_per_node} # of each node
GRACE_S={job.warning_s // 2} # in which the study stops before it is killed
MAX_REQUEUES={MAX_REQUEUES}
HEAD= # address of the first node; empty: asked for

{body}"""
