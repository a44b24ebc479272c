"""Read the sections of a space and what follows from them, such as what its protocol fixes.

Root keys: name, base, and for a search axes, constraints, objective, sampler, scheduler, budget,
seeds, first_points; for an ablation ablation, objective, budget. Both may have a cluster.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spaces.ablation_section import read_ablation
from spaces.axes import Axis, ChoiceAxis
from spaces.axes_section import check_axes, read_axis
from spaces.constraints import read_constraints
from spaces.designs import Ablation
from spaces.population import with_population
from spaces.reader import Document
from spaces.row_designs import RowDesign
from spaces.sections import Budget, Cluster, Objective, SamplerConfig, SchedulerConfig
from spaces.setting_values import (
    Entry,
    check_section,
    closed_set,
    default,
    flatten,
    lookup,
    method_of,
    read_setting,
)
from spaces.space import Space
from tcpa_core.config import Flat
from tcpa_core.errors import ConfigError
from tcpa_core.protocols.base import fixed_settings, protocol_names
from tcpa_core.record.scores import SCORES, TASK, Score

_COMMON = ("name", "base", "objective", "budget", "cluster")
_SEARCH = (*_COMMON, "axes", "constraints", "sampler", "scheduler", "seeds", "first_points")
_ABLATION = (*_COMMON, "ablation")

MAX_SEEDS = 1_000
BY_LOSS = "best_val_loss"
"""`train.selection` of a study that optimises val_loss."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A space whose sections are right by themselves, not yet checked against each other."""

    space: Space
    """With all axes as written, and no first points."""
    first_points: Sequence[tuple[Flat, str]]
    """Partial points as written, each with its place."""
    places: Mapping[str, str]
    """Where each base setting and axis stands, by path."""


def read_draft(
    document: Document, fixed: Mapping[str, Entry], winner: Mapping[str, Entry]
) -> Draft:
    """Read every section.

    Args:
        document: The file; study-wide overrides are in it.
        fixed: Overrides of settings; they go into the base, and remove axes of their paths.
        winner: Settings that replace those of the base, but may still be varied (`--from`).

    Raises:
        ConfigError: The first mistake met, with its place.
    """
    is_ablation = "ablation" in document.data
    _check_keys(document, _ABLATION if is_ablation else _SEARCH)
    # Later ones count: the command line before the winner of another study before the file.
    entries = {**flatten(document, "base"), **winner, **fixed}
    base = {path: read_setting(path, entry) for path, entry in entries.items()}
    specs = {p: e for p, e in flatten(document, "axes").items() if p not in fixed}
    # Either would win silently over the other.
    for path, entry in specs.items():
        if path in base:
            raise ConfigError(
                f"{path} is an axis ({entry.place}) and fixed in base ({entries[path].place}); "
                "remove one of them."
            )
    axes = {path: read_axis(path, entry, document) for path, entry in specs.items()}
    places = {path: entry.place for path, entry in {**entries, **specs}.items()}
    ablation = read_ablation(document, base, fixed) if is_ablation else None
    # From here on the base grows: a protocol, then the objective, fill in what nobody has set.
    _drop_other_methods(base, axes, ablation, fixed, places)
    _follow_protocol(base, axes, ablation, places)
    objective = _read_objective(document, _read_score(base, axes, ablation, places))
    _follow_objective(objective[0], base, axes, ablation, places)
    check_axes(axes, base, places)
    relations = read_constraints(document, axes, base, narrowed=bool(fixed))
    seeds, races_seeds = _read_seeds(document, is_ablation)
    space = Space(
        name=_read_name(document),
        base=base,
        axes=axes,
        constraints=tuple(relation.text for relation in relations),
        ablation=ablation,
        objective=objective,
        sampler=_read_sampler(document),
        scheduler=_read_scheduler(document, base, axes, is_ablation),
        budget=check_section(Budget, document, "budget"),
        cluster=check_section(Cluster, document, "cluster"),
        seeds=seeds,
        races_seeds=races_seeds,
        first_points=(),
        source=document.label,
    )
    if space.scheduler.herd:
        place = document.place("scheduler", "name")
        space = with_population(space, place)
    return Draft(space, _read_first_points(document), places)


def _check_keys(document: Document, known: tuple[str, ...]) -> None:
    for key in document.data:
        if key in known:
            continue
        place = document.place(key)
        if key == "seeds" and known is _ABLATION:
            raise ConfigError(f"seeds of an ablation stand under ablation.seeds ({place}).")
        if key in _SEARCH:
            raise ConfigError(
                f"an ablation has no {key!r} ({place}); its points come from the design."
            )
        raise ConfigError(f"a space has no key {key!r} ({place}){closed_set(key, known)}")


def _drop_other_methods(
    base: Flat,
    axes: dict[str, Axis],
    ablation: Ablation | None,
    fixed: Mapping[str, Entry],
    places: Mapping[str, str],
) -> None:
    """Drop settings of methods that an override of `methods` took out.

    Raises:
        ConfigError: A setting of a method that is never chosen, for any other reason.
    """
    chosen = {name for chain in _chains(base, axes, ablation) for name in chain}
    for path in [p for p in (*base, *axes) if method_of(p) not in (None, *chosen)]:
        if path in fixed or "methods" not in fixed:
            raise ConfigError(
                f"{path} belongs to method {method_of(path)!r}, which is never chosen: methods is "
                f"one of {', '.join(sorted(chosen))} ({places[path]}); add it to methods or remove "
                "the setting."
            )
        base.pop(path, None)
        axes.pop(path, None)


def _chains(base: Flat, axes: Mapping[str, Axis], ablation: Ablation | None) -> list[Sequence[str]]:
    """Method chains that some trial of the space has."""
    axis = axes.get("methods")
    chains = list(axis.options) if isinstance(axis, ChoiceAxis) else [base.get("methods")]
    if ablation is not None:
        chains += ablation.levels("methods")
    return [chain or default("methods") for chain in chains]


def _follow_protocol(
    base: Flat, axes: Mapping[str, Axis], ablation: Ablation | None, places: dict[str, str]
) -> None:
    """Put what the protocol fixes into the base, where the space says nothing itself.

    What it fixes for some methods otherwise than for others is left to the trials.

    Raises:
        ConfigError: There is no such protocol.
    """
    name = base.get("protocol")
    if name is None:
        return
    if name not in protocol_names():
        raise ConfigError(
            f"protocol: no protocol {name!r} ({places['protocol']})"
            f"{closed_set(name, protocol_names())}"
        )
    # What a protocol fixes may depend on the methods of the trial.
    fixed = [fixed_settings(name, chain) for chain in _chains(base, axes, ablation)]
    for path, value in [item for one in fixed for item in one.items()]:
        # Where protocols of several methods differ, each trial takes its own default instead.
        agreed = all(one.get(path, value) == value for one in fixed)
        if agreed and path not in base and path not in axes:
            base[path] = list(value) if isinstance(value, tuple) else value  # as YAML has it
            places[path] = f"protocol {name}"


def _follow_objective(
    leading: Objective,
    base: Flat,
    axes: Mapping[str, Axis],
    ablation: Ablation | None,
    places: dict[str, str],
) -> None:
    """Let trials give the lowest val loss where that is what is optimised.

    A space that itself says which epoch selects is left as it is.
    """
    path = "train.selection"
    said = {*base, *axes}
    if ablation is not None:
        said |= ablation.paths()
    if leading.metric == "val_loss" and path not in said:
        base[path] = BY_LOSS
        places[path] = "objective val_loss"


def _read_name(document: Document) -> str:
    name = document.data.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_-]{1,64}", name):
        raise ConfigError(
            f"name must be 1 to 64 of a-z, 0-9, _ and -, got {name!r} ({document.place('name')})."
        )
    return name


def _read_score(
    base: Flat, axes: Mapping[str, Axis], ablation: Ablation | None, places: Mapping[str, str]
) -> Score:
    """By what the trials of a space are compared, unless it says otherwise.

    Raises:
        ConfigError: Its trials have several tasks, which nothing compares.
    """
    found = {str(base.get(TASK, default(TASK)))}
    if ablation is not None and TASK in ablation.paths():
        levels = ablation.levels(TASK)
        is_whole = not isinstance(ablation, RowDesign) or len(levels) == len(ablation.rows)
        found = {*map(str, levels), *(() if is_whole else found)}
    if TASK in axes or len(found) > 1:
        place = places.get(TASK, "ablation")
        raise ConfigError(
            f"{TASK} cannot vary ({place}): trials of different tasks have no common score; write "
            "a space for each task."
        )
    # A task that there is not is told where all settings are checked.
    return SCORES.get(found.pop(), SCORES["classify"])


def _read_objective(document: Document, score: Score) -> tuple[Objective, ...]:
    raw = document.data.get("objective")
    if not isinstance(raw, list):
        return (_one_objective(document, score, "objective"),)
    if not raw:
        raise ConfigError(f"objective lists no metric ({document.place('objective')}).")
    goals = tuple(_one_objective(document, score, "objective", n) for n in range(len(raw)))
    metrics = [goal.metric for goal in goals]
    if len(set(metrics)) != len(metrics):
        raise ConfigError(
            f"objective lists a metric twice, got {metrics} ({document.place('objective')})."
        )
    return goals


def _one_objective(document: Document, score: Score, *keys: str | int) -> Objective:
    raw = lookup(document.data, keys)
    metric = raw.get("metric") if isinstance(raw, Mapping) else None
    place = document.place(*keys, "metric")
    # Refused with its reason; as one of many unknown metrics it would read like a typing error.
    if isinstance(metric, str) and metric.startswith("test_"):
        raise ConfigError(
            f"objective.metric cannot be {metric!r} ({place}): the test split is read once, after "
            f"training, and never chooses. Use {score.val} or val_loss."
        )
    others = {one.val for one in SCORES.values()} - {score.val, "val_accuracy"}
    if isinstance(metric, str) and metric in others:
        raise ConfigError(
            f"objective.metric cannot be {metric!r} ({place}), which trials of this task do not "
            f"have; use {score.val} or val_loss."
        )
    objective = check_section(Objective, document, *keys)
    return objective if metric is not None else objective.model_copy(update={"metric": score.val})


def _read_sampler(document: Document) -> SamplerConfig:
    sampler = check_section(SamplerConfig, document, "sampler")
    if not sampler.is_folder(sampler.name):
        return sampler
    is_set = document.place("sampler", "name").startswith("--set")
    path, colon, wanted = sampler.name.partition(":")
    folder = (Path.cwd() if is_set else document.folder) / os.path.expanduser(path)
    return sampler.model_copy(update={"name": f"{os.path.normpath(folder)}{colon}{wanted}"})


def _read_scheduler(
    document: Document, base: Flat, axes: Mapping[str, Axis], is_ablation: bool
) -> SchedulerConfig:
    if is_ablation:
        # Rows are compared with each other, so that none may be stopped for being worse.
        return SchedulerConfig(name="none")
    scheduler = check_section(SchedulerConfig, document, "scheduler")
    path = "train.epochs"
    epochs = max(axes[path].ends()) if path in axes else base.get(path, default(path))
    if scheduler.name not in ("none", "pbt") and scheduler.grace_epochs > epochs:
        raise ConfigError(
            f"scheduler.grace_epochs must be <= train.epochs, got {scheduler.grace_epochs} > "
            f"{epochs} ({document.place('scheduler', 'grace_epochs')}); lower it, or set "
            "scheduler.name to none."
        )
    return scheduler


def _read_seeds(document: Document, is_ablation: bool) -> tuple[tuple[int, ...], bool]:
    """Seeds, and whether they are raced."""
    keys = ("ablation", "seeds") if is_ablation else ("seeds",)
    raw, name = lookup(document.data, keys), ".".join(keys)
    if not isinstance(raw, dict):
        return _list_of_seeds(raw, name, document.place(*keys)), False
    place = document.place(*keys)
    if list(raw) != ["race"]:
        raise ConfigError(f"{name} has only the key 'race', got {raw!r} ({place}).")
    if is_ablation:
        raise ConfigError(
            f"{name} of an ablation is a count or a list, got {raw!r} ({place}); ablation.race: "
            "true gives rows that are clearly worse fewer seeds."
        )
    seeds = _list_of_seeds(raw["race"], f"{name}.race", place)
    if len(seeds) < 2:
        raise ConfigError(
            f"{name}.race must be the most seeds of a point, 2 or more, got {raw['race']!r} "
            f"({place})."
        )
    return seeds, True


def _list_of_seeds(raw: object, name: str, place: str) -> tuple[int, ...]:
    if raw is None:
        return (0,)
    # `type`, as true is an int.
    if type(raw) is int and 1 <= raw <= MAX_SEEDS:
        return tuple(range(raw))
    whole = isinstance(raw, list) and all(type(seed) is int and seed >= 0 for seed in raw)
    if not isinstance(raw, list) or not whole or not raw or len(raw) > MAX_SEEDS:
        raise ConfigError(
            f"{name} must be a count n >= 1 (seeds 0 to n-1) or a list of whole numbers "
            f">= 0, at most {MAX_SEEDS}; got {raw!r} ({place})."
        )
    if len(set(raw)) != len(raw):
        raise ConfigError(f"{name} lists a seed twice, got {raw} ({place}).")
    return tuple(raw)


def _read_first_points(document: Document) -> list[tuple[Flat, str]]:
    raw = document.data.get("first_points")
    place = document.place("first_points")
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise ConfigError(f"first_points must be a list of points, got {raw!r} ({place}).")
    points = []
    for index in range(len(raw)):
        if raw[index] is None:
            raise ConfigError(f"first_points lists an empty entry ({place}); write {{}}.")
        entries = flatten(document, "first_points", index)
        point = {path: read_setting(path, entry) for path, entry in entries.items()}
        points.append((point, document.place("first_points", index)))
    return points
