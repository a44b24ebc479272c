"""Whether a node's machine can be reached, whatever its processes do."""

import asyncio

import ray

CONNECT_S = 2.0

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
