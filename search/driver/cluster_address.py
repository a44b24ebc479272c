"""Which Ray cluster is meant: `--address`, or $RAY_ADDRESS as Ray's own tools read it."""

import ipaddress
import os
import re
from dataclasses import dataclass

from search.tracking.secrets import without_secrets
from tcpa_core.errors import ConfigError

OPTION, VARIABLE = "--address", "RAY_ADDRESS"
AUTO, LOCAL = "auto", "local"
PORT = 6379
"""Of a head, where 'ray start --head' is given no other."""
DASHBOARD_PORT = 8265
FORMS = (
    f"possible are HOST:PORT as 'ray start --head' prints it (for example 10.0.0.5:{PORT}, "
    f"node1:{PORT} or [2001:db8::5]:{PORT}), 'auto' (the cluster of this machine) and 'local' "
    "(Ray starts here for this command alone)"
)
_HOST = re.compile(r"[\w.-]+|\[[0-9a-fA-F:.]+(%\w+)?\]")


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """A cluster that runs already."""

    text: str
    """HOST:PORT, or "auto": the cluster of this machine."""
    source: str
    """"--address" or "RAY_ADDRESS", for messages."""


def cluster_address(option: str | None) -> ClusterAddress | None:
    """The cluster that a command is to use; None: Ray starts on this machine.

    As in `ray.init` and Ray's command line: without an address, or with "auto", $RAY_ADDRESS counts
    where it is set. Other than there, no address at all never means a cluster that happens to run
    on this machine.

    Args:
        option: What `--address` was given; None: nothing.

    Raises:
        ConfigError: No driver can use such an address.
    """
    text, source = option, OPTION
    variable = os.environ.get(VARIABLE, "")
    if variable and option in (None, AUTO):
        text, source = variable, VARIABLE
    if text is None or text == LOCAL:
        return None
    if text != AUTO:
        host_and_port(text, source)
    return ClusterAddress(text, source)


def host_and_port(text: str, source: str) -> tuple[str, int]:
    """Host, an IPv6 address without its brackets, and port.

    Raises:
        ConfigError: The text is something else.
    """
    got = repr(without_secrets(text))
    scheme, mark, rest = text.partition("://")
    if mark:
        raise ConfigError(_with_scheme(scheme, rest, got, source))
    if _is_ipv6(text) or _HOST.fullmatch(text):
        usual = with_port(text.strip("[]"), PORT)
        raise ConfigError(
            f"{source}: {got} has no port; type {usual} if its head has Ray's usual one; {FORMS}."
        )
    host, _, port = text.rpartition(":")
    if not (_HOST.fullmatch(host) and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 2**16):
        raise ConfigError(f"{source}: {got} is no address of a Ray head; {FORMS}.")
    return host.strip("[]"), int(port)


def with_port(host: str, port: int) -> str:
    """HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _with_scheme(scheme: str, rest: str, got: str, source: str) -> str:
    """Why an address of a protocol is refused, and what to type instead."""
    host = re.split("[/?#]", rest.rpartition("@")[2])[0]
    named = re.sub(r":\d+$", "", host) or "HOST"
    instead = f"type HOST:PORT as 'ray start --head' prints it, for example {named}:{PORT}"
    leave = "" if source == OPTION else f", or override {VARIABLE} with {OPTION} local"
    submit = (
        f"submit the command as a job: ray job submit --address http://{named}:{DASHBOARD_PORT} "
        "-- tcpa search SPACE --address auto"
    )
    if scheme == "ray":
        return (
            f"{source}: {got} is an address of Ray Client, which no study can use: its driver has "
            f"to run on a machine of the cluster. From elsewhere, {submit}; on a machine of the "
            f"cluster, {instead}{leave}."
        )
    if scheme in ("http", "https"):
        return (
            f"{source}: {got} is the address of a dashboard, not of a head. On a machine of the "
            f"cluster, {instead}; from elsewhere, {submit}{leave}."
        )
    return f"{source}: {got} is no address of a Ray head; {FORMS}{leave}."


def _is_ipv6(text: str) -> bool:
    """Whether it is one without a port: 2001:db8::5:6379 is a whole address, too."""
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False
