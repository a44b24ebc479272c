"""Workers and drivers that are killed or signalled: real processes, real signals, stub training."""

import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks._faults.check import audit, check, numbers_of
from benchmarks._faults.scene import Driver, add_database, make_space, make_study, order, slowness
from search.study.address import default_uri
from search.study.folder import StudyDir
from tcpa_core.errors import StudyError
from tcpa_core.record.events import FINAL_KINDS
from tests.journals import recorded

pytestmark = pytest.mark.integration

Record = Callable[[str, object], None]


def all_in_the_midst(driver: Driver) -> bool:
    """Whether two workers have trials, each with a checkpoint and an epoch to go."""
    worker: dict[str, int] = {}
    epochs: Counter[str] = Counter()
    for event in driver.events():
        if event["kind"] == "started":
            worker[event["trial"]] = event["worker"]
        elif event["kind"] == "epoch":
            epochs[event["trial"]] += 1
        elif event["kind"] in FINAL_KINDS:
            del worker[event["trial"]]
    return len(set(worker.values())) == 2 and all(1 <= epochs[trial] <= 5 for trial in worker)


def test_a_killed_worker_loses_nothing_and_the_user_is_told(
    tmp_path: Path, record_property: Record
) -> None:
    space = make_space(trials=12, epochs=6)
    study = make_study(tmp_path, space, epoch_s=0.4)
    with Driver(study) as driver:
        driver.wait_until(lambda: all_in_the_midst(driver), "two workers with trials in the midst")
        victim = driver.workers()[0]
        before = driver.kinds()["started"]
        os.kill(victim, signal.SIGKILL)
        waited = driver.wait_until(
            lambda: any(e["kind"] == "started" and e["epoch"] > 0 for e in driver.events()),
            "a trial that goes on elsewhere",
        )
        assert driver.finish() == 0, driver.output
        (notice,) = (e["text"] for e in driver.events() if e["kind"] == "notice")
        assert driver.output.count(notice) == 1, "the user is told, once"
        assert "worker process has died" in notice and "\n" not in notice
        assert "Traceback" not in driver.output and "raylet" not in driver.output
    found = check(study, space)
    assert found.restarts >= 1 and before >= 2
    record_property("trials go on after", f"{waited:.1f} s")
    record_property("restarts", found.restarts)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database's write lock: whoever writes now stands in the middle of it."""
    connection = sqlite3.connect(database, isolation_level=None, timeout=20)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def kill_in_mid_epoch(study: StudyDir) -> None:
    order(study, epoch_s=0.4)
    with Driver(study) as driver:
        driver.wait_for("epoch", 5)
        driver.kill()


def kill_before_checkpoint(study: StudyDir) -> None:
    kill_when_held(study, saved=False)


def kill_between_checkpoint_and_journal_line(study: StudyDir) -> None:
    kill_when_held(study, saved=True)


def kill_when_held(study: StudyDir, *, saved: bool) -> None:
    """Kill the driver while a worker stands before or after the checkpoint of an epoch."""
    hold = hold_next_trial(study, saved=saved)
    with Driver(study) as driver:
        driver.wait_until((study.path / "held").exists, "the held epoch")
        driver.kill()
    trained = [(e["trial"], e["epoch"]) for e in recorded(study) if e["kind"] == "epoch"]
    assert (hold["trial"], hold["epoch"]) not in trained, "the kill came between the two"


def hold_next_trial(study: StudyDir, *, saved: bool) -> dict[str, object]:
    """Let the next new trial stand still in its second epoch; where it will stand."""
    (study.path / "held").unlink(missing_ok=True)
    planned = sum(e["kind"] == "planned" for e in recorded(study))
    hold = {"trial": f"{planned:05d}", "epoch": 2, "saved": saved}
    order(study, epoch_s=0.3, hold=hold)
    return hold


def kill_while_mlflow_is_written(study: StudyDir) -> None:
    order(study, epoch_s=0.4)
    with Driver(study) as driver:
        driver.wait_for("epoch", 3)
        with locked(study.path.parent / "mlflow.db"):
            driver.wait_for("epoch", driver.kinds()["epoch"] + 4)
            time.sleep(1.5)  # the mirror takes what came within a second
            driver.kill()


POINTS = (
    kill_in_mid_epoch,
    kill_before_checkpoint,
    kill_between_checkpoint_and_journal_line,
    kill_while_mlflow_is_written,
)


@pytest.mark.faults
def test_a_driver_killed_at_four_points_is_resumed_to_the_numbers_of_an_undisturbed_run(
    tmp_path: Path, record_property: Record
) -> None:
    space = make_space(trials=16)
    study = make_study(tmp_path, space)
    for strike in POINTS:
        strike(study)
    order(study)
    with Driver(study) as driver:
        assert driver.finish() == 0, driver.output
        assert not driver.remaining()
        assert "Traceback" not in driver.output
    found = check(study, space)
    assert found.drivers == len(POINTS) + 1
    record_property("drivers killed", len(POINTS))
    record_property("trials taken up", found.restarts)


def check_orderly_end(driver: Driver, name: str) -> dict[str, Any]:
    """The last event of a driver that a signal has ended."""
    assert driver.process.returncode == 3
    last = list(driver.events())[-1]
    assert last["kind"] == "stopped" and name in last["reason"], last
    assert "Traceback" not in driver.output
    assert f"interrupted by {name}" in driver.output
    assert "Continue with: tcpa resume faults" in driver.output
    return last


@pytest.mark.faults
def test_a_signal_ends_a_study_in_order_within_30_s_though_an_epoch_never_ends(
    tmp_path: Path, record_property: Record
) -> None:
    """Ctrl-C of a terminal and SIGTERM of a batch system reach all that the driver has started."""
    space = make_space(trials=12)
    study = make_study(tmp_path, space)
    for name in ("SIGINT", "SIGTERM"):
        hold_next_trial(study, saved=False)
        with Driver(study) as driver:
            driver.wait_until((study.path / "held").exists, "the held epoch")
            slow, begun = slowness(), time.time()
            took = driver.end(signal.Signals[name], group=True)
            last = check_orderly_end(driver, name)
            assert last["t"] - begun < 30 * slow, driver.output
        record_property(f"{name}: stopped after", f"{last['t'] - begun:.1f} s")
        record_property(f"{name}: process ended after", f"{took:.1f} s")
    order(study)
    with Driver(study) as driver:
        assert driver.finish() == 0, driver.output
    check(study, space)


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.faults)])
def test_a_signal_ends_a_study_in_order_and_a_second_one_at_once(
    name: str, tmp_path: Path, record_property: Record
) -> None:
    space = make_space(trials=12)
    study = make_study(tmp_path, space, epoch_s=0.3)
    with Driver(study) as driver:
        driver.wait_for("completed", 2)
        with pytest.raises(StudyError, match=f"another driver: .*pid {driver.process.pid}"):
            study.lock()
        took = driver.end(signal.Signals[name], group=True)
        check_orderly_end(driver, name)
        assert took < 30 * slowness()
    record_property(f"{name}: ended after", f"{took:.1f} s")
    hold_next_trial(study, saved=False)
    with Driver(study) as driver:
        driver.wait_until((study.path / "held").exists, "the held epoch")
        driver.process.send_signal(signal.Signals[name])
        time.sleep(0.5)
        assert driver.process.poll() is None
        took = driver.end(signal.Signals[name], timeout_s=10 * slowness())
        assert took < 5 * slowness() and driver.process.returncode == -signal.Signals[name]
    record_property(f"second {name}: ended after", f"{took:.1f} s")
    order(study)
    with Driver(study) as driver:
        assert driver.finish() == 0, driver.output
    assert check(study, space).drivers == 3


REAL = """
name: faults
base:
  backbone.name: vit_nano
  data.name: digits
  methods: [vpt]
  vpt.num_prompts: 2
  optim.lr: 0.05
  optim.weight_decay: 0.001
  train.epochs: 3
ablation:
  design: one_factor
  factors: {optim.lr: [0.05, 0.5, 1.0e+6]}
  seeds: [0, 1]
"""


@pytest.mark.faults
def test_real_training_gives_the_same_numbers_and_a_nan_fails_its_member_alone(
    tmp_path: Path, record_property: Record
) -> None:
    """Packs of three members, one of which explodes; the second study is killed and resumed."""
    (tmp_path / "real.yaml").write_text(REAL)
    studies = []
    for name in ("undisturbed", "killed"):
        root = tmp_path / name
        root.mkdir()
        add_database(root)
        study = StudyDir(root / "faults")
        studies.append(study)
        tcpa = ["-m", "search.cli"]
        begin = [*tcpa, "ablate", str(tmp_path / "real.yaml"), "--root", str(root)]
        resume = [*tcpa, "resume", "faults", "--root", str(root)]
        with Driver(study, command=begin) as driver:
            if name == "undisturbed":
                assert driver.finish() == 1, driver.output
                continue
            driver.wait_for("epoch", 3)
            driver.kill()
        with Driver(study, command=resume) as driver:
            assert driver.finish() == 1, driver.output
    undisturbed, killed = studies
    expected = numbers_of(undisturbed)
    assert sorted(map(len, expected.values())) == [0, 0, 3, 3, 3, 3], "only the exploding ones fail"
    found = audit(killed, expected, tracking_uri=default_uri(killed.path.parent))
    assert found.is_clean, found
    assert found.statuses == {"completed": 4, "failed": 2}
    reasons = {e["reason"] for e in recorded(killed) if e["kind"] == "failed"}
    assert all("loss is" in reason for reason in reasons), reasons
    record_property("trials taken up", found.restarts)
