"""Asks whether a driver can join a cluster: a process of its own, which may be ended at any point.

Prints a line before every step and one with what it has found, each in JSON. Run by
`search.driver.cluster_check`, which reads from the last line what a step that never ended was.
"""

import contextlib
import json
import socket
import sys
from typing import Any

CONNECT_S = 5.0
"""A host that does not take a connection by then swallows packets, or is down."""
ASK_S = 5.0


def probe(host: str, port: int) -> None:
    """Resolve the name, connect, and ask the head who it is."""
    _say(step="resolve")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as err:
        _say(fault="resolve", why=err.strerror or str(err))
        return
    _say(step="connect")
    try:
        _connect([one[4] for one in found])
    except ConnectionRefusedError:
        _say(fault="refused")
        return
    except OSError as err:
        _say(fault="connect", why=err.strerror or "no answer")
        return
    _say(step="ask")
    # Here, not above: Ray takes a moment to load, and is not needed to find out so much.
    from ray.exceptions import AuthenticationError, RayError

    from search.ray_internals import head_answer

    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        _say(**head_answer(name, ASK_S))
    except AuthenticationError:
        _say(fault="token")
    except RayError as err:
        _say(fault="ask", why=str(err).partition("\n")[0])


def _connect(addresses: list[Any]) -> None:
    """Connect to the first address of a name that answers, as clients do.

    Raises:
        OSError: Of the last one; none does.
    """
    for i, address in enumerate(addresses):
        try:
            with contextlib.closing(socket.create_connection(address[:2], CONNECT_S)):
                return
        except OSError:
            if i + 1 == len(addresses):
                raise


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    probe(sys.argv[1], int(sys.argv[2]))
