"""Links that are cut for a while, and a head that is gone: the driver's host, a node's host."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.hosts import CHECKOUT, PORT, Host, Hosts, why_none
from search.exit_codes import STOPPED

pytestmark = [
    pytest.mark.faults,
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_none()), reason=why_none() or "hosts are to be had"),
]

PATIENCE_S = 200.0
USUAL = ("has no GPU yet", "is on a path that hosts share", "1 idle worker is released")
"""In what a study on such hosts says without any fault."""
ROOT = "/mnt/shared/studies"
MAKE = """
from pathlib import Path
from benchmarks._faults.scene import make_space, make_study
make_study(Path({root!r}), make_space({trials}, {epochs}), workers=None, epoch_s={epoch_s})
"""
CHECK = """
from pathlib import Path
from benchmarks._faults.check import check
from benchmarks._faults.scene import make_space
from search.study.folder import StudyDir
found = check(StudyDir.open(Path({root!r}), "faults"), make_space({trials}, {epochs}))
assert found.drivers == 1, found
"""
"""Nothing is lost or recorded twice, by one driver."""


class Study:
    """A study with stub training whose driver runs on a host."""

    def __init__(self, hosts: Hosts, host: Host, trials: int, epochs: int, epoch_s: float) -> None:
        self._host = host
        self._numbers = {"root": ROOT, "trials": trials, "epochs": epochs, "epoch_s": epoch_s}
        host.run("python", "-c", MAKE.format(**self._numbers), check=True)
        self._journal = hosts.shared / "studies" / "faults" / "journal.jsonl"
        self._log = (hosts.shared / "driver.log").open("w+")
        command = ("python", "-m", "benchmarks._faults.driver", "resume", "faults")
        address = ("--root", ROOT, "--address", f"{next(iter(hosts)).address}:{PORT}")
        self.process = host.start(*command, *address, stdout=self._log)

    @property
    def output(self) -> str:
        with open(self._log.name) as log:
            return log.read()

    def events(self, kind: str) -> list[dict[str, Any]]:
        if not self._journal.exists():
            return []
        lines = self._journal.read_text().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if event["kind"] == kind]

    def told(self, text: str) -> list[str]:
        """What the user was told with these words in it."""
        return [one["text"] for one in self.events("notice") if text in one["text"]]

    def on(self, host: Host, *, after: int = 0) -> int:
        """Trials that were begun or taken up on a host, among those after the first so many."""
        begun = self.events("started")[after:]
        return sum(one["hardware"]["host"] == host.name for one in begun)

    def wait_until(self, holds: Callable[[], object], what: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not holds():
            assert self.process.poll() is None, f"ended before {what}:\n{self.output}"
            assert time.monotonic() < until, f"no {what}:\n{self.output}"
            time.sleep(0.2)

    def check(self) -> None:
        """It ends well, and its records hold all of it once."""
        assert self.process.wait(PATIENCE_S) == 0, self.output
        assert "Traceback" not in self.output and "raylet" not in self.output
        self._host.run("python", "-c", CHECK.format(**self._numbers), check=True)


@contextmanager
def lab() -> Iterator[tuple[Hosts, Host, Host, Host]]:
    """A head without trials, and two nodes."""
    with Hosts("abc") as hosts:
        a, b, c = hosts
        for host in hosts:
            host.env["PYTHONPATH"] = str(CHECKOUT)  # workers import the stub
        a.start_ray(cpus=0)
        b.start_ray(a)
        c.start_ray(a)
        yield hosts, a, b, c


def test_a_driver_that_is_cut_off_for_25_s_goes_on() -> None:
    with lab() as (hosts, a, b, c):
        study = Study(hosts, b, trials=8, epochs=25, epoch_s=0.8)
        study.wait_until(lambda: study.on(b) and study.on(c), "trials on both nodes")
        study.wait_until(lambda: len(study.events("epoch")) > 8, "epochs")
        b.cut()
        time.sleep(25)
        b.join()
        study.wait_until(lambda: study.told("answers again"), "an answer")
        study.check()
        assert study.told(f"no answer from the cluster at {a.address}:{PORT} for 20 s; waiting")
        # Nothing was lost, nobody given up: beside the two words on the cut, the user reads only
        # what every such study says.
        usual = sum(len(study.told(words)) for words in USUAL)
        assert len(study.events("notice")) == 2 + usual, study.output


def test_a_node_that_is_cut_off_for_100_s_is_named_and_used_again() -> None:
    with lab() as (hosts, a, b, c):
        study = Study(hosts, b, trials=16, epochs=30, epoch_s=0.8)
        study.wait_until(lambda: study.on(b) and study.on(c), "trials on both nodes")
        study.wait_until(lambda: len(study.events("epoch")) > 8, "epochs")
        begun = time.monotonic()
        c.cut()
        study.wait_until(lambda: study.told("has given up the node"), "a word on the node")
        (word,) = study.told("has given up the node")
        assert f"on {c.name} ({c.address})" in word
        assert word.endswith(f"type there: ray stop; ray start --address={a.address}:{PORT}")
        time.sleep(max(0.0, begun + 100 - time.monotonic()))
        c.join()
        known = len(study.events("started"))
        assert any(one["epoch"] for one in study.events("started")), "its trials go on elsewhere"
        c.stop_ray()
        c.start_ray(a)
        study.wait_until(lambda: study.on(c, after=known), "trials on the node that is back")
        assert study.told(f"a node on {c.name} ({c.address}) is in the cluster again")
        study.check()


def test_a_head_that_is_gone_is_called_so() -> None:
    with lab() as (hosts, a, b, c):
        study = Study(hosts, b, trials=8, epochs=50, epoch_s=0.8)
        study.wait_until(lambda: len(study.events("epoch")) > 4, "epochs")
        a.stop_ray()
        assert study.process.wait(PATIENCE_S) == STOPPED, study.output
        told = " ".join(study.output.split())
        assert "the Ray cluster of study 'faults' does not answer any more" in told
        assert f"its head is gone: nothing listens at {a.address}:{PORT} any more" in told
        assert "tcpa resume faults" in told and "waiting" not in told and "Traceback" not in told


def test_a_head_whose_machine_is_off_ends_the_driver() -> None:
    with lab() as (hosts, a, b, c):
        study = Study(hosts, b, trials=8, epochs=200, epoch_s=0.8)
        study.wait_until(lambda: len(study.events("epoch")) > 4, "epochs")
        a.cut()
        assert study.process.wait(PATIENCE_S) == STOPPED, study.output
        told = " ".join(study.output.split())
        assert f"no answer from the cluster at {a.address}:{PORT} for 20 s; waiting" in told
        assert "the Ray cluster of study 'faults' does not answer any more" in told
        assert f"(no answer from {a.address}:{PORT} for " in told
        assert "its machine or the network between is down" in told
        assert "tcpa resume faults" in told and "Traceback" not in told
