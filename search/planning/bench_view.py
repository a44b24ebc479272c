"""What a user reads of a bench before it starts."""

import os
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from search.planning.bench_plan import BenchPlan
from search.planning.cost import hours_text
from search.planning.plan_view import print_methods, print_rows
from search.terminal import bytes_text

SHOWN = 30
"""Deviations and warnings that are shown."""


def show_bench_plan(plan: BenchPlan, console: Console) -> None:
    """Print what is left of a bench and what it will take."""
    console.print(Text(f"plan of {plan.folder.name}", style="bold"))
    print_rows(console, "", list(_work(plan)))
    if plan.methods:
        print_methods(console, [size for one in plan.methods for size in one.methods])
    print_rows(console, "data", [(name, _about(plan, name)) for name in plan.data])
    print_rows(console, "where", [("folder", str(plan.folder))])
    notes = list(dict.fromkeys(_notes(plan)))
    for line in notes[:SHOWN]:
        console.print(line, markup=False)
    if len(notes) > SHOWN:
        console.print(f"... and {len(notes) - SHOWN} more; the plan of each cell's study has all.")


def cost_text(plan: BenchPlan) -> str:
    """What is left in a sentence: cells, trials and time."""
    cells = f"{len(plan.cells)} cells left"
    trials = "" if plan.trials is None else f", {plan.trials:,} trials"
    return f"{cells}{trials}; {_time(plan)}"


def _work(plan: BenchPlan) -> Iterator[tuple[str, str]]:
    suite = plan.suite
    backbones = f" x {len(suite.backbones)} backbones" if len(suite.backbones) > 1 else ""
    shape = f"{len(suite.methods)} methods x {len(suite.datasets)} data sets{backbones}"
    yield "cells", f"{shape}; {plan.num_done} done, {len(plan.cells)} left"
    space, budget = suite.given[0].space, suite.budget
    limits = {k: v for k, v in budget.model_dump().items() if v is not None}
    yield (
        "each cell",
        f"a search ({', '.join(f'{k} {v}' for k, v in limits.items())}; {space.sampler.name} "
        f"sampler, scheduler {space.scheduler.name}), then its {suite.confirm.top} best points on "
        f"{suite.confirm.seeds} fresh seeds; the better one on val is tested",
    )
    yield "baseline", f"{suite.baseline}, first in each column"
    if not plan.cells:
        return
    epochs = sorted({one.epochs for one in plan.cells})
    shown = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    trials = "until the time is used up" if plan.trials is None else f"{plan.trials:,}"
    yield "trials", f"{trials}, of at most {shown} epochs"
    yield "cost", _time(plan)
    disk = f"about {bytes_text(plan.study_bytes)} for the studies"
    yield "disk", f"{disk}, at most {bytes_text(plan.cache_bytes)} for decoded pictures"
    yield "order", ", ".join(dict.fromkeys(one.cell.dataset for one in plan.cells))


def _time(plan: BenchPlan) -> str:
    if plan.trials is None:
        return "as long as the budget of each cell says"
    found = plan.estimate
    if found is None:
        return (
            f"not known: no earlier trial of {', '.join(plan.unknown)} with this backbone and "
            "batch size; --probe trains a few steps of each"
        )
    interval = f" ({hours_text(found.low)} to {hours_text(found.high)})"
    if plan.device != "cpu":
        model = "GPU" if plan.device == "cuda" else plan.device
        return f"about {hours_text(found.seconds)}{interval} of one {model}"
    cores = os.cpu_count() or 1
    return (
        f"about {hours_text(found.seconds / cores)} on {cores} cores; "
        f"{hours_text(found.seconds)}{interval} of one core"
    )


def _about(plan: BenchPlan, name: str) -> str:
    summary = plan.data[name]
    sizes = ", ".join(f"{count:,} {split}" for split, count in summary.sizes.items())
    return f"{sizes}; {len(summary.class_names)} classes; {summary.fingerprint[:16]}"


def _notes(plan: BenchPlan) -> Iterator[str]:
    if text := plan.suite.unequal():
        yield f"warning: {text}"
    for one in plan.methods:
        for line in one.deviations:
            yield f"deviation: {line}"
        for line in one.warnings:
            yield f"warning: {line}"
