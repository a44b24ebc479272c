"""Stand-ins for an Optuna trial."""

import math
from collections.abc import Sequence
from random import Random
from typing import Any


class RandomTrial:
    """Draws uniformly, ends included, and refuses empty ranges; keeps what it was asked."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.params: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        assert low <= high
        value = self.random.choice([low, high, self.random.uniform(low, high)])
        if step is not None:
            value = low + step * self.random.randint(0, math.floor((high - low) / step + 1e-9))
        return self._keep(name, value)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        assert low <= high
        return self._keep(name, self.random.choice(range(low, high + 1, step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._keep(name, self.random.choice(choices))

    def _keep(self, name: str, value: Any) -> Any:
        assert name not in self.params
        self.params[name] = value
        return value
