"""Read 100,000 hostile inputs: `python -m benchmarks.hostile --inputs 100000`.

Each reader gets its known attacks first (some of them where its share is small), then changed
files. A reader returns or raises one of our errors; anything else, or more than two seconds of CPU
for one input, is a defect, and the input is kept. Exit code 1 if there is one.
"""

import argparse
import gc
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from benchmarks.harness import RESULTS, machine
from benchmarks.hostile_targets import Target, all_targets
from tcpa_core.errors import TcpaError

LIMIT_S = 2.0
"""CPU seconds for one input."""
HANGS_S = 30
"""Wall seconds after which an input is given up; waiting costs no CPU."""
SHORT_BYTES = 10_000
"""Longer attacks are changed in one of a hundred inputs only: they take a hundred times as long."""
ROOM_BYTES = 3 << 30
"""Address space beyond what is used at the start; a bomb meets a MemoryError, not the machine."""


@dataclass(slots=True)
class Row:
    """What one reader did with its inputs."""

    target: str
    inputs: int = 0
    refused: int = 0
    """With one of our errors."""
    accepted: int = 0
    other: int = 0
    """Anything else was raised; must be 0."""
    longest_s: float = 0.0
    """CPU of the slowest input."""
    growth_mib: float = 0.0
    """Resident memory at the end against a quarter of the way."""
    peak_mib: float = 0.0
    """Most resident memory above that of the start."""
    defects: list[tuple[str, bytes]] = field(default_factory=list)
    """What was raised and the input, at most ten."""


class Hang(BaseException):
    """An input took too long."""


def run(num_inputs: int, *, seed: int = 0, only: str = "") -> list[Row]:
    """Feed every reader its share of hostile inputs.

    Args:
        num_inputs: Over all readers; each gets at least one.
        seed: Of the changes.
        only: Part of the names of the readers to run; "" for all.
    """
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_virtual() + ROOM_BYTES, limits[1]))
    before = signal.signal(signal.SIGALRM, _give_up)
    logging.disable()
    gc.collect()
    gc.freeze()  # what is loaded is not looked through again and again
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
            targets = [t for t in all_targets(Path(folder)) if only in t.name]
            shares = sum(target.weight for target in targets)
            return [_feed(t, -(-num_inputs * t.weight // shares), seed) for t in targets]
    finally:
        gc.unfreeze()
        logging.disable(logging.NOTSET)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _feed(target: Target, num_inputs: int, seed: int) -> Row:
    rng, row = Random(f"{seed} {target.name}"), Row(target.name)
    gc.collect()
    start = quarter = _resident()
    _reset_peak()
    attacks = list(target.seeds)
    short = [seed for seed in attacks if len(seed) <= SHORT_BYTES] or attacks
    if num_inputs < 2 * len(attacks):
        attacks = rng.sample(attacks, -(-num_inputs // 2))
    for index in range(num_inputs):
        if index < len(attacks):
            data = attacks[index]
        else:
            data = target.change(rng.choice(target.seeds if rng.random() < 0.01 else short), rng)
        _read_one(target, data, row)
        if index == num_inputs // 4:
            gc.collect()
            quarter = _resident()
    row.peak_mib = max(0, _peak() - start) / 2**20
    gc.collect()
    row.growth_mib = (_resident() - quarter) / 2**20
    print(_line(row), file=sys.stderr, flush=True)
    return row


def _read_one(target: Target, data: bytes, row: Row) -> None:
    row.inputs += 1
    begun = time.process_time()
    signal.alarm(HANGS_S)
    try:
        target.read(data)
        row.accepted += 1
    except TcpaError:
        row.refused += 1
    except (Exception, Hang) as err:
        signal.alarm(0)
        row.other += 1
        _note(row, f"{type(err).__name__}: {str(err)[:200]!r}", data)
    finally:
        signal.alarm(0)
    seconds = time.process_time() - begun
    row.longest_s = max(row.longest_s, seconds)
    if seconds > LIMIT_S:
        _note(row, f"took {seconds:.1f} s", data)


def _note(row: Row, what: str, data: bytes) -> None:
    if len(row.defects) < 10:
        row.defects.append((what, data))


def _give_up(number: int, frame: FrameType | None) -> None:
    raise Hang(f"no answer after {HANGS_S} s")


def _resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Most bytes in use since `_reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table with their sum."""
    total = Row("all")
    for row in rows:
        for name in ("inputs", "refused", "accepted", "other"):
            setattr(total, name, getattr(total, name) + getattr(row, name))
        for name in ("longest_s", "growth_mib", "peak_mib"):
            setattr(total, name, max(getattr(total, name), getattr(row, name)))
    lines = [
        "| reader | inputs | refused | accepted | other exceptions | longest (CPU s) "
        "| growth (MiB) | peak (MiB) |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return "\n".join([*lines, *map(_line, (*rows, total))]) + "\n"


def _line(row: Row) -> str:
    return (
        f"| {row.target} | {row.inputs:,} | {row.refused:,} | {row.accepted:,} | {row.other} "
        f"| {row.longest_s:.2f} | {row.growth_mib:.1f} | {row.peak_mib:.0f} |"
    )


def main() -> None:
    """Run, print and keep the table; say where the inputs of defects lie."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a reader's name")
    options = parser.parse_args()
    rows = run(options.inputs, seed=options.seed, only=options.only)
    print(table(rows))
    kept = Path(tempfile.gettempdir()) / "tcpa-hostile"
    for row in rows:
        for number, (what, data) in enumerate(row.defects):
            kept.mkdir(exist_ok=True)
            path = kept / f"{row.target.replace('/', '_')} {number}"
            path.write_bytes(data)
            print(f"DEFECT {row.target}: {what}; input: {path}")
    if not options.only:
        RESULTS.mkdir(exist_ok=True)
        plain = [{k: v for k, v in asdict(row).items() if k != "defects"} for row in rows]
        record = {"machine": machine(), "seed": options.seed, "rows": plain}
        (RESULTS / "hostile.json").write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "hostile.md").write_text(table(rows))
    sys.exit(any(row.defects for row in rows))


if __name__ == "__main__":
    main()
