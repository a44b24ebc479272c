"""The dispatcher of a study and its workers, as many as the cluster has devices for."""

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.driver.concurrency import DEFAULT_SLOTS, Speeds, largest_trials, measured_slots
from search.driver.devices import Devices
from search.driver.event_pump import POLL_S
from search.driver.placement import Placement
from search.driver.selection import is_every_trial_tested
from search.driver.stop_reason import StopReason
from search.study.folder import StudyDir
from search.workers.actors import actor_class
from search.workers.dispatcher import Dispatcher
from search.workers.pack_worker import WorkerSpec
from spaces.space import Space
from tcpa_core.record.events import Notice
from tcpa_core.training.allocator import WORKER_ENV


class Workforce:
    """Starts the dispatcher with its workers, and more workers when the cluster grows.

    Args:
        space: Of the study.
        study: Its folder.
        placement: What the user wants; counts what the cluster has where that is left open.
    """

    def __init__(self, space: Space, study: StudyDir, placement: Placement) -> None:
        self._space = space
        self._study = study
        self._placement = placement
        self.num_gpus: float = ray.cluster_resources().get("GPU", 0.0)
        """Of the cluster."""
        self.devices = Devices("GPU" if self.num_gpus else "CPU")
        self._num_workers = placement.workers or max(1, self.devices.count)
        self._slots = placement.slots or DEFAULT_SLOTS
        self.dispatcher: ActorHandle
        """Set by `start`."""

    def start(self, num_ended: int, stop: StopReason) -> None:
        """Start the workers and find out how many trials each should hold.

        Args:
            num_ended: Trials that have ended under earlier drivers.
            stop: Ends a measurement early.

        Raises:
            RayError: The dispatcher cannot be started.
        """
        spec = WorkerSpec(
            study_dir=self._study.path.resolve(),
            cache_dir=self._placement.cache_dir,
            factory=self._placement.worker_factory,
            count=self._num_workers,
            slots=self._slots,
            num_cpus=1,
            num_gpus=1 if self.num_gpus else 0,
            env=dict(WORKER_ENV) if self._placement.address else {},
            silence_s=self._space.budget.hang_seconds,
        )
        # Beside the driver: with any other node it would be lost, and the driver's run with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = actor_class(Dispatcher).options(
            num_cpus=0, max_concurrency=10_000, scheduling_strategy=here
        )
        metrics = ["duration_s", *(objective.metric for objective in self._space.objective)]
        self.dispatcher = actor.remote(spec, metrics, is_every_trial_tested(self._space))
        # Workers load their libraries while the sampler and Tune start.
        ray.get(self.dispatcher.start.remote())
        if not self._placement.slots:
            self._slots = measured_slots(
                self._space, num_ended, self._num_workers, lambda: self._measure(stop)
            )
        ray.get(self.dispatcher.allow.remote(self._slots))

    @property
    def num_at_once(self) -> int:
        """Trials that Tune holds: one per worker waits, to take a place that falls free at once."""
        return self._num_workers * (self._slots + 1)

    def grow(self) -> Notice | None:
        """Start a worker for each device of the nodes that have joined the cluster.

        A lost node's workers wait for a place; one that joins in its stead is theirs.

        Returns:
            What the user should know; None: nothing has changed.
        """
        # On this machine no device can join, and a number that a user gave is kept.
        is_fixed = self._placement.workers or not self._placement.address
        more = 0 if is_fixed else self.devices.count - self._num_workers
        if more <= 0:
            return None
        self.dispatcher.add_workers.remote(more)
        self._num_workers += more
        if self.num_gpus:
            self.num_gpus = float(self.devices.count)
        return Notice(text=f"the cluster has grown: {more} more workers", gpus=self.num_gpus)

    def close(self) -> None:
        """Count devices no more; the dispatcher is halted by who started the trials."""
        self.devices.close()

    def _measure(self, stop: StopReason) -> Speeds | None:
        # Workers on CPUs share their machine, so that each gets its part of the cores.
        share = 1.0 if self.num_gpus else 1 / self._num_workers
        measured = self.dispatcher.measure.remote(largest_trials(self._space), share)
        while not ray.wait([measured], timeout=POLL_S)[0]:
            if stop:
                return None
        speeds: Speeds = ray.get(measured)
        return speeds
