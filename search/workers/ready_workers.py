"""The workers that take trials: where they are, what they hold, and how much room they have."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from tcpa_core.record.values import Device


@dataclass(slots=True)
class _Ready:
    device: Device | None
    held: set[str] = field(default_factory=set)
    """Names of its trials."""
    is_closed: bool = False
    """It takes no more trials, while it comes to the end of an epoch."""


class ReadyWorkers:
    """Workers by their numbers.

    Args:
        slots: Trials that one of them holds at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._slots_of: dict[int, int] = {}
        """Of workers that hold more or fewer trials than the others, or once did."""
        self._ready: dict[int, _Ready] = {}

    def __contains__(self, worker: int) -> bool:
        return worker in self._ready

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._ready))

    def add(self, worker: int, device: Device | None, slots: int | None) -> None:
        """A worker is ready.

        Args:
            worker: Its number.
            device: What it trains on.
            slots: Trials that it holds at once; None: as many as the others.
        """
        if slots is not None:
            self._slots_of[worker] = slots
        self._ready[worker] = _Ready(device)

    def remove(self, worker: int) -> tuple[list[str], str | None]:
        """A worker is gone; the names of its trials, sorted, and of its GPU (None: not ready)."""
        one = self._ready.pop(worker, None)
        if one is None:
            return [], None
        return sorted(one.held), one.device.gpu if one.device else ""

    def close(self, worker: int) -> None:
        """Give a worker no more trials: it is about to end."""
        if worker in self._ready:
            self._ready[worker].is_closed = True

    def allow(self, slots: int, worker: int | None) -> None:
        """Let a worker hold so many trials; None: each that was not told by itself."""
        if worker is None:
            self._slots = slots
        else:
            self._slots_of[worker] = slots

    @property
    def extra(self) -> int:
        """Places that workers have by what they were told themselves, beyond those of others."""
        told = self._slots_of.items()
        return sum(slots - self._slots for worker, slots in told if worker in self._ready)

    def held_by(self, worker: int) -> Collection[str]:
        """Names of the trials that a worker holds; none before it is ready."""
        return self._ready[worker].held if worker in self._ready else ()

    @property
    def num_busy(self) -> int:
        """Workers that hold trials."""
        return sum(bool(one.held) for one in self._ready.values())

    def give(self, worker: int, trial: str) -> None:
        """A worker has a trial more."""
        self._ready[worker].held.add(trial)

    def take_back(self, worker: int, trial: str) -> None:
        """A worker has a trial less."""
        self._ready[worker].held.discard(trial)

    def device_of(self, worker: int) -> Device | None:
        """What a worker trains on."""
        return self._ready[worker].device

    def gpu_of(self, worker: int) -> str:
        """Name of its GPU; "": the processor."""
        device = self._ready[worker].device
        return device.gpu if device else ""

    @property
    def gpus(self) -> list[str]:
        """Names of the GPUs of all."""
        return [self.gpu_of(worker) for worker in self._ready]

    def most_free(
        self, may_have: Callable[[int], bool], takes_one: Callable[[str], bool]
    ) -> int | None:
        """The worker with the most free places; None if there is no place.

        Args:
            may_have: Whether a worker may have the trial at all.
            takes_one: Whether a GPU is given one trial at a time.
        """
        free: dict[int, int] = {}
        for worker, one in sorted(self._ready.items()):
            if not one.is_closed and may_have(worker):
                slots = self._slots_of.get(worker, self._slots)
                free[worker] = (1 if takes_one(self.gpu_of(worker)) else slots) - len(one.held)
        most = max(free, key=lambda worker: free[worker], default=None)
        return most if most is not None and free[most] > 0 else None
