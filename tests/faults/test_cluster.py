"""Nodes that are lost, freeze or join, and a cluster that is gone: Ray's own processes, killed."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from benchmarks._faults.check import check
from benchmarks._faults.scene import Driver, cluster, make_space, make_study, order
from search.driver.devices import Devices

pytestmark = pytest.mark.integration

Record = Callable[[str, object], None]

EPOCHS, EPOCH_S = 12, 0.8
TRIAL_S = EPOCHS * EPOCH_S
"""What a trial takes on a worker that is up."""


def used(driver: Driver) -> set[int]:
    """Numbers of the workers that have taken trials."""
    return {e["worker"] for e in driver.events() if e["kind"] == "started"}


def moved(driver: Driver) -> set[str]:
    """Trials that went on elsewhere."""
    return {e["trial"] for e in driver.events() if e["kind"] == "started" and e["epoch"] > 0}


def notices(driver: Driver) -> list[str]:
    """What the user was told; each in one line, once."""
    found = [e["text"] for e in driver.events() if e["kind"] == "notice"]
    assert all(driver.output.count(text) == 1 for text in found), driver.output
    return found


@pytest.mark.faults
def test_trials_of_a_lost_node_move_and_nodes_that_join_are_used(
    tmp_path: Path, record_property: Record
) -> None:
    space = make_space(trials=18, epochs=EPOCHS)
    study = make_study(tmp_path, space, workers=None, epoch_s=EPOCH_S)
    with cluster(3) as nodes, Driver(study, nodes.address) as driver:
        driver.wait_until(lambda: len(used(driver)) == 3, "trials on three nodes")
        driver.wait_for("epoch", 12)
        nodes.lose(nodes.nodes[0])
        begun = time.monotonic()
        driver.wait_for("notice")
        record_property("loss noticed after", f"{time.monotonic() - begun:.1f} s")
        driver.wait_until(lambda: bool(moved(driver)), "trials that go on elsewhere")
        record_property("its trials go on after", f"{time.monotonic() - begun:.1f} s")

        before = used(driver)
        nodes.add()  # in its stead
        nodes.add()  # and one more
        begun = time.monotonic()
        driver.wait_until(lambda: len(used(driver) - before) == 2, "trials on both new nodes")
        took = time.monotonic() - begun
        record_property("two nodes that joined are used after", f"{took:.1f} s")
        record_property("length of a trial", f"{TRIAL_S:.1f} s")
        assert driver.finish() == 0, driver.output
        told = notices(driver)
        assert any("was lost (its node" in text for text in told), told
        assert any("the cluster has grown: 1 more worker" in text for text in told), told
        assert "raylet" not in driver.output and "Traceback" not in driver.output
    check(study, space)


@pytest.mark.faults
def test_a_frozen_node_is_found_out_and_a_lost_head_is_survived_on_a_new_cluster(
    tmp_path: Path, record_property: Record
) -> None:
    space = make_space(trials=12, epochs=EPOCHS)
    study = make_study(tmp_path, space, workers=None, epoch_s=EPOCH_S)
    with cluster(2) as nodes, Driver(study, nodes.address) as driver:
        driver.wait_until(lambda: len(used(driver)) == 2, "trials on two nodes")
        driver.wait_for("epoch", 8)
        nodes.freeze(nodes.nodes[0])
        took = driver.wait_until(lambda: bool(moved(driver)), "trials that go on elsewhere")
        record_property("trials of a frozen node go on after", f"{took:.1f} s")
        assert any("was lost (its node" in text for text in notices(driver))

        begun = time.monotonic()
        nodes.lose_head()
        said = "the Ray cluster of study 'faults' does not answer any more"
        driver.wait_until(
            lambda: said in driver.output or driver.process.poll() is not None,
            "a word about the head",
        )
        took = time.monotonic() - begun
        has_spoken = said in driver.output
        record_property("lost head said" if has_spoken else "ended by Ray", f"after {took:.1f} s")
        assert driver.finish(90) != 0
    order(study)
    with cluster(1) as nodes, Driver(study, nodes.address) as driver:
        assert driver.finish() == 0, driver.output
        # Where Ray has ended the driver before it could speak, the next one says so.
        assert has_spoken or "took over from a driver that ended" in driver.output
    found = check(study, space)
    assert found.drivers == 2


@pytest.mark.faults
def test_a_study_that_began_on_processors_moves_to_a_gpu_that_joins(tmp_path: Path) -> None:
    space = make_space(trials=6, epochs=4 * EPOCHS)  # the GPU's worker takes its time to load
    study = make_study(tmp_path, space, workers=None, epoch_s=EPOCH_S)
    with cluster(2) as nodes, Driver(study, nodes.address) as driver:
        driver.wait_until(lambda: len(used(driver)) == 2, "trials on two nodes")
        driver.wait_for("epoch", 4)
        nodes.add(num_gpus=1)
        assert driver.finish() == 0, driver.output
        told = notices(driver)
        started = [event for event in driver.events() if event["kind"] == "started"]
    assert "the cluster has no GPU yet: trials begin on processors" in told[0]
    assert any("1 GPUs are in the cluster now" in text for text in told), told
    assert sum("has ended (its trials move to GPUs)" in text for text in told) == 2, told
    on_gpu = [event for event in started if event["device"] == "cuda"]
    assert {event["device"] for event in started} == {"cpu", "cuda"}
    assert any(event["epoch"] > 0 for event in on_gpu), "they go on, they do not begin anew"
    check(study, space)


@pytest.mark.faults
def test_a_study_ends_only_where_no_node_passes_and_one_that_passes_later_is_used(
    tmp_path: Path, record_property: Record
) -> None:
    space = make_space(trials=30, epochs=EPOCHS)
    with cluster(2) as nodes:
        first, second = (node.node_id for node in nodes.nodes)
        gone = {"lacks": "data.root='/data/x' does not exist"}
        study = make_study(
            tmp_path, space, workers=None, epoch_s=EPOCH_S, nodes={first: gone, second: gone}
        )
        with Driver(study, nodes.address) as driver:
            assert driver.finish() == 3
            assert "No node can train this study: " in driver.output, driver.output
            assert driver.output.count("/data/x") >= 2 and "Traceback" not in driver.output
            assert not used(driver)
        order(study, epoch_s=EPOCH_S, nodes={first: gone})
        with Driver(study, nodes.address) as driver:
            driver.wait_until(lambda: len(used(driver)) == 1, "trials on the node that passes")
            driver.wait_until(lambda: " is not used: " in driver.output, "the refusal of the other")
            order(study, epoch_s=EPOCH_S)
            begun = time.monotonic()
            driver.wait_until(lambda: len(used(driver)) == 2, "trials on the other one, too")
            took = time.monotonic() - begun
            record_property("a node that is mended is used after", f"{took:.0f} s")
            assert driver.finish() == 0, driver.output
            told = notices(driver)
    assert sum("is not used: data.root='/data/x' does not exist" in text for text in told) == 1
    assert sum("is used from here on" in text for text in told) == 1, told
    check(study, space)


def test_devices_are_counted_again_and_silence_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, release = iter([2.0, 3.0]), threading.Event()

    def resources() -> dict[str, float]:
        count = next(counts, None)
        if count is None:
            release.wait()  # as without a head
        return {"CPU": count or 0.0}

    monkeypatch.setattr(ray, "cluster_resources", resources)
    monkeypatch.setattr("search.driver.devices.POLL_S", 0.01)
    devices = Devices()
    assert (devices.cpus, devices.gpus) == (2, 0)
    until = time.monotonic() + 10
    while devices.cpus < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert devices.cpus == 3
    time.sleep(0.3)
    assert devices.silent_s > 0.2
    devices.close()
    release.set()
