"""Points near another point, for a training that goes on from the state of that one.

Only settings that may change from one epoch to the next are changed (`MAY_CHANGE`); all others, the
shapes of tensors among them, are those of the point that is gone on from.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

from spaces.axes import Axis, ChoiceAxis, FractionAxis
from spaces.space import Space
from tcpa_core.config import TrialConfig, changeable
from tcpa_core.errors import ConfigError

FACTORS = (0.8, 1.2)
"""On a number that is perturbed."""


def perturbable(space: Space) -> list[str]:
    """Axes whose settings may change while a trial trains."""
    return [path for path in space.axes if path in changeable()]


def perturbed(
    space: Space, config: TrialConfig, resample: float, draws: random.Random
) -> TrialConfig | None:
    """Settings near those of a trial of the space, as PBT explores.

    Each axis that may change is drawn anew with probability `resample`. Else a number is multiplied
    with 0.8 or 1.2, and moved back into its axis, and of a choice a neighbour in its list is taken.

    Args:
        config: Of that trial.
        resample: In [0, 1].
        draws: Where chance comes from; asked in the order in which the space builds its points.

    Returns:
        None where the values drawn fit together in no trial that could go on from that state.

    Source:
        Jaderberg et al., arXiv:1711.09846 (2017), section 4; the neighbours in a list are those of
        Ray's PopulationBasedTraining.
    """
    point = space.point_of(config)
    free = set(perturbable(space))

    def pick(path: str, axis: Axis) -> Any:
        if path in point and path not in free:
            return point[path]
        if path not in point or draws.random() < resample:
            return axis.suggest(_Draws(draws), path)
        return _near(axis, point[path], draws)

    try:
        found = space.config(space.domains.walk(pick), config.seed)
    except ConfigError:  # bounds or settings that contradict each other
        return None
    return found if _goes_on(config, found) else None


def _near(axis: Axis, value: Any, draws: random.Random) -> Any:
    assert not isinstance(axis, FractionAxis), "a count of others changes shapes"
    if isinstance(axis, ChoiceAxis):
        place = axis.options.index(value) + draws.choice((-1, 1))
        return axis.options[min(max(place, 0), len(axis.options) - 1)]
    moved = min(max(value * draws.choice(FACTORS), axis.low), axis.high)
    steps = axis.values()
    return moved if steps is None else min(steps, key=lambda step: abs(step - moved))


def _goes_on(before: TrialConfig, after: TrialConfig) -> bool:
    """Whether a training may go on from a state under other settings."""
    kept = [
        {path: value for path, value in one.flat().items() if path not in changeable()}
        for one in (before, after)
    ]
    # AdamW without weight decay may be SGD, whose moments are others.
    return kept[0] == kept[1] and before.optim.rule == after.optim.rule


class _Draws:
    """Draws as of an Optuna trial, evenly over each axis."""

    def __init__(self, draws: random.Random) -> None:
        self._draws = draws

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if log:
            drawn = math.exp(self._draws.uniform(math.log(low), math.log(high)))
        elif step:
            drawn = low + step * self._draws.randint(0, round((high - low) / step))
        else:
            drawn = self._draws.uniform(low, high)
        return min(max(drawn, low), high)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        if log:
            return round(self.suggest_float(name, low, high, log=True))
        return self._draws.randrange(low, high + 1, step)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._draws.choice(choices)
