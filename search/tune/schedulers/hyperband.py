"""Hyperband without waiting: brackets of successive halving (Li et al., JMLR 2018, algorithm 1)."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from search.tune.schedulers import base
from search.tune.schedulers._rungs import Rungs, epochs_of_rungs
from spaces.sections import SchedulerConfig
from spaces.space import Space
from tcpa_core.errors import ConfigError


class Bracket(NamedTuple):
    """A share of the trials with rungs of their own."""

    first: int
    """Its first rung; that of the last bracket is its end, so that none of it is stopped."""
    trials: int
    """As many of a round of all brackets."""


class Scheduler(base.Scheduler):
    """Each bracket stops its trials by ASHA's rule among themselves, so that no trial ever waits.

    Bracket s = s_max, ..., 0 has s rungs: the first bracket begins at `grace_epochs`, each further
    one `reduction_factor` times later, the last stops none. Its share of the trials is Hyperband's
    n = ceil((s_max + 1) / (s + 1) * reduction_factor^s). Which bracket a trial is in follows from
    its number alone, such that any number of first trials has these shares.
    """

    reads = frozenset({"brackets"})

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        factor = space.scheduler.reduction_factor
        brackets = brackets_of(space.scheduler, space.most_epochs)
        self._brackets = [Rungs(bracket.first, factor) for bracket in brackets]
        self._round = _spread([bracket.trials for bracket in brackets])

    def decisions(self, trial: str, epochs: int) -> Sequence[int]:
        """See `base.Scheduler.decisions`."""
        return self._of(trial).below(epochs)

    def goes_on(self, trial: str, epoch: int, values: Sequence[float]) -> bool:
        """See `base.Scheduler.goes_on`."""
        return self._of(trial).goes_on(trial, epoch, values)

    def _of(self, trial: str) -> Rungs:
        return self._brackets[self._round[int(trial) % len(self._round)]]

    @classmethod
    def check(cls, space: Space) -> None:
        """See `base.Scheduler.check`."""
        super().check(space)
        most = len(_first_rungs(space.scheduler, space.most_epochs))
        wanted = space.scheduler.brackets
        if wanted is not None and wanted > most:
            raise ConfigError(
                f"scheduler.brackets must be <= {most}, got {wanted} ({space.place}): with "
                f"grace_epochs {space.scheduler.grace_epochs} and reduction_factor "
                f"{space.scheduler.reduction_factor} no more fit into {space.most_epochs} epochs; "
                "lower it, or leave it out for all that fit."
            )

    @staticmethod
    def shares(settings: SchedulerConfig, epochs: int) -> Mapping[int, float]:
        """See `base.Scheduler.shares`."""
        factor = settings.reduction_factor
        reach: dict[int, float] = {}
        go_on: dict[int, float] = {}
        brackets = brackets_of(settings, epochs)
        for rung in epochs_of_rungs(settings.grace_epochs, factor, epochs):
            for bracket in brackets:
                passed = len(epochs_of_rungs(bracket.first, factor, rung))
                here = bracket.trials / factor**passed
                reach[rung] = reach.get(rung, 0.0) + here
                go_on[rung] = go_on.get(rung, 0.0) + here / (factor if bracket.first <= rung else 1)
        return {rung: go_on[rung] / reach[rung] for rung in reach}

    @staticmethod
    def least(settings: SchedulerConfig, epochs: int) -> float:
        """See `base.Scheduler.least`."""
        brackets = brackets_of(settings, epochs)
        total = sum(one.trials for one in brackets)
        return sum(one.first * one.trials for one in brackets) / total

    @staticmethod
    def text(settings: SchedulerConfig, epochs: int) -> str:
        """See `base.Scheduler.text`."""
        brackets = brackets_of(settings, epochs)
        begins = [str(one.first) for one in brackets if one.first < epochs]
        never = ["never"] if len(begins) < len(brackets) else []
        return (
            f"{settings.name} from epoch {', '.join(begins + never)} on: one of "
            f"{settings.reduction_factor} goes on; {':'.join(str(b.trials) for b in brackets)} "
            "trials"
        )


def brackets_of(settings: SchedulerConfig, epochs: int) -> list[Bracket]:
    """The brackets of a study, the one that stops most first.

    Args:
        settings: Of the scheduler.
        epochs: Of the longest trial.
    """
    firsts = _first_rungs(settings, epochs)
    most = len(firsts) - 1
    every = [
        Bracket(first, math.ceil((most + 1) * settings.reduction_factor**s / (s + 1)))
        for s, first in zip(range(most, -1, -1), firsts, strict=True)
    ]
    return every[: settings.brackets]


def _spread(shares: Sequence[int]) -> list[int]:
    """The bracket of each trial of a round: always one that lags most behind its share."""
    total, taken = sum(shares), [0] * len(shares)
    found = []
    for number in range(1, total + 1):
        lag = [number * share - total * n for share, n in zip(shares, taken, strict=True)]
        found.append(lag.index(max(lag)))
        taken[found[-1]] += 1
    return found


def _first_rungs(settings: SchedulerConfig, epochs: int) -> list[int]:
    rungs = epochs_of_rungs(settings.grace_epochs, settings.reduction_factor, epochs)
    return [*rungs, epochs]
