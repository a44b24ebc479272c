"""What the workers of a cluster get of the environment of the driver's shell.

On this machine they inherit it; on a cluster they have that of 'ray start'. Only what is listed
here is copied, and no secret: Ray shows a worker's environment to whoever can reach its dashboard.
"""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from tcpa_core.training.allocator import WORKER_ENV

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
COPIED = (
    *("TCPA_CACHE", "TCPA_PLUGINS", "TCPA_THUMBNAILS"),
    *_PROXIES,
    *(name.upper() for name in _PROXIES),
    # Where weights of the hub lie and come from; HF_TOKEN is a secret.
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TORCH_HOME"),
)
"""Variables that workers get as they are in the driver's shell."""
PATHS = ("TCPA_CACHE", "TCPA_PLUGINS")
"""Of these: folders, which may be relative to the driver's."""


def worker_env(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Environment of the workers of a cluster, beside what they have from 'ray start'.

    Args:
        environ: Of the driver.

    Returns:
        Variables, and sentences on those that are not copied.
    """
    found, notices = dict(WORKER_ENV), []
    for name in COPIED:
        value = environ.get(name)
        if not value:
            continue
        if name.lower() in _PROXIES and _has_password(value):
            notices.append(
                f"{name} holds a name or password and is not copied to the workers; set it on the "
                "nodes, before 'ray start', where they need it"
            )
        else:
            found[name] = _absolute(value) if name in PATHS else value
    return found, notices


def _has_password(address: str) -> bool:
    # Without "//" urlsplit takes everything for a path.
    return "@" in urlsplit(address if "//" in address else f"//{address}").netloc


def _absolute(folders: str) -> str:
    """Folders as every process means them; "~" and variables are those of the node."""
    parts = folders.split(os.pathsep)
    return os.pathsep.join(
        part if not part or part.startswith(("~", "$")) else os.path.abspath(part) for part in parts
    )
