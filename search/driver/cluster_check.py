"""Says in a moment why a driver cannot join a cluster, and what to type.

`ray.init` prints and retries for a minute or more, says the same of half of these faults, and may
end the process. So a process of its own asks first (`search.driver.cluster_probe`).
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ray

from search.driver.cluster_address import (
    AUTO,
    DASHBOARD_PORT,
    VARIABLE,
    ClusterAddress,
    host_and_port,
    with_port,
)
from search.driver.tokens import (
    MODE,
    TOKEN_MODE,
    has_token,
    remedy_of_token,
    sends_token,
    token_here,
)
from search.ray_internals import cluster_of_this_machine, without_loopback
from tcpa_core.errors import StudyError

LIMIT_S = 13.0
"""For all of it; a user is to have an answer within 15 s."""
_PROBE = Path(__file__).with_name("cluster_probe.py")


@cache
def check_cluster(cluster: ClusterAddress) -> None:
    """Whether a driver can join a cluster; remembered where it can.

    Raises:
        StudyError: It cannot.
    """
    source = cluster.source
    text = cluster_of_this_machine() if cluster.text == AUTO else cluster.text
    if text is None:
        raise StudyError(f"{source}: {_no_cluster()}")
    typed, port = host_and_port(text, source)
    host = without_loopback(typed)
    sends = sends_token(cluster.text == AUTO)
    if sends and not has_token():  # Ray would end the process that asks
        raise StudyError(f"{source}: {token_here()}. {remedy_of_token()}")
    found = _ask(host, port, {MODE: TOKEN_MODE} if sends else {})
    if cluster.text == AUTO and found.get("fault") == "refused":  # what Ray notes may have ended
        raise StudyError(f"{source}: {_no_cluster()}")
    if sentence := _fault(host, port, found):
        if host != typed:  # named as Ray has it: nobody typed that
            sentence += f" Ray takes {typed} for {host}."
        raise StudyError(f"{source}: {sentence}")


def _no_cluster() -> str:
    return (
        f"no node of a Ray cluster runs on {platform.node()}; start one here with 'ray start "
        "--head', or let this machine join a cluster with 'ray start --address=HOST:PORT'."
    )


def _ask(host: str, port: int, variables: Mapping[str, str]) -> dict[str, Any]:
    """What the probe has found, or the step in which it stood still or ended."""
    # -P: nothing in the user's folder is taken for a module of ours or of Ray's
    path = json.dumps([entry for entry in sys.path if entry])
    code = "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); " + (
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    line = [sys.executable, "-P", "-c", code, path, str(_PROBE), host, str(port)]
    try:
        done = subprocess.run(
            line,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_S,
        )
        out = done.stdout
    except subprocess.TimeoutExpired as err:
        out = err.stdout or b""
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    # A step that was begun last stood still, or Ray has ended the process in it.
    return {"fault": found["step"]} if "step" in found else found


def _fault(host: str, port: int, found: dict[str, Any]) -> str:
    """What keeps a driver from joining; "": nothing."""
    address = with_port(host, port)
    match found.get("fault"):
        case "resolve":
            return (
                f"the name {host!r} does not resolve on {platform.node()}; correct it, or type the "
                f"head's IP address, which 'ray start --head' prints there."
            )
        case "refused":
            return (
                f"nothing listens at {address}; start the head there with 'ray start --head "
                f"--port={port}', or type the address that it has printed."
            )
        case "connect":
            return (
                f"no answer from {address}: its machine is down, or a firewall or another network "
                f"lies between; 'nc -vz {host} {port}' here says when it is open."
            )
        case "token":
            return (
                f"the cluster at {address} asks for a token, and this machine shows none or a "
                f"wrong one: {token_here()}. {remedy_of_token()}"
            )
        case "ask":
            return (
                f"something listens at {address} that does not answer as the head of a Ray "
                f"{ray.__version__} cluster; type the port of 'ray start --head' (its dashboard "
                f"has {DASHBOARD_PORT}, Ray Client 10001), and see on {host} with 'ray status' "
                "whether it is well."
            )
    return _unlike(address, found) or _not_here(address, found)


def _unlike(address: str, found: dict[str, Any]) -> str:
    """How the cluster's versions differ; "": they do not."""
    ours = {"ray": ray.__version__, "python": platform.python_version()}
    # As strict as Ray is among nodes, but for the last part of Python's version.
    same_python = found["python"].split(".")[:2] == ours["python"].split(".")[:2]
    if not found["ray"] or (found["ray"] == ours["ray"] and same_python):
        return ""
    return (
        f"the cluster at {address} runs Ray {found['ray']} on Python {found['python']}, this is "
        f"Ray {ours['ray']} on Python {ours['python']}; install the same on both: 'pip install "
        f"ray=={found['ray']}' under Python {'.'.join(found['python'].split('.')[:2])} here, or "
        "start the cluster with what is here."
    )


def _not_here(address: str, found: dict[str, Any]) -> str:
    if found["is_here"]:
        return ""
    return (
        f"no node of the cluster at {address} runs on {platform.node()}, and a driver needs one; "
        f"type here: ray start --address={address} (with --num-cpus=0 no trial trains here), or "
        f"submit the command from here: ray job submit --address http://{address.rpartition(':')[0]}"
        f":{DASHBOARD_PORT} -- tcpa search SPACE; ${VARIABLE} is then set there."
    )
