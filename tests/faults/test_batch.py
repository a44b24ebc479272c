"""The batch script of `tcpa slurm` on three hosts, with real Ray and trials that train."""

import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.batch_system import Job
from benchmarks.hosts import Hosts, why_none
from tcpa_core.record.events import read_journal

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.skipif(bool(why_none()), reason=why_none() or "-"),
]

TRIALS, EPOCHS = 6, 8
SPACE = f"""
name: batch
base:
  backbone.name: vit_nano
  data.name: digits
  train: {{epochs: {EPOCHS}, batch_size: 64}}
  methods: [vpt]
axes: {{optim.lr: {{float: [3.0e-3, 1.0e-1], log: true}}}}
sampler: {{name: random}}
scheduler: {{name: none}}
budget: {{trials: {TRIALS}}}
"""
PATIENCE_S = 400.0
ROOT = "/mnt/shared/my studies"


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts("abc") as made:
        yield made


def submit(hosts: Hosts) -> Job:
    """The job of a script that `tcpa slurm` prints on the first host."""
    (hosts.shared / "space.yaml").write_text(SPACE)
    first = next(iter(hosts))
    done = first.run(
        "tcpa", "slurm", "/mnt/shared/space.yaml", "--nodes", "3", "--time", "01:00:00",
        "--cpus-per-task", "1", "--root", ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = Job(hosts, done.stdout)
    job.start()
    return job


def events(hosts: Hosts) -> list[dict[str, Any]]:
    journal = hosts.shared / "my studies" / "batch" / "journal.jsonl"
    return [e.as_dict() for e in read_journal(journal)] if journal.exists() else []


def wait_until(fulfilled: Callable[[], bool], job: Job) -> None:
    until = time.monotonic() + PATIENCE_S
    while not fulfilled():
        assert job.process is not None and job.process.poll() is None, job.log.read_text()
        assert time.monotonic() < until, job.log.read_text()
        time.sleep(0.5)


def used(hosts: Hosts) -> set[str]:
    """Hosts on which trials have been started."""
    return {e["hardware"]["host"] for e in events(hosts) if e["kind"] == "started"}


def epochs(hosts: Hosts) -> Counter[tuple[str, int]]:
    return Counter((e["trial"], e["epoch"]) for e in events(hosts) if e["kind"] == "epoch")


def check(hosts: Hosts) -> None:
    """Every trial ended once and has every epoch once."""
    ended = Counter(e["trial"] for e in events(hosts) if e["kind"] == "completed")
    assert set(ended.values()) == {1} and len(ended) == TRIALS, ended
    numbers = {epoch for _, epoch in epochs(hosts)}
    assert len(numbers) == EPOCHS and len(epochs(hosts)) == TRIALS * EPOCHS
    assert set(epochs(hosts).values()) == {1}
    assert events(hosts)[-1]["kind"] == "finished"
    # No token and no images stay behind.
    assert not list((hosts.shared / "my studies").glob(".tcpa-job*"))
    assert not [name for host in hosts for name in host.tmp.glob("tcpa-*-4711")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_job_that_is_told_to_end_is_requeued_and_finishes_the_study(
    number: signal.Signals, hosts: Hosts
) -> None:
    """SIGTERM reaches all processes of the job, SIGUSR1 only the batch shell, as SLURM has them."""
    job = submit(hosts)
    try:
        wait_until(lambda: len(used(hosts)) > 1 and epochs(hosts).total() > TRIALS, job)
        before = epochs(hosts)
        job.signal(number, to_all=number == signal.SIGTERM)
        assert job.wait(PATIENCE_S) == 3, job.log.read_text()
        assert job.requeues == 1
        assert events(hosts)[-1]["kind"] == "stopped", events(hosts)[-1]
        job.start()
        assert job.wait(PATIENCE_S) == 0, job.log.read_text()
    finally:
        job.end()
    assert job.requeues == 1
    assert before - epochs(hosts) == Counter()
    check(hosts)
    said = job.log.read_text()
    assert "Traceback" not in said
    assert re.search(r"tcpa job 4711: stopped and requeued", said)
