"""The light side of a trial: what Ray Tune sees. It trains nothing and never imports torch.

One Tune trial is one configuration. Each `step` lets the trial's pack train up to the next epoch at
which the scheduler decides; every epoch reaches the journal by another road (`search.dispatcher`).
"""

from typing import Any

import ray
from ray.tune import Trainable

ACTOR_NAMESPACE = "tcpa"


class PackTrial(Trainable):  # type: ignore[misc]
    """Forwards one configuration at a time to the dispatcher."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take a configuration: trial, params, decisions (epochs), dispatcher (actor name)."""
        self._dispatcher = ray.get_actor(config["dispatcher"], namespace=ACTOR_NAMESPACE)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next configuration in the same process."""
        self._trial: str = new_config["trial"]
        self._params: dict[str, Any] = new_config["params"]
        self._decisions: list[int] = list(new_config["decisions"])
        self._epoch = 0
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next decision.

        Returns:
            The last epoch's metrics; `done` and `status` when the trial has ended.
        """
        until = next(e for e in self._decisions if e > self._epoch)
        report: dict[str, Any] = ray.get(
            self._dispatcher.advance.remote(self._trial, self._params, until)
        )
        self._epoch = report.get("epoch", self._epoch)
        return report
