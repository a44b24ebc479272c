"""Whether a node's machine can be reached, and answers of actors whose node cannot for a while."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayTaskError

from tcpa_core.errors import TcpaError

CONNECT_S = 2.0
RETRY_S = 1.0
"""Between two tries to reach an actor whose node is cut off."""

Address = tuple[str, int]


def address_of(node: str) -> Address | None:
    """Where a node of the cluster takes connections; None: Ray does not know it.

    Args:
        node: Ray's id of it.
    """
    for one in ray.nodes():
        if one["NodeID"] == node:
            return one["NodeManagerAddress"], one["NodeManagerPort"]
    return None


async def is_reached(address: Address | None) -> bool:
    """Whether its machine answers; the kernel does so for processes that stand still.

    Args:
        address: As of `address_of`; None: nobody knows, so what is silent there is its own fault.
    """
    if address is None:
        return True
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(*address), CONNECT_S)
    except ConnectionRefusedError:
        return True
    except OSError:  # no answer in time is one, too
        return False
    writer.close()
    return True


def answer(call: Callable[[], Any]) -> Any:
    """What an actor answers, however often the network is cut meanwhile; an error of ours is raised
    as it is.

    Args:
        call: Made again where its answer was lost: the actor may have had it already.
    """
    while True:
        try:
            return ray.get(call())
        except ActorUnavailableError:
            time.sleep(RETRY_S)
        except RayTaskError as err:
            if isinstance(err.cause, TcpaError):
                raise err.cause from None
            raise
