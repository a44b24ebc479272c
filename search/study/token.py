"""A file by which a process on any host sees whether a folder is the driver's folder.

Paths that are equal prove nothing: every host has a /home.
"""

import os
import uuid
from contextlib import suppress
from pathlib import Path

_PREFIX = ".driver-"


def put_token(folder: Path) -> str:
    """Make the file and say its name; those of earlier drivers are removed.

    The name is new each time, so that a network file system has no old answer for it.
    """
    remove_tokens(folder)
    name = f"{_PREFIX}{uuid.uuid4().hex}"
    (folder / name).touch()
    return name


def remove_tokens(folder: Path) -> None:
    """Remove the files of all drivers."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def shares(folder: Path, token: str) -> bool:
    """Whether this host has the folder of the driver that made the token, and may write to it."""
    try:
        # Not only a look at the name: listing makes a network file system ask its server.
        return token in os.listdir(folder) and os.access(folder, os.W_OK)
    except OSError:
        return False
