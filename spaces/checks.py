"""Check the parts of a space against each other: each of its trials could be trained."""

import re
from collections.abc import Mapping

from spaces.axes import Axis, ChoiceAxis
from spaces.designs import Ablation
from spaces.sections import SAMPLERS, SCHEDULERS
from spaces.space import Space
from tcpa_core import plugins
from tcpa_core.errors import ConfigError

MAX_DESIGN_TRIALS = 10_000


def check_space(space: Space) -> None:
    """Check corners, first points, sampler and budget of a search, or the design of an ablation.

    Raises:
        ConfigError: Settings contradict each other at some point, or the sampler cannot search it.
    """
    if space.ablation is not None:
        _check_design(space, space.ablation)
        return
    try:
        space.trials  # noqa: B018 - made once, and refused where settings contradict each other
    except ConfigError as err:
        raise ConfigError(_with_remedy(str(err), space.axes, space.place)) from err
    for point in space.first_points:
        space.config(space.complete(point), seed=space.seeds[0])
    _check_sampler(space)
    plugins.load(SCHEDULERS, space.scheduler.name).Scheduler.check(space)


def _check_design(space: Space, ablation: Ablation) -> None:
    # Counted before the points are made: a few long lists of levels give millions of them.
    trials = ablation.num_points() * len(space.seeds)
    if trials > MAX_DESIGN_TRIALS:
        raise ConfigError(
            f"ablation has {trials} trials, more than {MAX_DESIGN_TRIALS} ({space.place}); "
            "leave out levels or factors, or search instead."
        )
    space.design()


def _check_sampler(space: Space) -> None:
    name, place = space.sampler.name, space.place
    # Code from elsewhere is not loaded to be looked at.
    sampler = None if space.sampler.is_code else plugins.load(SAMPLERS, name).Sampler
    enumerates = sampler is not None and sampler.enumerates
    if not space.axes:
        raise ConfigError(
            f"a search needs axes ({place}); list what varies under 'axes', or write an 'ablation'."
        )
    if enumerates and space.size() is None:
        infinite = ", ".join(space.points.infinite) or "the product of all axes"
        raise ConfigError(
            f"sampler.name {name!r} needs axes with countable values, but {infinite} has too many "
            f"({place}); give a step, list choices, or use 'tpe'."
        )
    if sampler is not None and sampler.has_one_objective and len(space.objective) > 1:
        raise ConfigError(
            f"sampler.name {name!r} has one objective, got {len(space.objective)} "
            f"({place}); use 'tpe' or 'nsga2'."
        )
    if space.races_seeds and len(space.objective) > 1:
        raise ConfigError(
            f"seeds.race compares points by one objective, got {len(space.objective)} ({place}); "
            f"write seeds: {len(space.seeds)}, so that every point gets all of them."
        )
    # Neither of the two left out ends a study.
    limits = space.budget.model_dump(exclude_none=True, exclude={"hang_seconds", "pack_size"})
    if not limits and not enumerates:
        raise ConfigError(
            f"budget must limit trials, hours or gpu_hours ({place}); for example "
            "budget: {trials: 64}."
        )


def _with_remedy(message: str, axes: Mapping[str, Axis], place: str) -> str:
    """Say which axis to change, where a message says that one setting must not exceed another."""
    match = re.match(r"(\S+) must be <= (\S+).*, got (\S+) > ([^\s;.]+)", message)
    if match is None:
        return message
    small, large, got, limit = match.groups()
    if isinstance(axes.get(small), ChoiceAxis):
        remedy = f"leave out choices of axis {small} above {limit}"
    elif small in axes:
        remedy = f"lower the upper bound of axis {small} to {limit}"
    else:
        return f"{match[0]} ({place}); raise the lower bound of axis {large} to {got}."
    fraction = f"{{fraction_of: {large}, range: [0.1, 1.0]}}"
    return f"{match[0]} ({place}); {remedy}, or search the fraction instead: {fraction}."
