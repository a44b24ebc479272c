"""One pack worker as the pool has it: its actor, and what is known of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.workers.actors import actor_class
from search.workers.failure_attribution import WorkerLoss
from search.workers.needs import DISTRIBUTIONS, PACKAGES
from search.workers.pack_worker import PackWorker, Place, WorkerSpec
from search.workers.ray_errors import reason_of
from search.workers.reach import RETRY_S, address_of, is_reached
from search.workers.shell import END, PULSE, PackWorkerShell
from search.workers.watchdog import Watchdog
from tcpa_core.config import Flat
from tcpa_core.errors import DeviceError
from tcpa_core.record.values import Device, Pulse
from tcpa_core.training.commands import Command

PROOF_S = 300.0
"""A device that has not multiplied two matrices by then is sick, and a node without a sign of life;
most of the time goes into loading libraries from a slow disk."""
CUT_S = 120.0
"""Longest time that a worker is waited for whose connection was lost; Ray gives its node up in half
of that where nobody reaches it."""
PULSE_S = 10.0
"""How long a process that proves its node may take to answer that it still does."""
PROBE_S = 600.0
"""A probe of all kinds of packs takes seconds for each, and data may have to be decoded first."""


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """A pack worker; its methods ask its actor."""

    actor: Any
    spec: WorkerSpec
    selector: dict[str, str] = field(default_factory=dict)
    """Nodes to which it was allowed to come."""
    place: Place | None = None
    """None: it waits for one."""
    device: Device | None = None
    """What it has proved that it trains on; None: nothing yet."""
    found: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Fingerprints of what it has read to prove its node."""
    is_held_back: bool = False
    """It waits for nodes that join the cluster: others should have the places of today."""
    is_retired: bool = False
    """Ends at its next epoch boundary."""
    why: str = ""
    """Why, a clause."""
    is_replaced: bool = True
    """Whether another one waits for a place once it is gone."""
    hung_in: tuple[str, ...] = ()
    """Trials of the epoch that did not end, if it is killed for that."""
    num_sent: int = 0
    """Commands."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process of a killed worker has ended, or is waited for no longer."""

    @property
    def num_gpus(self) -> float:
        """It trains on a GPU or a part of one; 0: on a processor."""
        return self.spec.num_gpus

    def kill(self) -> None:
        """End its process at once."""
        ray.kill(self.actor)

    async def find_place(self) -> Place:
        """Wait until Ray has a place for it; where it is from then on."""
        self.place = Place(**await self.actor.place.remote())
        return self.place

    async def package_fault(self) -> str:
        """What is wrong with what is installed where it is, as of `Needs`; "": nothing."""
        return await self._fault_of(
            lambda: self.actor.facts.remote(DISTRIBUTIONS, PACKAGES), self.spec.needs.package_fault
        )

    async def enter(self) -> str:
        """Load our package and make the worker; why that cannot be done there, or ""."""
        assert self.place is not None
        make = partial(PackWorker, self.spec, self.place)
        return await self._fault_of(lambda: self.actor.enter.remote(make), lambda _: "")

    async def files_fault(self) -> str:
        """What is wrong with data and weights where it is, as of `Needs`; "": nothing."""
        needs = self.spec.needs
        if not needs.fingerprints:
            return ""

        def judge(found: Mapping[str, Sequence[str]]) -> str:
            self.found = found
            return needs.files_fault(found)

        return await self._fault_of(
            lambda: self.actor.fingerprints.remote(needs.data, needs.backbones), judge
        )

    async def expect(self, found: Mapping[str, Sequence[str]]) -> None:
        """Tell it what a node of the study has found, so that no change of a file goes unseen.

        Args:
            found: As of `files_fault`; {}: nothing was asked.
        """
        if found:
            await self.actor.expect.remote(found)

    async def node_fault(self) -> str:
        """All of it in turn: why its node cannot be used, or ""."""
        return await self.package_fault() or await self.enter() or await self.files_fault()

    async def prove(self) -> Device:
        """Have it prove its device.

        Raises:
            DeviceError: torch cannot train on it, or it does not answer.
            RayError: It was lost.
        """
        try:
            found: Device = await asyncio.wait_for(self.actor.ready.remote(), PROOF_S)
        except TimeoutError:
            why = f"it has not answered for {PROOF_S:.0f} s; see 'nvidia-smi -q'"
            raise DeviceError(why) from None
        except RayTaskError as err:
            if isinstance(err.cause, DeviceError):
                raise err.cause from None
            raise
        self.device = found
        return found

    async def probe(self, trials: Sequence[Flat], share: float) -> list[dict[int, float]]:
        """Speeds of packs on its device, as of `tcpa_core.training.worker.Worker.probe`.

        Raises:
            TimeoutError: It did not end.
            RayError: It was lost.
        """
        call = self.actor.probe.remote(trials, share)
        speeds: list[dict[int, float]] = await asyncio.wait_for(call, PROBE_S)
        return speeds

    async def run(self, dispatcher: Any, number: int) -> None:
        """Have it train until it is told to end.

        Args:
            dispatcher: Gets its events.
            number: Its own, for them.

        Raises:
            RayError: It was lost, or has raised it.
        """
        ended = self.actor.run.remote(dispatcher, number)
        cut_since: float | None = None
        while True:
            try:
                await ended
                return
            except ActorUnavailableError as err:
                # A network that was cut for a while: it may train on, and Ray says if its node is
                # gone. One that neither answers nor dies is not waited for for ever.
                cut_since = cut_since or time.monotonic()
                if isinstance(err, RayTaskError) or time.monotonic() - cut_since > CUT_S:
                    raise
                await asyncio.sleep(RETRY_S)
                ended = self.actor.end.options(concurrency_group=END).remote()

    def send(self, command: Command) -> Coroutine[object, None, None]:
        """Send a command; one that refuses it is broken, which its `run` shows."""
        self.num_sent += 1
        # Here, not in the task: commands keep their order.
        sent = self.actor.command.remote(self.num_sent, command)
        return self._check(sent, self.num_sent, command)

    async def _check(self, sent: Awaitable[None], number: int, command: Command) -> None:
        while True:
            try:
                await sent
                return
            except RayTaskError:
                self.kill()
                return
            except ActorUnavailableError:  # perhaps it has it: it leaves out a number that it knows
                await asyncio.sleep(RETRY_S)
                sent = self.actor.command.remote(number, command)
            except RayError:
                return  # it died: who follows it has its trials moved

    async def pulse(self, timeout_s: float) -> Pulse | None:
        """What it is doing; None: it does not answer, whatever it is doing."""
        ask = self.actor.pulse.options(concurrency_group=PULSE).remote
        try:
            pulse: Pulse | None = await asyncio.wait_for(ask(), timeout_s)
            return pulse
        except (TimeoutError, RayError):
            return None

    async def hang(
        self, is_there: Callable[[], bool], held: Callable[[], Collection[str]]
    ) -> WorkerLoss | None:
        """Wait until it shows no sign of life for too long; None: it has ended before.

        Args:
            is_there: Whether it is still followed.
            held: The trials that it holds.
        """
        watchdog = Watchdog(self.spec.silence_s)
        pulse: Pulse | None = Pulse()
        address = await asyncio.to_thread(address_of, self.place.node) if self.place else None
        while not watchdog.hangs(pulse):
            await asyncio.sleep(watchdog.pause_s)
            if not is_there():
                return None
            pulse = await self.pulse(max(1.0, watchdog.pause_s))
            # A node that is cut off says nothing of its processes; Ray gives it up in time.
            if pulse is None and not await is_reached(address):
                pulse = Pulse(is_idle=True)
        trials = pulse.trials if pulse else ()
        # A process that does not answer cannot say which trials it trains: all count that it holds.
        self.hung_in = tuple(sorted(trials or held()))
        what = f"epoch {pulse.epoch}" if pulse and trials else "the work"
        where = f"pid {self.place.pid} on {self.place.host}" if self.place else ""
        usual = f"{watchdog.usual_s:.1f} s" if watchdog.usual_s is not None else "not known yet"
        reason = (
            f"hung: {watchdog.silent_s:.0f} s without a step in {what} of "
            f"{', '.join(self.hung_in) or 'no trial'}, {where}; longest epoch {usual}"
        )
        return WorkerLoss(reason, hung_in=self.hung_in)

    async def _fault_of(
        self, call: Callable[[], Awaitable[Any]], judge: Callable[[Any], str]
    ) -> str:
        """What is wrong with an answer, or why there is none, as long as its process is there."""
        # As a task: how long it takes, its signs of life say, as hashing a large data set may.
        answer = asyncio.ensure_future(_awaited(call()))
        signs = 0
        while not (await asyncio.wait({answer}, timeout=PROOF_S))[0]:
            pulse = await self.pulse(PULSE_S)
            if pulse is None or pulse.signs == signs:
                answer.cancel()
                return f"it has not answered for {PROOF_S:.0f} s"
            signs = pulse.signs
        try:
            return judge(answer.result())
        except RayTaskError as err:
            return reason_of(err)


async def _awaited(reference: Awaitable[Any]) -> Any:
    return await reference


def start_worker(spec: WorkerSpec, selector: dict[str, str]) -> WorkerHandle:
    """Start a worker; it waits until the cluster has a place for it.

    Args:
        spec: How it is made.
        selector: Ray's labels of the nodes to which it may come; {}: all.
    """
    options = {"label_selector": selector} if selector else {}
    return WorkerHandle(_start(spec, num_cpus=spec.num_cpus, **options), spec, selector)


def start_witness(spec: WorkerSpec, node: str) -> WorkerHandle:
    """Start a process on a node that takes no place of a worker there, to have the node proved."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    spec = replace(spec, num_gpus=0.0)
    return WorkerHandle(_start(spec, num_cpus=0, scheduling_strategy=there), spec)


def _start(spec: WorkerSpec, **options: Any) -> Any:
    cls = actor_class(PackWorkerShell, as_code=True, concurrency_groups={PULSE: 1, END: 1})
    return cls.options(
        num_gpus=spec.num_gpus,
        max_concurrency=2,  # one thread trains, one takes commands in their order
        runtime_env={"env_vars": spec.env} if spec.env else None,
        **options,
    ).remote(spec.num_cpus, spec.num_gpus)
