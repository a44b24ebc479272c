"""The light side of a trial: what Ray Tune sees. It trains nothing and has no process of its own.

One Tune trial is one configuration. Each `train` lets the trial's pack train up to the next epoch
at which the scheduler decides; every epoch reaches the journal by another road, see
`search.workers.dispatcher`.

Tune gives every running trial an actor. As a process, each of them imports Ray Tune (2 CPU-seconds,
180 MiB, measured on Ray 2.60) only to wait: eight took 45 s to start on two busy cores. Tune
reaches its actors through handles which its resource manager prepares, so `Slots` gives it handles
whose calls are calls of the dispatcher, and the only processes of a study are those that train.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.air import AcquiredResources, ResourceRequest
from ray.air.execution import ResourceManager
from ray.tune import Trainable

from tcpa_core.record.events import Planned

Decisions = Callable[[Planned], Sequence[int]]


class PackTrial(Trainable):  # type: ignore[misc]
    """The name of a trial in Ray Tune; `Slots` replaces its actor by a `TrialHandle`.

    Its config is {"trial": NAME}; the rest is in the trial's `Planned`, which Tune need not copy.
    """


class _Call:
    """A method of an actor handle."""

    def __init__(self, remote: Callable[..., Any]) -> None:
        self.remote = remote


class TrialHandle:
    """What Tune takes for the actor of one trial.

    Args:
        dispatcher: Actor handle of the study's dispatcher.
        planned: The trial.
        decisions: Epochs at which Tune decides whether it goes on; the last one is its end.
    """

    def __init__(self, dispatcher: ActorHandle, planned: Planned, decisions: Sequence[int]) -> None:
        self._dispatcher = dispatcher
        self._planned = planned
        self._decisions = decisions
        self._asked = 0
        self.train = _Call(self._train)
        self.stop = _Call(lambda: ray.put(None))  # the searcher stops trials
        self.get_auto_filled_metrics = _Call(lambda **_: {})
        self.__ray_ready__ = _Call(lambda: ray.put(True))

    def _train(self) -> Any:
        """Train up to the next decision; the last epoch's metrics, `done` when it has ended."""
        until = self._decisions[min(self._asked, len(self._decisions) - 1)]
        self._asked += 1
        return self._dispatcher.advance.remote(self._planned, until)


class _ActorClass:
    """What Tune takes for the actor class; called with the arguments of a `Trainable`."""

    def __init__(
        self, dispatcher: ActorHandle, trials: Mapping[str, Planned], decisions: Decisions
    ) -> None:
        self._dispatcher = dispatcher
        self._trials = trials
        self._decisions = decisions

    def remote(self, config: dict[str, Any], **_: Any) -> TrialHandle:
        planned = self._trials[config["trial"]]
        return TrialHandle(self._dispatcher, planned, self._decisions(planned))


@dataclass
class _Slot(AcquiredResources):  # type: ignore[misc]
    actor_class: _ActorClass

    def annotate_remote_entities(self, entities: Sequence[Any]) -> list[Any]:
        """Run trials through the dispatcher instead of in a new actor."""
        return [self.actor_class for _ in entities]


class Slots(ResourceManager):  # type: ignore[misc]
    """Grants every request at once: places are counted by the searcher and the dispatcher.

    Args:
        dispatcher: Actor handle of the study's dispatcher.
        trials: Those that Tune knows, by their names.
        decisions: Epochs at which Tune decides, for a trial.
    """

    def __init__(
        self, dispatcher: ActorHandle, trials: Mapping[str, Planned], decisions: Decisions
    ) -> None:
        self._actor_class = _ActorClass(dispatcher, trials, decisions)

    def request_resources(self, resource_request: ResourceRequest) -> None:
        """Nothing is reserved."""

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        """Nothing was reserved."""

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        """Always."""
        return True

    def acquire_resources(self, resource_request: ResourceRequest) -> _Slot:
        """A slot, whose actors are handles."""
        return _Slot(resource_request, self._actor_class)

    def free_resources(self, acquired_resource: AcquiredResources) -> None:
        """Nothing was reserved."""

    def clear(self) -> None:
        """Nothing is kept."""
