"""Every case on the fake device, and what each may cost."""

import json
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fake_cuda.cases import Case, all_cases, methods
from benchmarks.fake_cuda.run import Until, run_case, steady_eval, steady_step, whole_epoch
from benchmarks.fake_cuda.watch import Event, Log

BUDGETS = Path(__file__).parent / "budgets.json"
COMMAND = "python -m benchmarks.fake_cuda --write"
KEYS = ("kernels", "waits", "generators", "eval_waits", "epoch_waits")
SHOWN = 8
"""Lines of the project that are named as those that wait."""

TWO = (("bf16", 2), ("fp32", 1))
"""Precision and members in which every case runs."""

Row = dict[str, Any]
"""Of a run: `kernels`, `waits` and `generators` of a step; `eval_waits` of a batch of evaluation,
where there was one; `epoch_waits` of an epoch outside its steps, where a whole trial was run. The
lines that they come from stand under `sites`, `eval_sites` and `epoch_sites`."""


def runs(case: Case) -> Iterator[tuple[str, int, Until]]:
    """Precision, members, and how far the run goes."""
    is_plain = case.name in methods()
    pairs = (("bf16", 2), ("fp32", 1), ("bf16", 1), ("fp32", 2)) if is_plain else TWO
    seen: set[tuple[str, int]] = set()
    for precision, members in pairs:
        found = precision, min(members, case.members)
        if found not in seen:
            far: Until = "end" if is_plain or "segment.test_scales" in case.settings else "epoch"
            yield *found, "step" if seen else far
            seen.add(found)


def label(case: Case, precision: str, members: int) -> str:
    """Name of a run."""
    return f"{case.name} | {precision} | {members}"


def sweep(only: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """Run the cases that begin with one of some names, or all.

    Yields:
        Name and costs of each run; "error" is in those of one that failed.
    """
    for case in all_cases():
        if not only or case.name.startswith(tuple(only)):
            for precision, members, until in runs(case):
                yield label(case, precision, members), _row(case, precision, members, until)


def _row(case: Case, precision: str, members: int, until: Until) -> Row:
    base = {"train.precision": precision}
    try:
        log = run_case(case, members=members, base=base, until=until)
    except Exception as err:  # a case that fails is a finding, and the next one runs
        frames = traceback.extract_tb(err.__traceback__)
        ours = [frame for frame in frames if "/tcpa_core/" in frame.filename]
        place = f"{ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}" if ours else "?"
        return {"error": f"{type(err).__name__} at {place}: {str(err).splitlines()[:1]}"}
    return _costs(log, until)


def _costs(log: Log, until: Until) -> Row:
    epoch = 2 if until == "end" else 1
    step = steady_step(log, epoch)
    row = {
        "kernels": sum(event.work.kernels for event in step),
        "waits": _waits(step),
        "generators": sum(bool(event.generator) for event in step),
        "sites": sites(step),
    }
    if until != "step":
        turn = steady_eval(log, epoch)
        row |= {"eval_waits": _waits(turn), "eval_sites": sites(turn)}
    if until == "end":
        outside = [e for e in whole_epoch(log, epoch) if not e.phase.startswith("step ")]
        row |= {"epoch_waits": _waits(outside), "epoch_sites": sites(outside)}
    return row


def _waits(events: Sequence[Event]) -> int:
    return sum(bool(event.wait) for event in events)


def sites(events: Sequence[Event]) -> list[str]:
    """Lines that make the host wait or make a generator, the most frequent first."""
    found = Counter(
        f"{event.wait or 'generator'} at {event.site}"
        for event in events
        if event.wait or event.generator
    )
    return [f"{count} x {text}" for text, count in found.most_common(SHOWN)]


def budgets() -> dict[str, Row]:
    """What each run may cost at most."""
    return json.loads(BUDGETS.read_text())["runs"] if BUDGETS.exists() else {}


def write_budgets(rows: dict[str, Row], *, torch: str) -> None:
    """Make the table of budgets again from rows without errors; those of other runs stay."""
    known = {label(case, p, m) for case in all_cases() for p, m, _ in runs(case)}
    found = {name: _budget(row) for name, row in rows.items() if "error" not in row}
    table = {name: row for name, row in sorted({**budgets(), **found}.items()) if name in known}
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in table.items())
    BUDGETS.write_text(f'{{\n "torch": {json.dumps(torch)},\n "runs": {{\n{lines}\n }}\n}}\n')


def _budget(row: Row) -> Row:
    up = -(-row["kernels"] // 10) * 10  # so that a change of a few is no change
    return {**{key: row[key] for key in KEYS if key in row}, "kernels": up}


def excess(row: Row, budget: Row) -> list[str]:
    """What is above the budget, with the lines it comes from."""
    if "error" in row:
        return [row["error"]]
    found = []
    for key, most in budget.items():
        if row[key] > most:
            lines = row[f"{key.removesuffix('waits')}sites" if "waits" in key else "sites"]
            found.append("\n  ".join([f"{key}: {row[key]}, at most {most}", *lines]))
    return found
