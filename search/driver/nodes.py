"""Nodes that Ray has given up, and those that come back: what the user reads of them."""

from collections.abc import Mapping, Sequence
from typing import Any

_UNEXPECTED = 2
"""Ray's reason for the end of a node that neither a user nor an autoscaler has stopped."""


class Nodes:
    """Follows the list of a cluster's nodes.

    Args:
        address: HOST:PORT of the head, for what to type.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._alive: dict[str, str] = {}
        """Hosts by the ids of their nodes."""
        self._given_up: dict[str, str] = {}
        """The same, of nodes that were and whose hosts have none any more."""

    def news(self, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
        """Sentences on what has changed since the last call.

        Args:
            nodes: As of `ray.nodes()`.
        """
        found: list[str] = []
        for node in nodes:
            name, host = str(node["NodeID"]), _host(node)
            if node["Alive"]:
                if name not in self._alive and host in self._given_up.values():
                    self._given_up = {n: h for n, h in self._given_up.items() if h != host}
                    found.append(f"a node on {host} is in the cluster again")
                self._alive[name] = host
            elif self._alive.pop(name, None) and node.get("DeathReason") == _UNEXPECTED:
                self._given_up[name] = host
                found.append(self._farewell(node, host))
        return found

    def _farewell(self, node: Mapping[str, Any], host: str) -> str:
        why = str(node.get("DeathReasonMessage") or "its processes have ended")
        if "health check" in why or "heartbeat" in why:
            why = "it has not answered for too long"
        return (
            f"Ray has given up the node on {host} ({why.splitlines()[0]}); trials go on elsewhere. "
            f"To use it again, type there: ray stop; ray start --address={self._address}"
        )


def _host(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
