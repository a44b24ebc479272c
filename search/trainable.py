"""The light side of a trial: what Ray Tune sees. It trains nothing and has no process of its own.

One Tune trial is one configuration. Each `train` lets the trial's pack train up to the next epoch
at which the scheduler decides; every epoch reaches the journal by another road, see
`search.dispatcher`.

Tune gives every running trial an actor. As a process, each of them imports Ray Tune (2 CPU-seconds,
180 MiB, measured on Ray 2.60) only to wait: eight took 45 s to start on two busy cores. Tune
reaches its actors through handles which its resource manager prepares, so `Slots` gives it handles
whose calls are calls of the dispatcher, and the only processes of a study are those that train.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.air import AcquiredResources, ResourceRequest
from ray.air.execution import ResourceManager
from ray.tune import Trainable


class PackTrial(Trainable):  # type: ignore[misc]
    """The name of a trial in Ray Tune; `Slots` replaces its actor by a `TrialHandle`.

    Its config is {"trial": NAME, "params": ..., "decisions": epochs at which Tune decides}.
    """


class _Call:
    """A method of an actor handle."""

    def __init__(self, remote: Callable[..., Any]) -> None:
        self.remote = remote


class TrialHandle:
    """What Tune takes for the actor of one trial.

    Args:
        dispatcher: Actor handle of the study's dispatcher.
        config: Of the `PackTrial`.
    """

    def __init__(self, dispatcher: Any, config: dict[str, Any]) -> None:
        self._dispatcher = dispatcher
        self._trial: str = config["trial"]
        self._params: dict[str, Any] = config["params"]
        self._decisions: Sequence[int] = config["decisions"]
        self._asked = 0
        self.train = _Call(self._train)
        self.stop = _Call(lambda: ray.put(None))  # the searcher stops trials
        self.get_auto_filled_metrics = _Call(lambda **_: {})
        self.__ray_ready__ = _Call(lambda: ray.put(True))

    def _train(self) -> Any:
        """Train up to the next decision; the last epoch's metrics, `done` when it has ended."""
        until = self._decisions[min(self._asked, len(self._decisions) - 1)]
        self._asked += 1
        return self._dispatcher.advance.remote(self._trial, self._params, until)


class _ActorClass:
    """What Tune takes for the actor class; called with the arguments of a `Trainable`."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher

    def remote(self, config: dict[str, Any], **_: Any) -> TrialHandle:
        return TrialHandle(self._dispatcher, config)


@dataclass
class _Slot(AcquiredResources):  # type: ignore[misc]
    dispatcher: Any

    def annotate_remote_entities(self, entities: Sequence[Any]) -> list[Any]:
        """Run trials through the dispatcher instead of in a new actor."""
        return [_ActorClass(self.dispatcher) for _ in entities]


class Slots(ResourceManager):  # type: ignore[misc]
    """Grants every request at once: places are counted by the searcher and the dispatcher."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher

    def request_resources(self, resource_request: ResourceRequest) -> None:
        """Nothing is reserved."""

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        """Nothing was reserved."""

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        """Always."""
        return True

    def acquire_resources(self, resource_request: ResourceRequest) -> _Slot:
        """A slot, whose actors are handles."""
        return _Slot(resource_request, self._dispatcher)

    def free_resources(self, acquired_resource: AcquiredResources) -> None:
        """Nothing was reserved."""

    def clear(self) -> None:
        """Nothing is kept."""
