"""Studies and other jobs on one cluster: everybody gets a place, and nobody waits silently."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks._faults.check import check
from benchmarks._faults.scene import ROOT, Driver, cluster, make_space, make_study

pytestmark = [pytest.mark.integration, pytest.mark.faults]

Record = Callable[[str, object], None]

EPOCHS, EPOCH_S = 12, 1.0

TASKS = """
import json, sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
begun = time.time()

@ray.remote(num_cpus=1)
def task():
    began = time.time()
    time.sleep(1)
    return began

print(json.dumps([began - begun for began in ray.get([task.remote() for _ in range(4)])]))
"""
GROUP = """
import json, sys, time, ray
from ray.util.placement_group import placement_group, remove_placement_group
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
begun = time.time()
group = placement_group([{"CPU": 1}] * 2, strategy="SPREAD")
ray.get(group.ready())
print(json.dumps([time.time() - begun]), flush=True)
time.sleep(float(sys.argv[2]))
remove_placement_group(group)
"""


class OtherJob:
    """Somebody else's Ray program on the cluster; prints how long it waited for its places."""

    def __init__(self, code: str, address: str, *arguments: str) -> None:
        line = [sys.executable, "-c", code, address, *arguments]
        self.process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ)
        )

    def waited_s(self) -> list[float]:
        """As it printed."""
        assert self.process.stdout is not None
        waited: list[float] = json.loads(self.process.stdout.readline())
        return waited

    def end(self) -> None:
        self.process.wait(60)


def notices(driver: Driver) -> list[str]:
    return [event["text"] for event in driver.events() if event["kind"] == "notice"]


def waits(driver: Driver) -> list[str]:
    """What workers were said to wait for."""
    return [event["text"] for event in driver.events() if event.get("waits")]


def used(driver: Driver) -> set[int]:
    """Numbers of the workers that have taken trials."""
    return {event["worker"] for event in driver.events() if event["kind"] == "started"}


def has_epochs(driver: Driver) -> bool:
    return driver.kinds()["epoch"] > 0


def times(driver: Driver) -> list[float]:
    """Of the journal's lines up to the first epoch."""
    found = []
    for event in driver.events():
        found.append(event["t"])
        if event["kind"] == "epoch":
            break
    return found


def train_s(driver: Driver) -> float:
    """From a driver's first line to its first epoch."""
    return times(driver)[-1] - times(driver)[0]


def silence_s(driver: Driver) -> float:
    """The longest time in between in which the journal got no line."""
    return max(after - before for before, after in pairwise(times(driver)))


def test_two_studies_and_another_job_get_a_place_each(
    tmp_path: Path, record_property: Record
) -> None:
    long, short = make_space(trials=15, epochs=EPOCHS), make_space(trials=4, epochs=6)
    first = make_study(tmp_path / "a", long, workers=3, slots=1, epoch_s=1.5 * EPOCH_S)
    second = make_study(tmp_path / "b", short, workers=3, slots=1, epoch_s=EPOCH_S)
    with cluster(3) as nodes, Driver(first, nodes.address) as one:
        one.wait_for("study")
        with Driver(second, nodes.address) as two:
            one.wait_until(lambda: len(used(one)) == 3, "trials on three nodes")
            two.wait_for("study")
            other = OtherJob(TASKS, nodes.address)
            two.wait_until(lambda: has_epochs(two), "an epoch of the second study")
            record_property("the second study trains after", f"{train_s(two):.1f} s")
            record_property("its longest silence until then", f"{silence_s(two):.1f} s")
            assert silence_s(two) < 60
            waited = other.waited_s()
            record_property("another job's tasks began after", f"{max(waited):.1f} s")
            other.end()
            assert one.finish() == 0, one.output
            assert two.finish() == 0, two.output
            told = [*notices(one), *notices(two)]
            ended = [text for text in told if "has ended (its place goes to" in text]
            assert 1 <= len(ended) <= 4, told
            assert any("go on elsewhere from their last epoch" in text for text in ended), ended
            assert not [text for text in told if "was lost" in text], told
    # The numbers of every trial are those of a study alone on its cluster.
    check(first, long)
    check(second, short)


def test_a_group_of_another_job_gets_places_and_the_study_has_them_back(
    tmp_path: Path, record_property: Record
) -> None:
    space = make_space(trials=36, epochs=EPOCHS)
    study = make_study(tmp_path, space, workers=4, slots=1, epoch_s=EPOCH_S)
    with cluster(4) as nodes, Driver(study, nodes.address) as driver:
        driver.wait_until(lambda: len(used(driver)) == 4, "trials on four nodes")
        other = OtherJob(GROUP, nodes.address, "5")
        record_property("a group of two had its places after", f"{other.waited_s()[0]:.1f} s")
        before = used(driver)
        other.end()
        driver.wait_until(lambda: len(used(driver) - before) == 2, "both places again")
        assert driver.finish() == 0, driver.output
        told = notices(driver)
        assert sum("has ended (its place goes to another job" in text for text in told) == 2, told
        assert any("others need fewer places now" in text for text in told), told
        assert any("idle worker" in text and "released" in text for text in told), told
    check(study, space)


def test_a_study_that_waits_says_for_what_and_asks_for_all_its_places(tmp_path: Path) -> None:
    # Not done before the last of the nodes has joined.
    space = make_space(trials=9, epochs=EPOCHS)
    study = make_study(tmp_path, space, workers=3, slots=1, epoch_s=EPOCH_S)
    with cluster(0) as nodes, Driver(study, nodes.address) as driver:
        driver.wait_until(lambda: bool(waits(driver)), "a word on the wait")
        need = "waiting for a place: 3 workers need 1 CPU each, and no node of the cluster has one"
        assert waits(driver) == [need]
        line = [sys.executable, "-m", "search.cli", "status", study.name, "--root", str(tmp_path)]
        status = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
        assert f"{need} (for 0 min)" in status.stdout
        for _ in range(3):
            nodes.add()
        assert driver.finish() == 0, driver.output
        assert any("no worker waits for a place any more" in text for text in notices(driver))
    check(study, space)
