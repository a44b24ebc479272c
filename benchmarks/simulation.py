"""Where the driver would saturate: a discrete-event simulation of 1 to 256 nodes.

The searcher, its sampler (TPE), ASHA and the journal are the real ones, and whatever they cost of
the processor moves the simulated driver's clock, one call at a time; what Ray Tune and the carrying
of events cost beside them was measured by `benchmarks.overhead` and is added per trial. Training is
simulated: an epoch's time is drawn from a measured distribution. Waiting for the disk (fsync) is in
no figure: the driver waits for it in a thread of its own.

    python -m benchmarks.simulation
    python -m benchmarks.simulation --nodes 64 --gpu-s 5
"""

import argparse
import heapq
import itertools
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from benchmarks.harness import RESULTS, machine
from benchmarks.overhead import overhead_space
from search.proposals.dashboard_copy import OptunaLog
from search.proposals.planner import Planner
from search.proposals.sampled import Sampled
from search.proposals.suggestions import Suggestions
from search.study.journal import Journal
from search.tune.searcher import StudySearcher
from tcpa_core.record.events import Ended, Epoch
from tcpa_core.record.values import EpochReport, Status, TrialResult

EPOCH_RATIOS = (0.484, 0.576, 0.637, 0.674, 0.709, 0.728, 0.759, 0.785, 0.791, 0.81, 0.837, 0.861,
                0.918, 0.961, 1.013, 1.069, 1.133, 1.247, 1.433, 2.471)  # fmt: skip
"""Seconds of an epoch over their mean: 20 quantiles of 55 trials of CVPT with 1 to 200 prompts."""
EPOCHS = 20
RUNGS = (2, 6, 18, EPOCHS)
"""Epochs at which ASHA decides (grace 2, reduction 3), and the end."""
GPU_S = 18.0
"""Arithmetic of a VTAB-1k trial of 100 epochs, ViT-B/16, on an H200."""
CARRY_S = 0.009
"""CPU seconds per trial of Ray Tune, placing and events (`overhead --sampler random`: 9.7 ms, of
which the searcher and the journal take 1)."""


class Driver:
    """The simulated driver: one thing at a time, each as long as the real code takes."""

    def __init__(self) -> None:
        self.free_at = 0.0
        self.busy_s = 0.0
        self._mark = time.process_time()

    def resume(self) -> None:
        """What was computed since the last `charge` is the simulation's own."""
        self._mark = time.process_time()

    def charge(self, now: float, more_s: float = 0.0) -> float:
        """Account for what was computed since `resume`; the simulated time when it is done."""
        spent = time.process_time() - self._mark + more_s
        self.free_at = max(self.free_at, now) + spent
        self.busy_s += spent
        return self.free_at


def main() -> None:
    """Simulate every size and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--slots", type=int, default=4, help="trials that share a GPU")
    parser.add_argument("--gpu-s", type=float, default=GPU_S, help="GPU seconds of a whole trial")
    parser.add_argument("--rounds", type=float, default=2.0, help="trials per place")
    options = parser.parse_args()
    rows = []
    for nodes in options.nodes:
        rows.append(simulate(nodes, options.slots, options.gpu_s, options.rounds))
        print(json.dumps(rows[-1]), flush=True)
        RESULTS.mkdir(exist_ok=True)
        record = {"machine": machine(), "options": vars(options), "rows": rows}
        (RESULTS / "simulation.json").write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "simulation.md").write_text(table(rows))
    print(table(rows))


def simulate(nodes: int, slots: int, gpu_s: float, rounds: float) -> dict[str, Any]:
    """One search on so many nodes.

    Args:
        nodes: GPUs.
        slots: Trials that share one.
        gpu_s: GPU seconds of a trial that is not stopped early.
        rounds: Trials per place; 200 more are run.
    """
    places = nodes * slots
    trials = 200 + round(rounds * places)
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        searcher, suggestions = _searcher(trials, Path(folder), journal, places)
        asha = ASHAScheduler("epoch", "val_accuracy", "max", EPOCHS, RUNGS[0], 3)
        driver, counter = Driver(), itertools.count()
        events: list[tuple[float, int, str, int, float, float]] = []
        """Time, order, trial (none yet: ""), rung reached, seconds per epoch, quality."""
        for _ in range(places):
            heapq.heappush(events, (0.0, next(counter), "", -1, 0.0, 0.0))
        busy_s, waits, now, ended = 0.0, [], 0.0, 0
        full_until = 0.0
        while events:
            now, _, trial, rung, epoch_s, quality = heapq.heappop(events)
            driver.resume()
            if trial:
                goes_on = _report(journal, asha, searcher, trial, rung, quality)
                done_at = driver.charge(now, 0.0 if goes_on else CARRY_S)
                waits.append(done_at - now)
                if goes_on:
                    seconds = (RUNGS[rung + 1] - RUNGS[rung]) * epoch_s
                    busy_s += seconds
                    at = done_at + seconds
                    heapq.heappush(events, (at, next(counter), trial, rung + 1, epoch_s, quality))
                    continue
                ended += 1
                driver.resume()
            named = _suggest(searcher, trial_id=f"t{next(counter)}")
            ready_at = driver.charge(now)
            if named is None:
                continue
            full_until = ready_at
            epoch_s = slots * gpu_s / EPOCHS * draw.choice(EPOCH_RATIOS)
            asha.on_trial_add(None, SimpleNamespace(trial_id=named))
            seconds = RUNGS[0] * epoch_s
            busy_s += seconds
            at = ready_at + seconds
            heapq.heappush(events, (at, next(counter), named, 0, epoch_s, draw.random()))
        suggestions.close()
        journal.close()
    return _figures(nodes, slots, ended, now, busy_s, driver, waits, full_until)


def _figures(
    nodes: int,
    slots: int,
    trials: int,
    wall_s: float,
    busy_s: float,
    driver: Driver,
    waits: list[float],
    full_until: float,
) -> dict[str, Any]:
    per_trial_s = driver.busy_s / trials
    gpu_per_trial_s = busy_s / slots / trials
    return {
        "nodes": nodes,
        "places": nodes * slots,
        "trials": trials,
        "trials_per_s": trials / wall_s,
        "utilisation": busy_s / (nodes * slots * wall_s),
        "tail_share": 1 - full_until / wall_s,
        "driver_busy": driver.busy_s / wall_s,
        "driver_ms_per_trial": 1000 * per_trial_s,
        "wait_ms_median": 1000 * statistics.median(waits),
        "wait_ms_99": 1000 * statistics.quantiles(waits, n=100)[-1],
        "gpu_s_per_trial": gpu_per_trial_s,
        "saturation_trials_per_s": 1 / per_trial_s,
        "saturation_nodes": gpu_per_trial_s / per_trial_s,
    }


def _searcher(
    trials: int, folder: Path, journal: Journal, places: int
) -> tuple[StudySearcher, Suggestions]:
    space = overhead_space(trials, EPOCHS, "tpe", "asha")
    source = Sampled(space, "simulation", OptunaLog(folder / "optuna.log", space, ["simulation"]))
    planner = Planner(source, {"data": "none", "weights": "none"}, trials)
    suggestions = Suggestions(planner, [], ahead=max(2, places // 4))
    searcher = StudySearcher(
        suggestions,
        [],
        plan=journal.append,
        stop=lambda trial: None,
        may_start=lambda: True,
    )
    return searcher, suggestions


def _suggest(searcher: StudySearcher, trial_id: str) -> str | None:
    """The next trial's id for Tune; None when the budget is spent."""
    while (suggested := searcher.suggest(trial_id)) is None:
        time.sleep(0.001)
    return None if suggested == Searcher.FINISHED else trial_id


def _report(
    journal: Journal,
    asha: ASHAScheduler,
    searcher: StudySearcher,
    trial: str,
    rung: int,
    quality: float,
) -> bool:
    """Record the epochs up to a rung, and let ASHA decide; True when the trial goes on."""
    first = RUNGS[rung - 1] if rung else 0
    made_up = {"train_loss": 1.0, "ce_loss": 1.0, "match_loss": 0.0, "lr": 0.1, "val_loss": 1.0,
               "val_accuracy": quality, "duration_s": 1.0, "images_per_s": 100.0}  # fmt: skip
    journal.append(
        *(
            Epoch(trial=trial, report=EpochReport(epoch=epoch + 1, **made_up))
            for epoch in range(first, RUNGS[rung])
        )
    )
    result = {"epoch": RUNGS[rung], "val_accuracy": quality, "num_epochs": RUNGS[rung]}
    handle = SimpleNamespace(trial_id=trial)
    is_over = RUNGS[rung] == EPOCHS
    if not is_over:
        is_over = asha.on_trial_result(None, handle, result) == TrialScheduler.STOP
    if not is_over:
        return True
    status: Status = "completed" if RUNGS[rung] == EPOCHS else "pruned"
    ended = TrialResult(status=status, val_accuracy=quality, num_epochs=RUNGS[rung])
    journal.append(Ended(trial=trial, result=ended))
    asha.on_trial_complete(None, handle, result)
    searcher.on_trial_complete(trial, {**result, "status": status})
    return False


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, and where the driver saturates."""
    columns = {
        "nodes": "{}", "trials": "{}", "trials_per_s": "{:.2f}", "utilisation": "{:.3f}",
        "tail_share": "{:.2f}", "driver_busy": "{:.3f}", "driver_ms_per_trial": "{:.1f}",
        "wait_ms_median": "{:.1f}", "wait_ms_99": "{:.0f}", "gpu_s_per_trial": "{:.1f}",
    }  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [form.format(row[name]) for name, form in columns.items()]
        lines.append("| " + " | ".join(cells) + " |")
    last = rows[-1]
    lines += [
        "",
        f"The driver saturates at {last['saturation_trials_per_s']:.0f} trials per second: "
        f"{last['saturation_nodes']:.0f} nodes of trials that take "
        f"{last['gpu_s_per_trial']:.1f} GPU seconds on the average.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
