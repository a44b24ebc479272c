"""What population based training asks of a space."""

from typing import get_args

from spaces.perturbation import perturbable
from spaces.sections import Herd, Metric, Objective
from spaces.space import Space
from tcpa_core.errors import ConfigError

PER_EPOCH = [name for name in get_args(Metric) if Objective(metric=name).is_of_epochs]
"""Objectives that are measured after every epoch."""


def with_population(space: Space, place: str) -> Space:
    """The space with what it leaves open of its population: its settings, and as many trials as
    there are members.

    Args:
        space: Its scheduler is `pbt`.
        place: Where it says so, for messages.

    Raises:
        ConfigError: There is nothing by which members could be compared, nothing that could change
            while they train, or no epoch at which it could.
    """
    for problem in (_of_axes(space), _of_trials(space), _of_epochs(space)):
        if problem:
            raise ConfigError(f"{problem} ({place}).")
    herd = herd_of(space)
    trials = space.budget.trials or herd.population
    if trials < herd.population:
        raise ConfigError(
            f"scheduler.population is {herd.population}, and budget.trials lets only {trials} "
            f"begin ({place}); leave budget.trials out, or make the population smaller."
        )
    return space.replaced(
        budget=space.budget.model_copy(update={"trials": trials}),
        # Told in full, so that the record of a study does not follow what is usual later.
        scheduler=space.scheduler.model_copy(update=herd._asdict()),
    )


def _of_axes(space: Space) -> str:
    if perturbable(space):
        return ""
    return (
        "scheduler.name pbt changes settings while a trial trains, and none of the axes "
        f"({', '.join(space.axes)}) may: they give tensors their shapes or say what is trained; "
        "add an axis such as optim.lr, optim.weight_decay, a dropout or an augmentation, or take "
        "asha"
    )


def _of_trials(space: Space) -> str:
    if len(space.objective) > 1 or not space.objective[0].is_of_epochs:
        metrics = ", ".join(one.metric for one in space.objective)
        return (
            "scheduler.name pbt compares members by one objective that every epoch has "
            f"({', '.join(PER_EPOCH)}), got {metrics}; take one of these, or scheduler.name none"
        )
    if len(space.seeds) > 1:
        return (
            f"scheduler.name pbt trains every member with one seed, got {len(space.seeds)} seeds; "
            "name one, and begin a study of its own for each other"
        )
    return ""


def _of_epochs(space: Space) -> str:
    epochs = space.most_epochs
    if herd_of(space).interval > epochs - 2:
        return (
            f"scheduler.interval must be <= {epochs - 2} with train.epochs {epochs}, got "
            f"{herd_of(space).interval}: no member would be looked at before its end; lower it"
        )
    if "train.patience" in space.axes or space.base.get("train.patience") is not None:
        return (
            "scheduler.name pbt needs trials that train to their last epoch, and train.patience "
            "ends them before; leave train.patience out"
        )
    return ""


def herd_of(space: Space) -> Herd:
    """The settings of its scheduler, which is `pbt`."""
    assert space.scheduler.herd is not None
    return space.scheduler.herd
