"""The dispatcher of a study and its workers, as many as the cluster has devices for."""

import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.driver.concurrency import measured_slots
from search.driver.devices import Devices
from search.driver.event_pump import POLL_S
from search.driver.nodes import Nodes
from search.driver.placement import Placement
from search.driver.selection import is_every_trial_tested
from search.driver.stop_reason import StopReason
from search.driver.worker_env import worker_env
from search.study.folder import StudyDir
from search.study.token import put_token, remove_tokens
from search.workers.actors import actor_class
from search.workers.dispatcher import Dispatcher
from search.workers.needs import needs_of
from search.workers.pack_worker import WorkerSpec
from search.workers.sending import Fetcher, Offer, Sender
from search.workers.sizing import DEFAULT_SLOTS, Sizing, Speeds
from search.workers.trial_files import FilesSpec
from spaces.space import Space
from tcpa_core import plugins
from tcpa_core.errors import StoppedError, StudyError
from tcpa_core.record.events import Notice
from tcpa_core.record.state import StudyState

SHOWN_REFUSALS = 4
"""Devices that an error names with their faults."""


class Workforce:
    """Starts the dispatcher with its workers, and others when the cluster changes.

    Where the user leaves the device open, GPUs are preferred: processors take over when torch can
    use none of the GPUs, and hand over to GPUs that join the cluster.

    Args:
        space: Of the study.
        study: Its folder.
        placement: What the user wants; counts what the cluster has where that is left open.
        say: Called with events of what the user should know.
    """

    def __init__(
        self,
        space: Space,
        study: StudyDir,
        placement: Placement,
        say: Callable[..., None],
    ) -> None:
        self._space = space
        self._study = study
        self._placement = placement
        self._say = say
        self.devices = Devices()
        self._nodes = Nodes(ray.get_runtime_context().gcs_address)
        self.num_gpus = 0.0 if placement.device == "cpu" else float(self.devices.gpus)
        """GPUs of the cluster, where trials run on them; else 0."""
        self.held_gpus = 0.0
        """GPUs that the workers hold at the start; events tell how many from there on."""
        self._useless_gpus = 0
        """GPUs of the cluster when torch could use none."""
        self._num_workers = 0
        self._slots = placement.slots or DEFAULT_SLOTS
        self._is_ending = False
        """The dispatcher knows how many trials there are."""
        self._extra = 0
        """Places that workers have more than that, on other models of devices than the first."""
        self._extra_call: Future[int]
        """Done when that has changed."""
        self.dispatcher: ActorHandle
        """Set by `start`."""
        self._stranded: Future[list[str]]
        """Done when no device is left to train on; says why."""
        self._sender: ActorHandle
        """Gives files to nodes that lack them; with `ship_data`."""
        self._sent: Future[list[str]] | None = None
        """Done when it has; says what."""

    def start(self, state: StudyState, stop: StopReason) -> None:
        """Start the workers and find out how many trials each should hold.

        Args:
            state: What earlier drivers have left.
            stop: Ends a measurement early.

        Raises:
            RayError: The dispatcher cannot be started.
            StoppedError: There is no GPU, or none that torch can use, and no other device will do.
        """
        on_gpus = self._starts_on_gpus()
        # Beside the driver: with any other node it would be lost, and the driver's run with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # A node that joins later looks for it, too.
        token = put_token(self._study.path) if self._placement.address else ""
        spec = WorkerSpec(
            study_dir=self._study.path.resolve(),
            cache_dir=self._placement.cache_dir,
            factory=self._placement.worker_factory,
            count=self._placement.num_workers(int(self.num_gpus), self.devices.cpus),
            slots=self._slots,
            num_cpus=1,
            num_gpus=self._placement.gpu_share if on_gpus else 0.0,
            env=self._worker_env() if self._placement.address else {},
            cluster_gpus=int(self.num_gpus),
            silence_s=self._space.budget.hang_seconds,
            study_id=self._study.document()["id"],
            priority=self._placement.priority,
            is_shared=self._placement.address is not None,
            precisions=tuple({config.train.precision for config in self._space.trials}),
            # On this machine the files have just been looked at.
            needs=needs_of(
                self._space.trials, self._study.fingerprints() if self._placement.address else {}
            ),
            offer=self._offer(here) if self._placement.ship_data else None,
            plugins=plugins.digest() if self._placement.address else "",
            files=FilesSpec(
                study_id=self._study.document()["id"],
                storage=self._study.address,
                token=token,
                home=platform.node(),
            ),
        )
        if self._placement.warm:
            spec = replace(spec, spares=self._placement.warm.take(spec))
        self._num_workers = spec.count
        actor = actor_class(Dispatcher).options(
            num_cpus=0, max_concurrency=10_000, scheduling_strategy=here
        )
        metrics = ["duration_s", *(objective.metric for objective in self._space.objective)]
        self.dispatcher = actor.remote(
            spec,
            metrics,
            is_every_trial_tested(self._space),
            herd.interval if (herd := self._space.scheduler.herd) else None,
        )
        # Workers load their libraries while the sampler and Tune start.
        ray.get(self.dispatcher.start.remote())
        self._stranded = self.dispatcher.stranded.remote().future()
        if on_gpus:
            self._wait_for_gpu(stop)
        self._compare_devices(state)
        if not self._placement.slots:
            self._slots = measured_slots(
                self._space,
                sum(state.counts().values()),
                self._num_workers,
                lambda sizing: self._measure(sizing, stop),
                # Workers on CPUs share their machine, so that each gets its part of the cores.
                share=1.0 if self.num_gpus else 1 / self._num_workers,
            )
        ray.get(self.dispatcher.allow.remote(self._slots))
        self.held_gpus = ray.get(self.dispatcher.held_gpus.remote())
        self._extra_call = self.dispatcher.extra.remote(0).future()

    @property
    def num_at_once(self) -> int:
        """Trials that Tune holds: one per worker waits, to take a place that falls free at once."""
        return max(1, self._num_workers * (self._slots + 1) + self._extra)

    def follow(self) -> None:
        """Follow the cluster: start workers for devices that join it, and for those that fail.

        A lost node's workers wait for a place; one that joins in its stead is theirs.

        Raises:
            RayError: The dispatcher is lost.
            StoppedError: No GPU is left that torch can use, and no other device will do.
        """
        if self._extra_call.done():
            self._extra = self._extra_call.result()
            self._extra_call = self.dispatcher.extra.remote(self._extra).future()
        if self._stranded.done():
            self._take_processors(self._stranded.result())
        if self._sent and self._sent.done():
            with suppress(RayError):  # it is started again
                self._say(*(Notice(text=text) for text in self._sent.result()))
            self._sent = self._sender.news.remote().future()
        # On this machine no device can join.
        if not self._placement.address:
            return
        for text in self._nodes.news(self.devices.nodes):
            self._say(Notice(text=text))
        gpus = 0 if self._placement.device == "cpu" else self.devices.gpus
        if self.num_gpus:
            more = self._placement.num_workers(gpus, 0) - self._num_workers
            self.num_gpus = max(self.num_gpus, float(gpus))
        elif gpus > self._useless_gpus:
            self._move_to_gpus(gpus)
            return
        else:
            more = self._placement.num_workers(0, self.devices.cpus) - self._num_workers
        if more > 0:
            self._add(more)
            self._say(Notice(text=f"the cluster has grown: {more} more workers"))

    def expect(self, num_trials: int) -> None:
        """No trial comes after so many: workers for which none is left end."""
        if not self._is_ending:
            self._is_ending = True
            self.dispatcher.expect.remote(num_trials)

    def close(self) -> None:
        """Count devices no more; the dispatcher is halted by who started the trials."""
        self.devices.close()
        remove_tokens(self._study.path)

    def _worker_env(self) -> dict[str, str]:
        """Environment of the workers of a cluster."""
        env, notices = worker_env(os.environ)
        self._say(*(Notice(text=text) for text in notices))
        return env

    def _offer(self, here: NodeAffinitySchedulingStrategy) -> Offer:
        """What nodes without data or weights are sent, and the actor that does it."""
        from search.workers.cargo import cargo_of  # loads torch, as only a plan has before

        cargo = cargo_of(self._space, None)
        actor = actor_class(Sender).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
        self._sender = actor.remote(cargo.files)
        self._sent = self._sender.news.remote().future()
        return Offer(Fetcher(self._sender, cargo.sizes), cargo.manifests, cargo.bundles)

    def _starts_on_gpus(self) -> bool:
        """Whether the first workers are for GPUs, as the user wants and the cluster has them."""
        if self._placement.device == "cpu":
            return False
        if self.num_gpus:
            return True
        address, workers = self._placement.address, self._placement.workers
        if self._placement.device == "cuda":
            if not (address and workers):
                # A cluster may have one next time, this machine will not.
                raise (StoppedError if address else StudyError)(
                    f"--device cuda: Ray counts no GPU {_where(address)}; see 'tcpa doctor', or "
                    "choose --device auto or cpu. To wait for the nodes of a cluster that grows by "
                    "need, give --address and --workers."
                )
            self.num_gpus = workers * self._placement.gpu_share
            self._say(Notice(text="no GPU yet: the study waits for the first node with one"))
            return True
        if address:
            self._say(
                Notice(
                    text="the cluster has no GPU yet: trials begin on processors and move when "
                    "one joins; --device cpu keeps them there, --device cuda waits for GPUs"
                )
            )
        return False

    def _wait_for_gpu(self, stop: StopReason) -> None:
        """Wait until a GPU has proved itself, or take processors if the user allows that."""
        first = self.dispatcher.has_device.remote()
        while not ray.wait([first], timeout=POLL_S)[0]:
            self._pass_on_events()
            if stop:
                return
        if not ray.get(first):
            self._pass_on_events()  # why, before what is done about it
            try:
                self._take_processors(ray.get(self.dispatcher.stranded.remote()))
            except StoppedError:
                ray.get(self.dispatcher.halt.remote())
                raise

    def _pass_on_events(self) -> None:
        """Record what the dispatcher tells, as long as nobody else reads events."""
        events, _ = ray.get(self.dispatcher.next_events.remote(0.0))
        self._say(*events)

    def _compare_devices(self, state: StudyState) -> None:
        """Say where trials that earlier drivers began go on as they did not begin."""
        started = [one.started.device for one in state.trials.values() if one.started]
        were_on_gpus = {device.startswith("cuda") for device in started}
        if were_on_gpus <= {bool(self.num_gpus)}:
            return
        before, now, keep = "GPUs", "processors, in float32", "cuda"
        if self.num_gpus:
            before, now, keep = "processors", "GPUs, in bfloat16", "cpu"
        self._say(
            Notice(
                text=f"trials of this study ran on {before}; from here on they run on {now} where "
                f"train.precision is auto; --device {keep} allows {before} alone"
            )
        )

    def _take_processors(self, refusals: Sequence[str]) -> None:
        """Go on without GPUs.

        Raises:
            StoppedError: The user wants GPUs, or processors cannot be used either.
        """
        shown = " ".join(f"{text}." for text in refusals[:SHOWN_REFUSALS])
        if len(refusals) > SHOWN_REFUSALS:
            shown += f" ({len(refusals) - SHOWN_REFUSALS} more are refused.)"
        resume = f"'tcpa resume {self._study.name}'"
        if not self.num_gpus:
            raise StoppedError(
                f"No device is left to train on. {shown} Correct that, then {resume}."
            )
        if self._placement.device == "cuda":
            raise StoppedError(
                f"--device cuda: torch can use no GPU. {shown} Correct that, then {resume}, or go "
                "on with --device cpu."
            )
        self._useless_gpus = self.devices.gpus
        self.num_gpus = 0.0
        self._num_workers = 0
        self._add(self._placement.num_workers(0, self.devices.cpus))
        self._say(
            Notice(
                text="torch can use no GPU: trials run on processors; --device cuda makes that an "
                "error",
            )
        )

    def _move_to_gpus(self, gpus: int) -> None:
        self.num_gpus = float(gpus)
        self._num_workers = 0
        self._add(self._placement.num_workers(gpus, 0))
        self._say(
            Notice(
                text=f"{gpus} GPUs are in the cluster now: trials move there from their last epoch "
                "when the first has proved itself; --device cpu keeps a study on processors",
            )
        )

    def _add(self, count: int) -> None:
        num_gpus = self._placement.gpu_share if self.num_gpus else 0.0
        self._stranded = self.dispatcher.add_workers.remote(count, num_gpus).future()
        self._num_workers += count

    def _measure(self, sizing: Sizing, stop: StopReason) -> Speeds | None:
        measured = self.dispatcher.measure.remote(sizing)
        while not ray.wait([measured], timeout=POLL_S)[0]:
            self._pass_on_events()
            if stop:
                return None
        speeds: Speeds = ray.get(measured)
        return speeds


def _where(address: str | None) -> str:
    return f"at {address}" if address else "on this machine"
