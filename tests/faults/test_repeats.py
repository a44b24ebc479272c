"""One command with --resume: typed at any time, by several at once, and ended at any moment."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from benchmarks._faults.check import check
from benchmarks._faults.scene import (
    FACTORY,
    ROOT,
    Driver,
    add_database,
    make_space,
)
from search.study.folder import StudyDir
from spaces.space import Space
from tests.journals import recorded

pytestmark = [pytest.mark.integration, pytest.mark.faults]


class Scene:
    """A root without a study, and the command that makes one."""

    def __init__(self, root: Path, space: Space) -> None:
        root.mkdir(parents=True)
        placement = {"workers": 2, "slots": 2, "worker_factory": FACTORY}
        (root / "placement.json").write_text(json.dumps(placement))
        add_database(root)
        (root / "faults.yaml").write_text(yaml.safe_dump(space.as_dict()))
        self.root = root
        self.space = space
        self.study = StudyDir(root / "faults")
        self.line = [
            *("-m", "benchmarks._faults.driver", "search", str(root / "faults.yaml"), "--resume"),
            *("--root", str(root)),
        ]

    def driver(self) -> Driver:
        """The command, as a process."""
        return Driver(self.study, command=self.line)

    def slow_down(self, driver: Driver, epoch_s: float) -> None:
        """Let epochs take a time, as soon as there is a study and before there are workers."""
        driver.wait_until((self.study.path / "study.yaml").exists, "a study")
        self.order(epoch_s)

    def order_once(self, epoch_s: float) -> None:
        """The same, if there is a study and it has no orders yet."""
        if self.study.path.exists() and not (self.study.path / "stub.json").exists():
            self.order(epoch_s)

    def order(self, epoch_s: float) -> None:
        orders = {"slots": 4, "epoch_s": epoch_s}
        part = self.root / "stub.json"  # workers may read it meanwhile
        part.write_text(json.dumps(orders))
        part.replace(self.study.path / "stub.json")

    def studies(self) -> list[str]:
        """Every folder of the root but MLflow's, also what is hidden."""
        return [p.name for p in self.root.iterdir() if p.is_dir() and p.name != "mlartifacts"]


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal: it is in our hands from then on."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = (line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def kinds(study: StudyDir) -> Counter[str]:
    """How many events of each kind all drivers of a study have written."""
    return (
        Counter(one["kind"] for one in recorded(study))
        if study.journal_path.exists()
        else Counter()
    )


def test_a_command_is_typed_five_times_once_while_it_runs_and_once_after_a_kill(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path / "studies", make_space(trials=10, epochs=5))
    with scene.driver() as first:
        scene.slow_down(first, 0.4)
        first.wait_for("epoch", 4)
        first.kill()
    with scene.driver() as second, scene.driver() as third:
        runs, waits = second, third
        second.wait_until(
            lambda: any("waiting for the driver" in one.output for one in (second, third)),
            "one that waits",
        )
        if "waiting for the driver" in second.output:
            runs, waits = third, second
        assert f"pid {runs.process.pid}" in waits.output
        runs.wait_for("completed", 2)
        runs.end(signal.SIGUSR1)
        assert runs.process.returncode == 3 and "interrupted by SIGUSR1" in runs.output
        assert waits.finish() == 0, waits.output
    before = scene.study.journal_path.read_bytes()
    for _ in range(2):
        with scene.driver() as again:
            assert again.finish() == 0, again.output
            assert "faults is finished: trials 10 completed." in again.output
            assert len(again.output.splitlines()) == 1
    assert scene.study.journal_path.read_bytes() == before
    assert scene.studies() == ["faults"]
    assert check(scene.study, scene.space).drivers == 3


def test_of_two_drivers_that_start_at_once_one_makes_the_study(tmp_path: Path) -> None:
    for number in range(2):
        scene = Scene(tmp_path / f"studies {number}", make_space(trials=4, epochs=2))
        with scene.driver() as one, scene.driver() as other:
            assert (one.finish(), other.finish()) == (0, 0), one.output + other.output
            assert "Traceback" not in one.output + other.output
        assert scene.studies() == ["faults"]
        assert check(scene.study, scene.space).drivers == 1


def test_a_signal_at_any_moment_ends_with_code_3_and_loses_nothing(tmp_path: Path) -> None:
    """While weights are checked, Ray starts, workers do, trials run, and the last test is made."""
    scene = Scene(tmp_path / "studies", make_space(trials=6, epochs=4))
    moments: list[tuple[signal.Signals, Callable[[Driver], bool]]] = [
        (signal.SIGUSR1, lambda driver: handles(driver.process.pid, signal.SIGUSR1)),
        (signal.SIGTERM, lambda _: (scene.study.path / "study.yaml").exists()),
        (signal.SIGHUP, lambda driver: bool(driver.workers())),
        (signal.SIGINT, lambda driver: driver.kinds()["epoch"] > 0),
        (signal.SIGUSR1, lambda driver: driver.kinds()["completed"] > 0),
        (signal.SIGTERM, lambda _: kinds(scene.study)["completed"] == 6),
    ]
    codes = []
    for number, has_come in moments:
        with scene.driver() as driver:
            driver.wait_until(partial(has_come, driver), "the moment")
            # To all that it has started, as a terminal and `timeout` send it.
            driver.end(number, group=True)
            scene.order_once(0.5)
            codes.append(driver.process.returncode)
            assert "Traceback" not in driver.output, driver.output
            if codes[-1] == 3:
                assert f"interrupted by {number.name}" in driver.output, driver.output
    # The last one may come when nothing is left to do.
    assert codes[:-1] == [3] * 5 and codes[-1] in (0, 3), codes
    with scene.driver() as driver:
        assert driver.finish() == 0, driver.output
    check(scene.study, scene.space)


def test_a_terminal_that_closes_stops_the_study_in_order(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "studies", make_space(trials=12, epochs=6))
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        os.execv(sys.executable, [sys.executable, *scene.line])
    deadline = time.monotonic() + 240
    journal = scene.study.journal_path
    while not journal.exists() or journal.read_bytes().count(b'"epoch"') < 3:
        assert time.monotonic() < deadline
        os.read(terminal, 65536)
        scene.order_once(0.4)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    last = recorded(scene.study)[-1]
    assert last["kind"] == "stopped" and "SIGHUP" in last["reason"], last
    with scene.driver() as driver:
        assert driver.finish() == 0, driver.output
    check(scene.study, scene.space)


def test_a_reader_that_leaves_stops_nothing(tmp_path: Path) -> None:
    """As `tcpa search SPACE --resume | head -5`."""
    scene = Scene(tmp_path / "studies", make_space(trials=4, epochs=2))
    with subprocess.Popen(
        [sys.executable, *scene.line],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(240) == 0, said
    check(scene.study, scene.space)
