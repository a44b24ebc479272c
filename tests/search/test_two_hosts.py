"""One small search on two hosts, of which one lacks the data; more such scenes: tests/faults."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.hosts import Host, Hosts, why_none
from tcpa_core.record.events import read_journal
from tests.tcpa_core.data_layouts import folder

pytestmark = pytest.mark.integration

TRIALS = 4
SPACE = f"""
name: pair
base:
  backbone.name: vit_nano
  data: {{name: folder, root: /mnt/data/pictures}}
  train: {{epochs: 2, batch_size: 16}}
  methods: [linear]
axes: {{optim.lr: {{float: [1.0e-3, 1.0e-1], log: true}}}}
sampler: {{name: random}}
scheduler: {{name: none}}
budget: {{trials: {TRIALS}}}
"""
OTHER_JOB = """
import time, ray
ray.init("auto", log_to_driver=False)

@ray.remote(num_cpus=1, resources={"node:10.77.0.1": 0.01})
class Holder:
    def there(self):
        return "has the place"

holder = Holder.remote()
print(ray.get(holder.there.remote()), flush=True)
time.sleep(3600)
"""
"""Keeps the place of the first host, so that the study comes to the second one before it."""
PATIENCE_S = 240.0


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if why := why_none():
        pytest.skip(why)
    with Hosts("ab") as made:
        yield made


def take_place(head: Host, other: Host) -> subprocess.Popen[str]:
    """Start another job that holds the place of the head's host, and have the other host join."""
    job = head.start("python", "-c", OTHER_JOB)
    other.start_ray(head)
    assert job.stdout is not None
    said = ""
    while "has the place" not in said:
        line = job.stdout.readline()
        assert line, f"the other job has ended: {said}"
        said += line
    return job


def events(journal: Path) -> list[dict[str, Any]]:
    return [event.as_dict() for event in read_journal(journal)] if journal.exists() else []


def notices(journal: Path) -> list[str]:
    return [event["text"] for event in events(journal) if event["kind"] == "notice"]


def test_a_host_without_the_data_is_left_to_others_in_one_line(hosts: Hosts) -> None:
    a, b = hosts
    folder(a.data / "pictures")
    (hosts.shared / "pair.yaml").write_text(SPACE)
    journal = hosts.shared / "studies" / "pair" / "journal.jsonl"
    a.start_ray()
    job = take_place(a, b)
    search = a.start(
        "tcpa", "search", "/mnt/shared/pair.yaml", "--root", "/mnt/shared/studies",
        "--address", "auto",
    )  # fmt: skip
    until = time.monotonic() + PATIENCE_S
    while not any("hostb is not used" in text for text in notices(journal)):
        assert search.poll() is None, search.communicate()[0]
        assert time.monotonic() < until, notices(journal)
        time.sleep(0.2)
    a.kill("Holder")
    job.communicate()
    printed, _ = search.communicate(timeout=PATIENCE_S)
    assert search.returncode == 0, printed
    found = events(journal)
    ended = [event["trial"] for event in found if event["kind"] == "completed"]
    assert len(ended) == len(set(ended)) == TRIALS and found[-1]["kind"] == "finished", printed
    assert not any(event["kind"] == "failed" for event in found)
    assert {e["hardware"]["host"] for e in found if e["kind"] == "started"} == {"hosta"}
    [told] = [text for text in notices(journal) if "hostb" in text]
    assert told.startswith("hostb is not used: data.root") and "--ship-data" in told, told
    assert printed.count("hostb is not used: ") == 1 and "Traceback" not in printed, printed
