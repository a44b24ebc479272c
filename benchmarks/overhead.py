"""What the search itself costs: trials that train nothing through the whole path.

Sampling, Ray Tune, placing, journal, dashboard copy and, on request, the MLflow mirror are real;
the workers hold a stub that answers at once. Figures are of the driver process, from the first
trial's start on, so that the start of Ray and of the workers is left out.

    python -m benchmarks.overhead --trials 100 1000
    python -m benchmarks.overhead --trials 1000 --mlflow
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, machine
from search.cluster import connect
from search.launch import Placement, run_study
from search.sampler import Sampled
from search.study import StudyDir
from search.tracking import Mirror
from spaces.space import Space
from tcpa_core.record import FINAL_KINDS

PAGE_BYTES = 4096
NUM_AXES = 8


@dataclass
class Watch:
    """Samples the driver's CPU time and memory at every trial's end."""

    trials: int = 0
    events: int = 0
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)

    def __call__(self, event: Mapping[str, Any]) -> None:
        self.events += 1
        if (event["kind"] == "started" and not self.cpu_s) or event["kind"] in FINAL_KINDS:
            self.cpu_s.append(time.process_time())
            self.wall_s.append(time.perf_counter())
            self.rss_bytes.append(_rss_bytes())

    def per_trial(self, series: list[float]) -> float:
        return (series[-1] - series[0]) / (len(series) - 1)

    def by_tenth(self, series: list[float]) -> list[float]:
        """The same in ten equal parts of the study, to see growth."""
        size = max(1, (len(series) - 1) // 10)
        cuts = series[::size][:11]
        return [(b - a) / size for a, b in zip(cuts, cuts[1:], strict=False)]


def main() -> None:
    """Run the studies one after the other and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--sampler", default="tpe", choices=["tpe", "random", "qmc"])
    parser.add_argument("--scheduler", default="none", choices=["none", "asha"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--mlflow", action="store_true", help="write the MLflow mirror, too")
    options = parser.parse_args()
    with connect(None, options.workers):
        rows = [measure(trials, options) for trials in options.trials]
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": machine(), "options": vars(options), "rows": rows}
    (RESULTS / "overhead.json").write_text(json.dumps(record, indent=1) + "\n")
    text = table(rows)
    (RESULTS / "overhead.md").write_text(text)
    print(text)


def measure(trials: int, options: argparse.Namespace) -> dict[str, Any]:
    """One study, and whether its journal is whole."""
    watch, asked = Watch(trials), _timed_proposals()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        study = StudyDir.create(root, "overhead", _space(trials, options), _PRINTS, "")
        mirror = None
        listeners: list[Callable[[Mapping[str, Any]], None]] = [watch]
        if options.mlflow:
            artifacts = root / "artifacts"
            mirror = Mirror(study.path, f"sqlite:///{root}/mlflow.db", artifact_root=artifacts)
            listeners.append(mirror.put)
        placement = Placement(
            workers=options.workers,
            slots=options.slots,
            worker_factory="tests.search.stub:make_worker",
        )
        outcome = run_study(study.space(), study, placement=placement, listeners=listeners)
        started = time.perf_counter()
        mirrored = mirror.close() if mirror else None
        with_mirror_s = (time.process_time() - watch.cpu_s[0]) / trials
        places = options.workers * options.slots
        return {
            "trials": trials,
            "driver_ms_per_trial": 1000 * watch.per_trial(watch.cpu_s),
            "driver_ms_with_mirror": 1000 * with_mirror_s,
            "driver_ms_by_tenth": [1000 * s for s in watch.by_tenth(watch.cpu_s)],
            "wall_ms_per_trial": 1000 * watch.per_trial(watch.wall_s),
            "slot_s_per_trial": places * watch.per_trial(watch.wall_s),
            "suggestion_ms_median": 1000 * statistics.median(asked),
            "suggestion_ms_last": 1000 * statistics.median(asked[-20:]),
            "waited_share": outcome.waited_s / (watch.wall_s[-1] - watch.wall_s[0]),
            "rss_mib_by_tenth": [b // 2**20 for b in watch.rss_bytes[:: max(1, trials // 10)]],
            "mirrored": mirrored,
            "mirror_rest_s": time.perf_counter() - started if mirror else None,
            **check(study),
        }


def check(study: StudyDir) -> dict[str, int]:
    """Count what the journal lacks and what stands in it twice."""
    digests: Counter[str] = Counter()
    open_trials: set[str] = set()
    ends: Counter[str] = Counter()
    for event in study.events():
        if event["kind"] == "planned":
            digests[event["digest"]] += 1
            open_trials.add(event["trial"])
        elif event["kind"] in FINAL_KINDS:
            ends[event["trial"]] += 1
            open_trials.discard(event["trial"])
    return {
        "planned": digests.total(),
        "ended": len(ends),
        "without_end": len(open_trials),
        "ended_twice": sum(n > 1 for n in ends.values()),
        "duplicates": digests.total() - len(digests),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    columns = {
        "trials": "{}",
        "driver_ms_per_trial": "{:.1f}",
        "driver_ms_with_mirror": "{:.1f}",
        "wall_ms_per_trial": "{:.1f}",
        "slot_s_per_trial": "{:.3f}",
        "suggestion_ms_median": "{:.1f}",
        "suggestion_ms_last": "{:.1f}",
        "waited_share": "{:.2f}",
        "ended": "{}",
        "without_end": "{}",
        "ended_twice": "{}",
        "duplicates": "{}",
        "mirrored": "{}",
    }
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [form.format(row[name]) for name, form in columns.items()]
        lines.append("| " + " | ".join(cells) + " |")
    for row in rows:
        tenths = ", ".join(f"{ms:.1f}" for ms in row["driver_ms_by_tenth"])
        memory = ", ".join(map(str, row["rss_mib_by_tenth"]))
        lines += ["", f"{row['trials']} trials, driver ms per trial by tenth: {tenths}"]
        lines += [f"{row['trials']} trials, driver MiB by tenth: {memory}"]
    return "\n".join(lines) + "\n"


def _space(trials: int, options: argparse.Namespace) -> Space:
    """Eight axes, as many as a search of several methods has."""
    names = ["optim.weight_decay", "optim.momentum", "optim.warmup_fraction", "data.val_fraction"]
    names += ["train.label_smoothing", "train.mixup_alpha", "train.mixup_prob"]
    axes: dict[str, Any] = {name: {"float": [0.05, 0.5]} for name in names[: NUM_AXES - 1]}
    return Space.from_dict(
        {
            "name": "overhead",
            "base": {"methods": ["linear"], "train.epochs": options.epochs},
            "axes": {"optim.lr": {"float": [1e-4, 1e-1], "log": True}, **axes},
            "sampler": {"name": options.sampler},
            "scheduler": {"name": options.scheduler},
            "budget": {"trials": trials},
        }
    )


_PRINTS = {"data": "none", "weights": "none"}


def _timed_proposals() -> list[float]:
    """Seconds of every proposal from now on."""
    seconds: list[float] = []
    original = Sampled.__dict__.get("_untimed", Sampled.propose)

    def propose(self: Sampled, attempt: int) -> Any:
        start = time.perf_counter()
        try:
            return original(self, attempt)
        finally:
            seconds.append(time.perf_counter() - start)

    Sampled._untimed = original  # type: ignore[attr-defined]
    Sampled.propose = propose  # type: ignore[method-assign]
    return seconds


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


if __name__ == "__main__":
    main()
