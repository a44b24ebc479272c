"""Train the best points of a search again on fresh seeds, and call one of them the winner.

The value that a search selects by is the largest of many noisy ones and therefore too high. The
confirmation is a study of its own: its rows are the best points, its seeds were never used in the
search, rows are compared seed by seed, and the test split is read for the winner alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.plan import Plan, plan_space, show_plan
from search.run import run_and_watch
from search.study import StudyDir
from spaces.space import Space
from tcpa_core.errors import StudyError


def confirm(
    study: StudyDir,
    root: Path,
    console: Console,
    *,
    top: int,
    seeds: int,
    address: str | None = None,
) -> int:
    """Run the confirmation of a search, or go on with one that was interrupted.

    Args:
        top: Points to confirm, at least 2.
        seeds: Fresh seeds for each.

    Returns:
        The exit code: 0 done, 1 with failed trials or interrupted.

    Raises:
        StudyError: The study is no search or has completed too few points.
    """
    name = confirmed_name(study.name)
    best = best_points(study, top)
    if (root / name / "study.yaml").is_file():
        folder = StudyDir.open(root, name)
    else:
        plan = confirmation(study, root, name, best, seeds)
        show_plan(plan, console)
        folder = plan.create()
    code = run_and_watch(folder, root, console, address=address)
    if not code:
        _show(folder, best, study.space().objective[0].metric, console)
    return code


def confirmed_name(study: str) -> str:
    """Name of the study that confirms another."""
    return f"{study}_confirm"


def best_points(study: StudyDir, top: int) -> dict[str, tuple[float, dict[str, Any]]]:
    """The best completed points of a search: name -> (mean objective, settings that vary).

    Raises:
        StudyError: The study is no search, or fewer than two points are complete.
    """
    space = study.space()
    if space.ablation:
        raise StudyError(f"{study.name} is an ablation; 'tcpa confirm' is for searches.")
    objective = space.objective[0]
    planned: dict[str, Mapping[str, Any]] = {}
    values: dict[str, list[float]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for event in study.events():
        if event["kind"] == "planned":
            planned[event["trial"]] = event
        elif event["kind"] == "completed" and event.get(objective.metric) is not None:
            trial = planned[event["trial"]]
            values.setdefault(trial["point"], []).append(event[objective.metric])
            settings[trial["point"]] = {
                path: value for path, value in trial["params"].items() if path != "seed"
            }
    if len(values) < 2:
        raise StudyError(
            f"{study.name} has {len(values)} completed points, two are needed to confirm one; "
            f"let it run on: 'tcpa resume {study.name}'."
        )
    sign = -1 if objective.goal == "maximize" else 1
    means = {point: sum(found) / len(found) for point, found in values.items()}
    ranked = sorted(means, key=lambda point: sign * means[point])[:top]
    return {f"point {i}": (means[p], settings[p]) for i, p in enumerate(ranked, start=1)}


def confirmation(
    study: StudyDir,
    root: Path,
    name: str,
    best: Mapping[str, tuple[float, dict[str, Any]]],
    seeds: int,
) -> Plan:
    """The plan of the confirming study; its baseline is what the search selected."""
    used = [event["seed"] for event in study.events() if event["kind"] == "planned"]
    first = max(used) + 1
    objective = study.space().objective[0]
    document = {
        "name": name,
        "objective": objective.model_dump(),
        "ablation": {
            "design": "components",
            "baseline": "point 1",
            "rows": {row: point for row, (_, point) in best.items()},
            "seeds": list(range(first, first + seeds)),
            "test": "winner",
        },
    }
    space = Space.from_dict(document, source=f"confirmation of {study.name}")
    return plan_space(space, name, root, tracking_uri=study.document()["tracking_uri"] or None)


def _show(
    folder: StudyDir,
    best: Mapping[str, tuple[float, dict[str, Any]]],
    metric: str,
    console: Console,
) -> None:
    """The value the search saw beside the confirmed one."""
    rows: dict[str, list[float]] = {}
    trials: dict[str, str] = {}
    tested: dict[str, list[float]] = {}
    for event in folder.events():
        if event["kind"] == "planned":
            trials[event["trial"]] = event["labels"]["cells"][0]["level"]
        elif event["kind"] == "completed":
            rows.setdefault(trials[event["trial"]], []).append(event[metric])
        elif event["kind"] == "tested":
            tested.setdefault(trials[event["trial"]], []).append(event["test_accuracy"])
    table = Table("", f"{metric} in the search", "confirmed", "n", "optimism", "test accuracy")
    for row, values in rows.items():
        mean = sum(values) / len(values)
        seen = best[row][0]
        test = tested.get(row)
        shown = f"{sum(test) / len(test):.4f}" if test else ""
        table.add_row(
            row, f"{seen:.4f}", f"{mean:.4f}", str(len(values)), f"{seen - mean:+.4f}", shown
        )
    console.print(table)
