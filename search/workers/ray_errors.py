"""What Ray's errors say of an actor's end; Ray says it in a paragraph or in a traceback."""

import re

from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from search.workers.failure_attribution import WorkerLoss
from tcpa_core.errors import TcpaError


def loss_of(err: RayError) -> WorkerLoss:
    """How a worker was lost whose call ended with this error."""
    reason = reason_of(err)
    # Ray hands the cause of an actor's death over as text alone.
    return WorkerLoss(reason, with_node=reason.startswith("its node"))


def reason_of(err: RayError) -> str:
    """What ended an actor, in a clause."""
    if isinstance(err, ActorUnavailableError):
        return "its node does not answer"
    if isinstance(err, RayTaskError) and isinstance(err.cause, TcpaError):
        return str(err.cause).removesuffix(".")
    text = str(err).strip()
    because = None if isinstance(err, RayTaskError) else re.search(r"because (its .+?)[.\n]", text)
    return because[1] if because else text.splitlines()[-1]


def is_code_fault(err: RayError) -> bool:
    """Whether code of an actor raised it; else a process, a node or the cluster was lost."""
    if isinstance(err, RayTaskError):
        return not isinstance(err.cause, RayError)
    return isinstance(err, RayActorError) and err.actor_init_failed
