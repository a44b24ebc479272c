"""Whose fault a worker's end is: of a trial, of too many of them together, or of nobody."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from tcpa_core.record.events import Planned

Report = dict[str, float | str | None]
"""Values of a trial by their names, as far as the scheduler and the sampler ask for them."""

MAX_RESTARTS = 3
"""Times that a trial may lose its worker within an epoch before it is taken for the cause."""
HANG = 2
"""What an epoch that never ends counts, in restarts."""
NODE_LOST = "its node"
"""How a clause begins that says that a worker was lost with its node."""


@dataclass(slots=True)
class Trial:
    """A trial as the dispatcher knows it."""

    planned: Planned | None
    """None: it has ended."""
    until_epoch: int
    worker: int | None = None
    """None: waits for a free place, or has ended."""
    epoch: int = 0
    """Its last new one."""
    epochs: dict[int, Report] = field(default_factory=dict)
    """What the scheduler may ask of each epoch so far."""
    outcome: Report | None = None
    """The same of its end; None: it has not ended."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the trial stands at `until_epoch` or has ended."""
    stopping: bool = False
    restarts: int = 0
    """Workers lost since its last new epoch; one that hung in its epoch counts `HANG`."""

    @property
    def has_ended(self) -> bool:
        """Whether its final event has come."""
        return self.outcome is not None

    @property
    def is_suspect(self) -> bool:
        """Lost its worker twice: its next epoch is trained alone, which shows who is to blame."""
        return self.restarts > 1


@dataclass(slots=True)
class PackState:
    """A pack worker as the dispatcher knows it."""

    actor: Any
    trials: set[str] = field(default_factory=set)
    is_ready: bool = False
    process: str = ""
    """Id and host, for messages."""
    hung_in: tuple[str, ...] = ()
    """Trials of the epoch that did not end, if it is killed for that."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)


def suspects(worker: PackState, trials: Mapping[str, Trial]) -> list[str]:
    """The trials of a worker whose next epoch is trained alone."""
    return [trial for trial in worker.trials if trials[trial].is_suspect]


def blame(worker: PackState, trials: Mapping[str, Trial], why: str) -> int:
    """Count a worker's end against the trials that may have caused it.

    Those of the epoch that hung; else the suspect, whose epoch came first; else all. That a node is
    gone is no trial's fault.

    Returns:
        How many trials have lost another worker in the same epoch together: perhaps too many.
    """
    if why.startswith(NODE_LOST):
        return 0
    names = worker.hung_in or suspects(worker, trials) or worker.trials
    blamed = [trials[name] for name in names]
    for trial in blamed:
        trial.restarts += HANG if worker.hung_in else 1
    is_repeated = not worker.hung_in and all(trial.is_suspect for trial in blamed)
    return len(blamed) if is_repeated else 0


def is_code_fault(err: RayError) -> bool:
    """Whether code of an actor raised it; else a process, a node or the cluster was lost."""
    if isinstance(err, RayTaskError):
        return not isinstance(err.cause, RayError)
    return isinstance(err, RayActorError) and err.actor_init_failed


def clause(err: RayError) -> str:
    """What ended a worker, in a clause; Ray says it in a paragraph or in a traceback."""
    if isinstance(err, ActorUnavailableError):
        return f"{NODE_LOST} does not answer"
    text = str(err).strip()
    because = None if isinstance(err, RayTaskError) else re.search(r"because (its .+?)[.\n]", text)
    return because[1] if because else text.splitlines()[-1]
