"""A study under random faults for a while, and whether anything is lost.

Every 5 to 15 s a worker is killed, a node is lost and joins again, or the driver is killed or told
to stop and then resumed. Ray, journal, MLflow and the `tcpa` command are real, the training is a
stub with known numbers. One row per seed; every count after the faults has to be 0.

    python -m benchmarks.soak --trials 300 --nodes 3 --minutes 20 --seed 0 1 2
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks._faults.check import Audit, audit, stub_numbers
from benchmarks._faults.scene import Driver, Nodes, cluster, make_space, make_study
from benchmarks.harness import RESULTS, machine
from reports.build import build_report
from search.study.address import default_uri

EPOCHS = 6
SLOTS = 2
DISTURBED = 3.0
"""How much longer a study takes under faults, roughly; sets the length of an epoch."""
KINDS = ("worker", "node", "driver", "stop")


class Chaos:
    """Strikes a running study; whoever ends the driver starts the next one.

    Args:
        seed: Of the faults and their times.
        nodes: The cluster.
        driver: The driver that runs now.
    """

    def __init__(self, seed: int, nodes: Nodes, driver: Driver) -> None:
        self._random = random.Random(seed)
        self._nodes = nodes
        self.driver = driver
        self._next: list[str] = []
        self.struck: Counter[str] = Counter()
        self.stop_s = 0.0
        """The longest time from SIGTERM to the end of a driver."""

    def pause(self, low_s: float, high_s: float) -> bool:
        """Wait until the next fault; False when the study has finished meanwhile."""
        until = time.monotonic() + self._random.uniform(low_s, high_s)
        while time.monotonic() < until:
            code = self.driver.process.poll()
            if code == 0:
                return False
            if code is not None:
                raise AssertionError(f"a driver ended with {code}:\n{self.driver.output}")
            time.sleep(0.1)
        return True

    def strike(self) -> str:
        """One fault, all kinds equally often; "" when the study has finished meanwhile.

        A driver is spared until it has recorded an epoch, or nothing would go on.
        """
        if not self._next:
            self._next = self._random.sample(KINDS, len(KINDS))
        kind = self._next.pop()
        if kind in ("driver", "stop") and not self._goes_on():
            return ""
        getattr(self, f"_{kind}")()
        self.struck[kind] += 1
        return kind

    def _goes_on(self) -> bool:
        """Wait until the driver has recorded an epoch; False when it has ended before."""
        while self.driver.process.poll() is None:
            if self.driver.kinds()["epoch"]:
                return True
            time.sleep(0.1)
        return False

    def _worker(self) -> None:
        workers = sorted(pid for node in self._nodes.nodes for pid in self._nodes.workers(node))
        if workers:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(workers), signal.SIGKILL)

    def _node(self) -> None:
        self._nodes.lose(self._random.choice(self._nodes.nodes))
        time.sleep(self._random.uniform(0, 5))
        self._nodes.add()

    def _driver(self) -> None:
        self.driver.kill()
        self._resume()

    def _stop(self) -> None:
        self.stop_s = max(self.stop_s, self.driver.end(signal.SIGTERM))
        self._resume()

    def _resume(self) -> None:
        self.driver.clear()
        self.driver = Driver(self.driver.study, self._nodes.address)


def soak(
    root: Path,
    seed: int,
    *,
    trials: int,
    nodes: int,
    minutes: float,
    gap_s: tuple[float, float] = (5.0, 15.0),
    most_faults: int | None = None,
) -> dict[str, Any]:
    """One study under faults to its end.

    Args:
        root: An empty folder.
        seed: Of the study and of the faults.
        trials: Of the study.
        nodes: Of the cluster, with a processor each.
        minutes: No fault after this time; the study is about as long.
        gap_s: Least and most time between two faults.
        most_faults: No further fault after so many.

    Returns:
        The row of the table.
    """
    space = make_space(trials, EPOCHS, sampler={"name": "random", "seed": seed})
    epoch_s = 60 * minutes * nodes * SLOTS / (trials * EPOCHS * DISTURBED)
    study = make_study(root, space, workers=None, slots=SLOTS, epoch_s=epoch_s)
    with cluster(nodes) as running:
        begun = time.monotonic()
        chaos = Chaos(seed, running, Driver(study, running.address))
        try:
            while chaos.pause(*gap_s):
                enough = chaos.struck.total() == most_faults
                if not enough and time.monotonic() - begun < 60 * minutes:
                    print(f"{time.monotonic() - begun:6.0f} s: {chaos.strike()}", flush=True)
        finally:
            chaos.driver.clear()
    build_report(study.path)
    found = audit(study, stub_numbers(space), tracking_uri=default_uri(root), tables=True)
    return _row(seed, time.monotonic() - begun, chaos, found)


def _row(seed: int, seconds: float, chaos: Chaos, found: Audit) -> dict[str, Any]:
    return {
        "seed": seed,
        "minutes": round(seconds / 60, 1),
        **{f"{kind} faults": chaos.struck[kind] for kind in KINDS},
        "drivers": found.drivers,
        "trials taken up": found.restarts,
        "longest stop": f"{chaos.stop_s:.1f} s",
        "trials": found.trials,
        "ended": found.ended,
        "epochs": found.epochs,
        **found.faults(),
        "clean": found.is_clean,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    lines += ["| " + " | ".join(map(str, row.values())) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run one study per seed and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    rows = []
    for seed in options.seed:
        with tempfile.TemporaryDirectory(prefix="tcpa-soak-") as folder:
            sizes = {name: getattr(options, name) for name in ("trials", "nodes", "minutes")}
            rows.append(soak(Path(folder), seed, **sizes))
            print(table(rows))
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": machine(), "options": vars(options), "rows": rows}
    (RESULTS / "soak.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "soak.md").write_text(table(rows))
    if not all(row["clean"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
