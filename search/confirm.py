"""Train the best points of a search again on fresh seeds, and call one of them the winner.

The value that a search selects by is the largest of many noisy ones and therefore too high. The
confirmation is a study of its own: its rows are the best points, its seeds were never used in the
search, rows race each other seed by seed, and the test split is read for the winner alone.

Of a comparison of methods (`sampler.per`) the best point of each method is confirmed. There every
row is an answer, so each gets all seeds and its test split is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.plan import Plan, plan_space, show_plan
from search.race import contenders, looks
from search.run import run_and_watch, run_watched, sum_up
from search.study import StudyDir
from spaces.axes import label
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
        top: Points to confirm, at least 2; a comparison of methods takes one of each.
        seeds: Most fresh seeds for each; the fewer, the clearer the winner (see `search.race`).

    Returns:
        The exit code: 0 done, 1 with failed trials or interrupted.

    Raises:
        StudyError: The study is no search or has completed too few points, or was confirmed with
            other points or seeds.
    """
    name = confirmed_name(study.name)
    best = best_points(study, top)
    space = confirmation(study, name, best, seeds)
    if (root / name / "study.yaml").is_file():
        folder = StudyDir.open(root, name)
        old = folder.space()
        if (old.ablation, old.seeds) != (space.ablation, space.seeds):
            raise StudyError(
                f"{root / name} confirms other points or seeds than asked for now; rename or "
                "remove that folder to confirm anew."
            )
    else:
        uri = study.document()["tracking_uri"] or None
        plan = plan_space(space, name, root, tracking_uri=uri)
        show_plan(plan, console)
        folder = plan.create()
    code = run_and_watch(folder, root, console, address=address)
    if not code:
        _show(folder, best, study.space().objective[0].metric, console)
    return code


def compare(
    plan: Plan, root: Path, console: Console, *, seeds: int, address: str | None = None
) -> int:
    """Search methods at equal budget (`sampler.per`), then confirm the best point of each.

    Returns:
        The exit code: 0 done, 1 with failed trials in the confirmation or interrupted.
    """
    study = plan.create()
    outcome = run_watched(study, root, console, address=address, tracking_uri=plan.tracking_uri)
    code = sum_up(study, root, outcome, console)
    if not outcome.finished:
        console.print(f"and then: tcpa confirm {study.name} --root {root}", markup=False)
        return code
    return confirm(study, root, console, top=2, seeds=seeds, address=address)


def confirmed_name(study: str) -> str:
    """Name of the study that confirms another."""
    return f"{study}_confirm"


def best_points(study: StudyDir, top: int) -> dict[str, tuple[float, dict[str, Any]]]:
    """The best completed points of a search: name -> (mean objective, settings that vary).

    Raises:
        StudyError: The study is no search, or has too few completed points.
    """
    space = study.space()
    if space.ablation:
        raise StudyError(
            f"{study.name} is an ablation; only the points of a search can be confirmed, or taken "
            "as a base."
        )
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
    if len(values) < min(top, 2):
        need = "two are needed to confirm one" if top > 1 else "one is needed"
        raise StudyError(
            f"{study.name} has {len(values)} completed points, {need}; let it run on: "
            f"'tcpa resume {study.name}'."
        )
    sign = -1 if objective.goal == "maximize" else 1
    means = {point: sum(found) / len(found) for point, found in values.items()}
    ranked = sorted(means, key=lambda point: sign * means[point])
    if not space.sampler.per:
        return {f"point {i}": (means[p], settings[p]) for i, p in enumerate(ranked[:top], start=1)}
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for point in ranked:
        best.setdefault(label(settings[point]["methods"]), (means[point], settings[point]))
    return best


def chosen_point(study: StudyDir, root: Path) -> tuple[dict[str, Any], str]:
    """Settings of the point that a search ends with, and how it was chosen.

    It is the winner of the confirmation where that has run to its end, else what was selected.

    Raises:
        StudyError: The study is no search, or has no completed point.
    """
    _, selected = next(iter(best_points(study, 1).values()))
    name = confirmed_name(study.name)
    if (root / name / "study.yaml").is_file():
        confirmed = StudyDir.open(root, name)
        winner = _winner(confirmed)
        if winner is not None:
            return winner, f"confirmed by {name}"
    return selected, f"selected by {study.name}"


def _winner(confirmed: StudyDir) -> dict[str, Any] | None:
    """The row with the most completed seeds, among those the best mean; None: not finished."""
    objective = confirmed.space().objective[0]
    sign = 1 if objective.goal == "maximize" else -1
    params: dict[str, dict[str, Any]] = {}
    point_of: dict[str, str] = {}
    values: dict[str, list[float]] = {}
    last = ""
    for event in confirmed.events():
        last = event["kind"]
        if last == "planned":
            point_of[event["trial"]] = event["point"]
            params[event["point"]] = {k: v for k, v in event["params"].items() if k != "seed"}
        elif last == "completed" and event.get(objective.metric) is not None:
            values.setdefault(point_of[event["trial"]], []).append(sign * event[objective.metric])
    if last != "finished" or not values:
        return None
    return params[max(values, key=lambda p: (len(values[p]), sum(values[p]) / len(values[p])))]


def confirmation(
    study: StudyDir, name: str, best: Mapping[str, tuple[float, dict[str, Any]]], seeds: int
) -> Space:
    """The confirming study's space; its baseline is what the search selected."""
    used = [event["seed"] for event in study.events() if event["kind"] == "planned"]
    first = max(used) + 1
    searched = study.space()
    compares = searched.sampler.per is not None
    document = {
        "name": name,
        "objective": searched.objective[0].model_dump(),
        "ablation": {
            "design": "components",
            "baseline": next(iter(best)),
            "rows": {row: point for row, (_, point) in best.items()},
            "seeds": list(range(first, first + seeds)),
            "test": "all" if compares else "winner",
            "race": not compares,
        },
    }
    return Space.from_dict(document, source=f"confirmation of {study.name}")


def _show(
    folder: StudyDir,
    best: Mapping[str, tuple[float, dict[str, Any]]],
    metric: str,
    console: Console,
) -> None:
    """The value the search saw beside the confirmed one, and whether the race is decided."""
    of: dict[str, tuple[str, int]] = {}
    values: dict[str, dict[int, float]] = {}
    tested: dict[str, list[float]] = {}
    for event in folder.events():
        if event["kind"] == "planned":
            of[event["trial"]] = event["labels"]["cells"][0]["level"], event["seed"]
        elif event["kind"] in ("completed", "tested"):
            row, seed = of[event["trial"]]
            if event["kind"] == "completed":
                values.setdefault(row, {})[seed] = event[metric]
            if event.get("test_accuracy") is not None:
                tested.setdefault(row, []).append(event["test_accuracy"])
    table = Table("", f"{metric} in the search", "confirmed", "n", "optimism", "test accuracy")
    for row, found in values.items():
        mean, seen = sum(found.values()) / len(found), best[row][0]
        test = tested.get(row)
        shown = f"{sum(test) / len(test):.4f}" if test else ""
        table.add_row(
            row, f"{seen:.4f}", f"{mean:.4f}", str(len(found)), f"{seen - mean:+.4f}", shown
        )
    console.print(table)
    console.print(_verdict(folder, values), markup=False, soft_wrap=True)


def _verdict(folder: StudyDir, values: Mapping[str, Mapping[int, float]]) -> str:
    """Which row won, or between which the seeds could not decide."""
    space = folder.space()
    sign = 1 if space.objective[0].goal == "maximize" else -1
    signed = {row: {s: sign * v for s, v in found.items()} for row, found in values.items()}
    num = max(map(len, values.values()))
    races = space.ablation is not None and space.ablation.race
    left = contenders(signed, space.seeds[:num], looks(len(space.seeds)) if races else 1)
    if not left:
        return "no row has a value for every seed, so none is called the winner."
    if len(left) > 1:
        return (
            f"not decided after {num} seeds: {', '.join(left)} cannot be told apart; "
            f"{left[0]} has the best mean."
        )
    return f"{left[0]} wins: the others are worse beyond what {num} seeds can differ by chance."
