"""Shared by all benchmarks: interleaved timing, ratios with their spread, JSON + Markdown + plot.

Variants of one comparison run round-robin in one process, so that a change of the machine's mood
meets all of them. A figure is the median of per-round ratios; the range stands beside it.
"""

import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tcpa_core.training.allocator import WORKER_ENV

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One compared pair: the ratio of a variant to its baseline, below 1 where it is cheaper."""

    group: str
    """What is compared, for example "tcpa 18/18, ViT-Ti, batch 8"."""
    variant: str
    baseline: str
    ratio: float
    """Median over the rounds."""
    low: float
    high: float
    rounds: int
    seconds: float
    """Median seconds of the variant, for orientation only."""
    notes: str = ""


def as_worker() -> None:
    """Start this program again in the environment of a worker, unless it has it already."""
    if any(os.environ.get(name) != value for name, value in WORKER_ENV.items()):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **WORKER_ENV})


def cpu_clock() -> float:
    """CPU seconds of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": cpu_clock}
"""What can be measured: on a busy machine CPU seconds, which other work disturbs less."""


def interleave(
    variants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 7,
    warmup: int = 1,
    clock: str = "wall",
) -> dict[str, list[float]]:
    """Time callables round-robin.

    Args:
        variants: What to time, by name.
        rounds: Timed rounds, at least 1.
        warmup: Rounds before the timed ones.
        clock: A name in `CLOCKS`.

    Returns:
        Seconds of every timed round, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(warmup + rounds):
        for name, run in variants.items():
            _synchronize()
            start = CLOCKS[clock]()
            run()
            _synchronize()
            if index >= warmup:
                times[name].append(CLOCKS[clock]() - start)
    return times


def ratios(
    group: str, times: Mapping[str, Sequence[float]], baseline: str, notes: str = ""
) -> list[Row]:
    """Per-round ratios of every variant to the baseline."""
    rows = []
    for name, seconds in times.items():
        each = [s / b for s, b in zip(seconds, times[baseline], strict=True)]
        rows.append(
            Row(
                group=group,
                variant=name,
                baseline=baseline,
                ratio=statistics.median(each),
                low=min(each),
                high=max(each),
                rounds=len(each),
                seconds=statistics.median(seconds),
                notes=notes,
            )
        )
    return rows


def write(name: str, rows: Sequence[Row], *, title: str, extra: Mapping[str, Any] = {}) -> Path:  # noqa: B006
    """Write results/<name>.json, .md and .png, print the Markdown, and return the JSON's path."""
    RESULTS.mkdir(exist_ok=True)
    record = {"title": title, "machine": machine(), **extra, "rows": [asdict(r) for r in rows]}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    text = markdown(rows, title, extra)
    path.with_suffix(".md").write_text(text)
    draw(rows, title).savefig(path.with_suffix(".png"), dpi=150)
    print(text)
    return path


def markdown(rows: Sequence[Row], title: str, extra: Mapping[str, Any]) -> str:
    """The rows as a Markdown table under a heading with the machine."""
    lines = [f"# {title}", "", f"{machine()}", ""]
    lines += [f"- {key}: {value}" for key, value in extra.items()]
    lines += ["", "| what | variant | ratio to | median | range | n | seconds | |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r.group} | {r.variant} | {r.baseline} | {r.ratio:.3f} | {r.low:.3f}-{r.high:.3f} "
        f"| {r.rounds} | {r.seconds:.4f} | {r.notes} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row], title: str) -> "Figure":
    """Horizontal bars of the ratios with their ranges; the baseline is the line at 1."""
    from matplotlib.figure import Figure  # `benchmarks.gpu` times on machines that draw nothing

    shown = [r for r in rows if r.variant != r.baseline]
    figure = Figure(figsize=(7, 1 + 0.28 * max(1, len(shown))), layout="constrained")
    axes = figure.subplots()
    middle = [r.ratio for r in shown]
    spread = [[r.ratio - r.low for r in shown], [r.high - r.ratio for r in shown]]
    labels = [f"{r.group}: {r.variant}" for r in shown]
    axes.barh(labels, middle, xerr=spread, color="#0072B2", ecolor="#444444", height=0.6)
    axes.axvline(1.0, color="#D55E00", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("ratio to the baseline (lower is cheaper)")
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    return figure


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "device": device,
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
