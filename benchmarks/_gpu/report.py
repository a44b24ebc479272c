"""What was found, as JSON and as Markdown."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks._gpu.child import Outcome, number

FIGURES = Path(__file__).parents[1] / "gpu_figures.json"
"""The last figures that were measured on a GPU; absent until there are any."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the report."""

    module: str
    """Where its `run` is."""
    title: str
    shows: str
    """What a reader sees in its table, in a sentence."""
    seconds: float
    """It is cut off after so long, where all have 8 minutes."""

    @property
    def name(self) -> str:
        """As options and JSON name it."""
        return self.module.rpartition(".")[2]


Outcomes = Mapping[Part, Outcome]


def write(folder: Path, outcomes: Outcomes, date: str, seconds: float) -> None:
    """Write report.json and report.md; also half-way, with the parts that have run."""
    record = {
        "date": date,
        "seconds": round(seconds, 1),
        "parts": {part.name: asdict(outcome) for part, outcome in outcomes.items()},
    }
    (folder / "report.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "report.md").write_text(markdown(outcomes, date, seconds))


def markdown(outcomes: Outcomes, date: str, seconds: float) -> str:
    """A page: what ran on which device, then a table for each part."""
    device = device_of(outcomes)
    lines = [f"# `make gpu` on {device.get('name', 'an unknown device')}", ""]
    if not is_gpu(outcomes):
        lines += ["No GPU was used: this shows that every part runs, and no figure says more.", ""]
    lines += [f"{date}, {seconds:.0f} s. {_sentence(outcomes)}", ""]
    lines += _table(
        ["part", "outcome", "s"],
        [[part.title, _state(out), f"{out.seconds:.0f}"] for part, out in outcomes.items()],
    )
    for part, outcome in outcomes.items():
        lines += ["", f"## {part.title}", "", part.shows]
        if outcome.reason:
            lines += ["", f"**{outcome.state}**: {outcome.reason}"]
        if outcome.rows:
            lines += ["", *_rows(outcome.rows)]
    return "\n".join(lines) + "\n"


def failures(outcomes: Outcomes) -> list[str]:
    """What was to be shown and was not, one line each."""
    found = []
    for part, outcome in outcomes.items():
        if outcome.state != "done":
            found.append(f"{part.title}: {outcome.state}, {outcome.reason}")
        for row in outcome.rows:
            if row["ok"] is False:
                found.append(f"{part.title}: {row['what']} {row['note']}".rstrip())
    return found


def device_of(outcomes: Outcomes) -> Mapping[str, Any]:
    """What the part `facts` found out about the device."""
    return next((r["values"] for r in _found(outcomes, "facts") if r["what"] == "device"), {})


def is_gpu(outcomes: Outcomes) -> bool:
    """Whether anything was measured on a GPU."""
    return "capability" in device_of(outcomes)


def figures(outcomes: Outcomes, date: str) -> dict[str, Any]:
    """The figures that stand beside modelled ones.

    Returns:
        "device", "torch", "date"; "steps": {"method", "vit", "members", "ms"} for each pack;
        "trials_per_gpu_hour": {"vit", "what", "trials"} for each way to search.
    """
    programs = next((r for r in _found(outcomes, "facts") if r["what"] == "programs"), None)
    return {
        "device": device_of(outcomes).get("name"),
        "torch": programs and programs["values"].get("torch"),
        "date": date,
        "steps": [
            {**{key: row["values"][key] for key in ("method", "vit", "members")}, "ms": ms}
            for row in _found(outcomes, "packs")
            if (ms := row["values"].get("step ms")) is not None
        ],
        "trials_per_gpu_hour": [
            {"vit": row["values"]["vit"], "what": row["what"], "trials": trials}
            for row in _found(outcomes, "search")
            if "vit" in row["values"] and (trials := row["values"].get("trials per GPU-hour"))
        ],
    }


def _found(outcomes: Outcomes, name: str) -> list[dict[str, Any]]:
    return next((out.rows for part, out in outcomes.items() if part.name == name), [])


def _state(outcome: Outcome) -> str:
    if outcome.state != "done":
        return f"**{outcome.state}**: {outcome.reason}"
    judged = [row["ok"] for row in outcome.rows if row["ok"] is not None]
    if not judged:
        return "measured"
    return "ok" if all(judged) else f"**{judged.count(False)} of {len(judged)} not ok**"


def _sentence(outcomes: Outcomes) -> str:
    found = failures(outcomes)
    return f"{len(found)} rows or parts are not ok." if found else "All that was judged is ok."


def _rows(rows: list[dict[str, Any]]) -> list[str]:
    """Tables in the order in which their rows came, a new one where the columns change."""
    lines: list[str] = []
    for columns, group in groupby(rows, key=lambda row: tuple(row["values"])):
        cells = [
            [
                row["what"],
                *[number(row["values"][column]) for column in columns],
                f"{_MARK[row['ok']]} {row['note']}".strip(),
            ]
            for row in group
        ]
        width = 2 + len(columns) if any(row[-1] for row in cells) else 1 + len(columns)
        head = ["", *columns, ""][:width]
        lines += [""] * bool(lines) + _table(head, [row[:width] for row in cells])
    return lines


_MARK = {True: "ok", False: "**not ok**", None: ""}


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [_line(head), "|---" * len(head) + "|", *map(_line, rows)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
