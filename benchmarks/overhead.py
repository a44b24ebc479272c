"""What the search itself costs: trials that train nothing through the whole path.

Sampling, Ray Tune, placing, journal, dashboard copy and, on request, the MLflow mirror are real;
the workers hold a stub that answers at once. Figures are of the driver process, from the first
trial's start on, so that the start of Ray and of the workers is left out.

    python -m benchmarks.overhead --trials 100 1000
    python -m benchmarks.overhead --trials 1000 --mlflow
    python -m benchmarks.overhead --trials 10000 --mlflow --postgresql

With `--postgresql` MLflow writes to a PostgreSQL that is started for the run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from benchmarks.harness import RESULTS, machine
from benchmarks.postgresql import PostgreSQL
from search.driver.driver import run_study
from search.driver.placement import Placement
from search.driver.ray_session import connect
from search.driver.recorder import Listener
from search.proposals.sampled import Sampled
from search.study.folder import StudyDir
from search.tracking.mirror import Mirror
from spaces.load import space_of
from spaces.space import Space
from tcpa_core.record.events import Ended, Event, Planned, Started
from tests.search.stub import say_slots

NUM_AXES = 8
STATUS_CODE = (
    "import sys, time; from rich.console import Console; "
    "from search.study.folder import StudyDir; from search.verbs.status import show_status; "
    "from pathlib import Path; start = time.perf_counter(); "
    "show_status(StudyDir.open(Path(sys.argv[1]), sys.argv[2]), Console(stderr=True)); "
    "print(time.perf_counter() - start)"
)
"""What `tcpa status` does after its imports."""


@dataclass
class Watch:
    """Samples the driver's CPU time and memory at every trial's end."""

    trials: int = 0
    events: int = 0
    mirror: Mirror | None = None
    cpu_s: list[float] = field(default_factory=list)
    """Of the whole process, the mirror's thread included."""
    mirror_cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    rss_mib: list[int] = field(default_factory=list)
    """Resident memory, with the pages of libraries."""
    own_mib: list[int] = field(default_factory=list)
    """Resident memory that belongs to this process alone."""

    def __call__(self, event: Event) -> None:
        self.events += 1
        if (isinstance(event, Started) and not self.cpu_s) or isinstance(event, Ended):
            self.cpu_s.append(time.process_time())
            self.mirror_cpu_s.append(self.mirror.cpu_s() if self.mirror else 0.0)
            self.wall_s.append(time.perf_counter())
            memory = _memory_mib()
            self.rss_mib.append(memory["VmRSS"])
            self.own_mib.append(memory["RssAnon"])
            if len(self.cpu_s) % max(1, self.trials // 10) == 0:
                each, mirror = (1000 * self.per_trial(s) for s in (self.cpu_s, self.mirror_cpu_s))
                line = f"{len(self.cpu_s)} trials: {each:.1f} ms each, {mirror:.1f} in the mirror; "
                line += f"{self.rss_mib[-1]} MiB, {self.own_mib[-1]} of its own"
                print(line, file=sys.stderr, flush=True)

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
    parser.add_argument("--postgresql", action="store_true", help="into PostgreSQL, not sqlite")
    options = parser.parse_args()
    with connect(None, options.workers):
        rows = [measure(trials, options) for trials in options.trials]
    RESULTS.mkdir(exist_ok=True)
    tracker = ("_postgresql" if options.postgresql else "_sqlite") if options.mlflow else ""
    path = RESULTS / f"overhead{tracker}.json"
    record = {"machine": machine(), "options": vars(options), "rows": rows}
    path.write_text(json.dumps(record, indent=1) + "\n")
    text = table(rows)
    path.with_suffix(".md").write_text(text)
    print(text)


def measure(trials: int, options: argparse.Namespace) -> dict[str, Any]:
    """One study, and whether its journal is whole."""
    watch, asked = Watch(trials), _timed_proposals()
    with tempfile.TemporaryDirectory() as folder, _tracker(Path(folder), options) as uri:
        root = Path(folder)
        space = overhead_space(trials, options.epochs, options.sampler, options.scheduler)
        study = StudyDir.create(root, "overhead", space, _PRINTS, "")
        say_slots(study.path, options.slots)
        mirror = None
        listeners: list[Listener] = [watch]
        if uri:
            mirror = Mirror(study.path, uri, artifact_root=root / "artifacts", warn=print)
            watch.mirror = mirror
            listeners.append(mirror.put)
        placement = Placement(
            workers=options.workers,
            slots=options.slots,
            worker_factory="tests.search.stub:make_worker",
        )
        outcome = run_study(study.space(), study, placement=placement, listeners=listeners)
        started = time.perf_counter()
        driver_s = [a - b for a, b in zip(watch.cpu_s, watch.mirror_cpu_s, strict=True)]
        mirrored = mirror.close() if mirror else None
        with_mirror_s = (time.process_time() - watch.cpu_s[0]) / trials
        places = options.workers * options.slots
        return {
            "trials": trials,
            "driver_ms_per_trial": 1000 * watch.per_trial(driver_s),
            "driver_ms_with_mirror": 1000 * with_mirror_s,
            "driver_ms_by_tenth": [1000 * s for s in watch.by_tenth(driver_s)],
            "mirror_ms_by_tenth": [1000 * s for s in watch.by_tenth(watch.mirror_cpu_s)],
            "wall_ms_per_trial": 1000 * watch.per_trial(watch.wall_s),
            "slot_s_per_trial": places * watch.per_trial(watch.wall_s),
            "suggestion_ms_median": 1000 * statistics.median(asked),
            "suggestion_ms_last": 1000 * statistics.median(asked[-20:]),
            "waited_share": outcome.waited_s / (watch.wall_s[-1] - watch.wall_s[0]),
            "rss_mib_by_tenth": watch.rss_mib[:: max(1, trials // 10)],
            "own_mib_by_tenth": watch.own_mib[:: max(1, trials // 10)],
            "mirrored": mirrored,
            "mirror_rest_s": time.perf_counter() - started if mirror else None,
            "status_s": status_s(study),
            "report_s": report_s(study),
            **check(study),
            **(runs_of(uri, study.name) if uri else {}),
        }


def status_s(study: StudyDir) -> float:
    """Seconds that `tcpa status` reads and prints, in a process of its own."""
    line = [sys.executable, "-c", STATUS_CODE, str(study.path.parent), study.name]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return float(done.stdout)


def report_s(study: StudyDir) -> float:
    """Seconds of `tcpa report` in a process of its own, imports included."""
    line = [sys.executable, "-m", "search.cli", "report", study.name]
    line += ["--root", str(study.path.parent)]
    started = time.perf_counter()
    subprocess.run(line, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def runs_of(uri: str, name: str) -> dict[str, int]:
    """What MLflow holds of the study."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name).experiment_id
    counts: Counter[str] = Counter()
    trials, token = set(), None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        for run in page:
            counts[run.info.status] += 1
            trials.add(run.data.tags.get("tcpa.trial"))
        token = page.token
        if not token:
            break
    return {"runs": counts.total() - 1, "runs_twice": counts.total() - len(trials),
            "runs_open": counts["RUNNING"]}  # fmt: skip


@contextmanager
def _tracker(folder: Path, options: argparse.Namespace) -> Iterator[str]:
    """Address of an empty tracking database; "" where none is wanted."""
    if not options.mlflow:
        yield ""
    elif options.postgresql:
        with PostgreSQL() as server:
            yield server.uri
    else:
        yield f"sqlite:///{folder}/mlflow.db"


def check(study: StudyDir) -> dict[str, int]:
    """Count what the journal lacks and what stands in it twice."""
    digests: Counter[str] = Counter()
    open_trials: set[str] = set()
    ends: Counter[str] = Counter()
    for event in study.events():
        if isinstance(event, Planned):
            digests[event.digest] += 1
            open_trials.add(event.trial)
        elif isinstance(event, Ended):
            ends[event.trial] += 1
            open_trials.discard(event.trial)
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
        "status_s": "{:.2f}",
        "report_s": "{:.0f}",
    }
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [form.format(row[name]) for name, form in columns.items()]
        lines.append("| " + " | ".join(cells) + " |")
    for row in rows:
        tenths = ", ".join(f"{ms:.1f}" for ms in row["driver_ms_by_tenth"])
        memory = ", ".join(map(str, row["rss_mib_by_tenth"]))
        lines += ["", f"{row['trials']} trials, driver ms per trial by tenth: {tenths}"]
        own = ", ".join(map(str, row["own_mib_by_tenth"]))
        lines += [f"{row['trials']} trials, driver MiB by tenth: {memory}"]
        lines += [f"{row['trials']} trials, of these not shared with others: {own}"]
        if "runs" in row:
            counts = ", ".join(f"{key} {row[key]}" for key in ("runs", "runs_twice", "runs_open"))
            lines += [f"{row['trials']} trials in MLflow: {counts}"]
    return "\n".join(lines) + "\n"


def overhead_space(trials: int, epochs: int, sampler: str, scheduler: str) -> Space:
    """Eight axes, as many as a search of several methods has."""
    names = ["optim.weight_decay", "optim.momentum", "optim.warmup_fraction", "data.val_fraction"]
    names += ["train.label_smoothing", "train.mixup_alpha", "train.mixup_prob"]
    axes: dict[str, Any] = {name: {"float": [0.05, 0.5]} for name in names[: NUM_AXES - 1]}
    return space_of(
        {
            "name": "overhead",
            "base": {"methods": ["linear"], "train.epochs": epochs},
            "axes": {"optim.lr": {"float": [1e-4, 1e-1], "log": True}, **axes},
            "sampler": {"name": sampler},
            "scheduler": {"name": scheduler},
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


def _memory_mib() -> dict[str, int]:
    """Lines of /proc/self/status that speak of memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) // 1024 for name, value in pairs}


if __name__ == "__main__":
    main()
