"""The fault table: what was broken, what must hold, and what was measured.

Each row is made of tests below tests/faults, which break real processes, files and servers; this
program runs them and writes down how they ended and what they measured.

    python -m benchmarks.faults
    python -m benchmarks.faults --short
    python -m benchmarks.faults --only driver node
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from subprocess import PIPE, STDOUT
from xml.etree import ElementTree

from benchmarks.harness import RESULTS, machine

ROOT = Path(__file__).parents[1]
AT_ONCE = 2
"""Processes of tests that run at the same time."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A row: what is broken, how, and what must hold; `tests` say which tests show it."""

    name: str
    made: str
    holds: str
    tests: tuple[str, ...]
    """Files, or file::test without parameters, below tests/."""


KILLS, CLUSTER = "faults/test_kills.py", "faults/test_cluster.py"
FAULTS = (
    Fault(
        "worker killed in mid-epoch",
        "kill -9 of the worker process",
        "its trials, pack neighbours too, go on from their last epoch",
        (f"{KILLS}::test_a_killed_worker_loses_nothing_and_the_user_is_told",),
    ),
    Fault(
        "worker killed in a save",
        "kill -9 before and after the fsync and the rename of a checkpoint",
        "what was told can be taken up; a trial alone ends with the same numbers to the bit",
        ("faults/test_killed_saves.py",),
    ),
    Fault(
        "node lost; nodes join",
        "3 nodes, raylet of one killed; then two nodes added",
        "its trials move; new nodes are used within one trial's length",
        (
            f"{CLUSTER}::test_trials_of_a_lost_node_move_and_nodes_that_join_are_used",
            f"{CLUSTER}::test_a_study_that_began_on_processors_moves_to_a_gpu_that_joins",
            f"{CLUSTER}::test_devices_are_counted_again_and_silence_shows",
        ),
    ),
    Fault(
        "node frozen; head lost",
        "all processes of a node stopped; then the head killed",
        "its trials move; the driver says so and ends, resume on a new cluster loses nothing",
        (
            f"{CLUSTER}::test_a_frozen_node_is_found_out_and_a_lost_head_is_survived_on_a_new_cluster",
        ),
    ),
    Fault(
        "a host without what the study was planned with",
        "three hosts, one of them with other data, without data, weights or package, with another "
        "state or version of the package",
        "it is refused in one line with the reason; every trial completes on the others with "
        "equal numbers",
        (
            "faults/test_nodes.py",
            f"{CLUSTER}::test_a_study_ends_only_where_no_node_passes_and_one_that_passes_later_is_used",
        ),
    ),
    Fault(
        "network cut for a while",
        "on three hosts: the link of the driver's for 25 s, that of a node for 100 s and 'ray "
        "start' there again; the head stopped",
        "the driver goes on and the user reads of both; the node's trials move, it is named with "
        "what to type and used again; a head is called gone when it is; nothing is lost or twice",
        ("faults/test_network.py", "search/test_cut_network.py"),
    ),
    Fault(
        "hosts without a common folder",
        "three hosts, the study's folder on one or in a storage: a node lost, the driver killed, "
        "another host goes on",
        "checkpoints come back through Ray or lie in the storage; nothing lost, nothing twice",
        ("faults/test_unshared.py",),
    ),
    Fault(
        "a job of a batch system is told to end",
        "the script of 'tcpa slurm' on three hosts: SIGTERM to the whole job, SIGUSR1 to its batch "
        "shell; then the script again",
        "stopped in order, requeued once, finished on all hosts: nothing lost, nothing twice",
        ("faults/test_batch.py",),
    ),
    Fault(
        "a host without files",
        "three hosts, data and weights on the first alone; with --ship-data and without; copies "
        "damaged or half; a cache that cannot be written; plug-ins that are absent or others",
        "what is lacking is sent once, with numbers as on a host that has it, and mended where it "
        "is damaged; else one line names the host and what to do",
        ("faults/test_without_files.py",),
    ),
    Fault(
        "others want places of the cluster",
        "a second study and tasks of another job on three nodes that a study holds; a placement "
        "group of another job; no node at all",
        "everybody gets a place within two epochs, trials go on elsewhere with the numbers of a "
        "study alone, places are taken again; who waits says for what",
        ("faults/test_sharing.py",),
    ),
    Fault(
        "driver killed",
        "kill -9 in mid-epoch, before a checkpoint, between checkpoint and journal line, while "
        "MLflow is written; then tcpa resume",
        "set of trials, suggestions and numbers of an undisturbed run; MLflow = journal",
        (
            f"{KILLS}::test_a_driver_killed_at_four_points_is_resumed_to_the_numbers_of_an_"
            "undisturbed_run",
            f"{KILLS}::test_real_training_gives_the_same_numbers_and_a_nan_fails_its_member_alone",
            "search/test_pbt_killed.py",
        ),
    ),
    Fault(
        "Ctrl-C once, twice; SIGTERM",
        "signals, also while an epoch never ends",
        "orderly stop within 30 s, a second signal stops at once; resumable",
        (
            f"{KILLS}::test_a_signal_ends_a_study_in_order_within_30_s_though_an_epoch_never_ends",
            f"{KILLS}::test_a_signal_ends_a_study_in_order_and_a_second_one_at_once",
        ),
    ),
    Fault(
        "a command with --resume repeated",
        "typed while it runs, after kill -9, by two at once; SIGUSR1, SIGHUP, SIGTERM and SIGINT "
        "at six moments, a terminal that closes, a pipe that nobody reads",
        "one study; exit code 3 until it is finished, then 0; nothing lost or repeated",
        ("faults/test_repeats.py",),
    ),
    Fault(
        "NaN, exploding loss",
        "real training, optim.lr = 1e6 in one member",
        "that member alone fails",
        (
            f"{KILLS}::test_real_training_gives_the_same_numbers_and_a_nan_fails_its_member_alone",
            "tcpa_core/test_pack.py::test_a_diverging_member_fails_alone",
        ),
    ),
    Fault(
        "MLflow or its database down, slow, answering 500, locked, restarted",
        "real mlflow server on PostgreSQL, stopped and started; a proxy; sqlite with 8 writers",
        "training unaffected; afterwards MLflow equals the journal",
        ("faults/test_tracking_faults.py",),
    ),
    Fault(
        "disk full, read-only",
        "a small file system as study folder",
        "said at once, running trials keep their state, resumes when there is room",
        ("faults/test_disk.py",),
    ),
    Fault(
        "cache on a disk that is small, filling or read-only",
        "a small file system as cache, as temporary folder",
        "refused with both numbers before a picture is decoded; never filled; read-only works",
        ("faults/test_cache_disk.py",),
    ),
    Fault(
        "torn or corrupted files",
        "journal, checkpoint, cache cut and altered at every 100th position",
        "found by checksum, last good state used, said",
        ("faults/test_files.py",),
    ),
    Fault(
        "clock jumps, two drivers, stale lock",
        "faked clock, second driver, dead holder",
        "the second is refused by name of the first; a stale lock is taken over",
        ("faults/test_engine.py",),
    ),
    Fault(
        "a trial that hangs",
        "an epoch that never ends; a worker that does not even answer",
        "the watchdog names the trial, fails it alone and goes on",
        ("faults/test_watchdog.py",),
    ),
    Fault(
        "out of memory",
        "a worker killed for its memory; RLIMIT_AS",
        "smaller pack, then micro-batches, then failure with the size that fits",
        (
            "faults/test_memory.py",
            "tcpa_core/test_pack.py::test_worker_shrinks_when_memory_is_short",
        ),
    ),
    Fault(
        "several at once",
        "random kills of workers, nodes and drivers (short form of the soak)",
        "0 lost, 0 repeated, MLflow = journal = Parquet",
        ("faults/test_soak.py",),
    ),
    Fault(
        "hostile input, secrets",
        "500 hostile inputs, pickles, traversal, markup; passwords in addresses",
        "only our own errors; nothing runs; no secret is written",
        ("faults/test_hostile.py", "faults/test_no_code.py", "faults/test_secrets.py"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """How one test ended."""

    test: str
    outcome: str
    """"passed", "failed" or "skipped: REASON"."""
    seconds: float
    measured: dict[str, str]

    def is_of(self, test: str) -> bool:
        """Whether it is this test, or one of this file."""
        return self.test == test or self.test.startswith(f"{test}::")


def run(tests: Iterable[str], *, short: bool) -> list[Case]:
    """Run tests in several processes at once: most of the time they wait for something to happen.

    Those of each file have a process of their own, because Ray keeps what it was in one. The tests
    of the short form end no cluster's head, and share two processes, whose imports take seconds.

    Args:
        tests: Files, or file::test.
        short: Leave out those that are marked `faults`.
    """
    ordered = sorted(tests)
    if short:
        half = len(ordered) // 2
        parts = [part for part in (ordered[:half], ordered[half:]) if part]
    else:
        parts = [list(some) for _, some in groupby(ordered, lambda test: test.partition("::")[0])]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        cases = []
        for done in as_completed(pool.submit(_run, part, short=short) for part in parts):
            output, found = done.result()
            print(output, flush=True)
            cases += found
    return cases


def _run(tests: Sequence[str], *, short: bool) -> tuple[str, list[Case]]:
    """What pytest prints, and how the tests ended."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-o", "junit_family=xunit1", f"--junitxml={report}", "-p", "no:randomly"]
        marks = ["-m", "not faults" if short else ""]
        command = [sys.executable, "-m", "pytest", *marks, *options, *tests]
        done = subprocess.run(command, cwd=ROOT, stdout=PIPE, stderr=STDOUT, text=True)
        if not report.exists():
            raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}")
        return done.stdout, [
            _case(element) for element in ElementTree.parse(report).iter("testcase")
        ]


def _case(element: ElementTree.Element) -> Case:
    skipped = element.find("skipped")
    failed = element.find("failure") is not None or element.find("error") is not None
    outcome = "failed" if failed else "passed"
    if skipped is not None:
        outcome = f"skipped: {skipped.get('message')}"
    file = element.get("file", "").removeprefix("tests/")
    return Case(
        test=f"{file}::{element.get('name', '').partition('[')[0]}",
        outcome=outcome,
        seconds=float(element.get("time", 0)),
        measured={
            p.get("name", ""): p.get("value", "") for p in element.findall("properties/property")
        },
    )


def row(fault: Fault, cases: Sequence[Case]) -> dict[str, str]:
    """A row of the table."""
    mine = [case for case in cases if any(case.is_of(test) for test in fault.tests)]
    passed = [c for c in mine if c.outcome == "passed"]
    failed = [c for c in mine if c.outcome == "failed"]
    skipped = {c.outcome for c in mine} - {"passed", "failed"}
    outcome = "does NOT hold" if failed else "holds" if passed else "not run"
    measured = [f"{name} {value}" for case in mine for name, value in case.measured.items()]
    return {
        "fault": fault.name,
        "how it is made": fault.made,
        "what must hold": fault.holds,
        "outcome": "; ".join([outcome, *sorted(skipped)]),
        "tests": f"{len(passed)} of {len(mine)} passed",
        "measured": "; ".join(measured),
        "seconds": f"{sum(c.seconds for c in mine):.0f}",
    }


def table(rows: Sequence[dict[str, str]]) -> str:
    """The rows as Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the tests of all rows, or of those whose name has one of some words, and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="words of the faults' names")
    parser.add_argument("--short", action="store_true", help="without the tests marked `faults`")
    options = parser.parse_args()
    faults = [f for f in FAULTS if any(word in f.name for word in options.only)]
    names = {f"tests/{test}" for fault in faults for test in fault.tests}
    cases = run(names, short=options.short)
    rows = [row(fault, cases) for fault in faults]
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": machine(), "rows": rows, "cases": [asdict(case) for case in cases]}
    (RESULTS / "faults.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "faults.md").write_text(table(rows))
    print(table(rows))
    wanted = ("holds", "not run") if options.short else ("holds",)
    if any(not r["outcome"].startswith(wanted) for r in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
