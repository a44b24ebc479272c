"""Hosts without a common folder: checkpoints come back through Ray, or lie in a storage."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.hosts import Host, Hosts, why_none
from tcpa_core.record.events import read_journal
from tests.search.s3_server import BUCKET, ENVIRONMENT, query

pytestmark = [
    pytest.mark.faults,
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_none()), reason=why_none() or "hosts are to be had"),
]

TRIALS, EPOCHS = 6, 6
SPACE = f"""
name: apart
base: {{backbone.name: vit_nano, data.name: digits, vpt.prompt_dropout: 0.0, methods: [vpt],
       train: {{epochs: {EPOCHS}, batch_size: 64}}}}
axes: {{optim.lr: {{float: [3.0e-3, 1.0e-1], log: true}}}}
sampler: {{name: random}}
scheduler: {{name: none}}
budget: {{trials: {TRIALS}}}
"""
ROOT = "/mnt/local/studies"
HOW = query("10.77.0.1", 5000)
MAKE_BUCKET = f"""
from pyarrow.fs import FileSystem
maker, _ = FileSystem.from_uri("s3://{BUCKET}/{HOW}&allow_bucket_creation=true")
maker.create_dir("{BUCKET}")
"""


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    with Hosts("abc") as found:
        a, b, c = found
        for host in (a, b, c):
            host.env.update(ENVIRONMENT)
            (host.home / "apart.yaml").write_text(SPACE)
        a.start_ray()
        b.start_ray(a)
        c.start_ray(a)
        yield [a, b, c]


def serve(host: Host) -> None:
    """A server that speaks S3 in a host."""
    host.start("python", "-m", "moto.server", "-H", host.address, "-p", "5000")
    until = time.monotonic() + 60
    while host.run("python", "-c", MAKE_BUCKET).returncode:
        assert time.monotonic() < until, "the server does not start"


def events(host: Host) -> list[dict[str, object]]:
    journal = host.local / "studies" / "apart" / "journal.jsonl"
    return [one.as_dict() for one in read_journal(journal)] if journal.exists() else []


def wait_for(host: Host, kind: str, count: int) -> None:
    until = time.monotonic() + 300
    while sum(one["kind"] == kind for one in events(host)) < count:
        assert time.monotonic() < until, events(host)
        time.sleep(0.2)


@pytest.mark.parametrize("where", ["through Ray", "in a storage"])
def test_nothing_is_lost_without_a_common_folder(hosts: list[Host], where: str) -> None:
    """A node is lost, the driver is killed, another host goes on, and looks at what was trained."""
    a, b, c = hosts
    stored: list[str] = []
    if where == "in a storage":
        serve(a)
        stored = [f"--storage=s3://{BUCKET}/studies{HOW}"]
    at = ["--root", ROOT, *stored]
    a.start("tcpa", "search", "apart.yaml", *at, "--address", "auto")
    wait_for(a, "completed", 1)
    c.stop_ray()
    wait_for(a, "completed", 2)
    a.kill("tcpa search")
    if not stored:  # as its user would
        Path(b.local / "studies").mkdir()
        shutil.copytree(a.local / "studies" / "apart", b.local / "studies" / "apart")

    for one, other in ((a, b), (b, a)):  # as if each had begun what the other did
        for path in list((one.home / ".cache" / "tcpa").glob("studies/*/checkpoints/*")):
            if not (there := other.home / path.relative_to(one.home)).exists():
                shutil.copytree(path, there)

    done = b.run("tcpa", "resume", "apart", *at, "--address", "auto", timeout=400)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    found = events(b)
    kinds = Counter(str(one["kind"]) for one in found)
    assert kinds["completed"] == TRIALS and not kinds["failed"] and kinds["tested"] == 1, printed
    epochs = Counter((one["trial"], one["epoch"]) for one in found if one["kind"] == "epoch")
    assert len(epochs) == TRIALS * EPOCHS and set(epochs.values()) == {1}
    notices = [str(one["text"]) for one in found if one["kind"] == "notice"]
    # said once for each host that has not got it
    says = [text for text in notices if "does not share the study folder" in text]
    assert len(says) == len(set(says)) and bool(says) == (not stored), notices
    for host in (a, b):  # nothing stays on a node
        assert not list((host.home / ".cache" / "tcpa").glob("studies/*/checkpoints/*"))

    asked = b if not stored else a
    if stored:
        shutil.rmtree(a.local / "studies")
    else:
        saved = list((b.local / "studies" / "apart").glob("checkpoints/*/best.safetensors"))
        assert len(saved) == TRIALS
    for verb in (["inspect", "apart", "0"], ["report", "apart"], ["replay", "apart", "1"]):
        done = asked.run("tcpa", *verb, *at, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "is trained again" not in done.stdout
    # What the selected trial took images for has come to where the report is made.
    assert (asked.local / "studies" / "apart" / "tables" / "predictions.parquet").is_file()
    (a_line,) = asked.run("tcpa", "list", *at).stdout.splitlines()[1:]
    assert f"{TRIALS} of {TRIALS}" in a_line
