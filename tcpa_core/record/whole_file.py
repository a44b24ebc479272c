"""Files that are replaced as a whole."""

import os
from pathlib import Path

from tcpa_core.errors import StorageError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file; the old one stays whole until the new one is on disk.

    Raises:
        StorageError: The disk is full, read-only or gone.
    """
    # Beside the file, since a rename is atomic within one file system only. The number of the
    # process keeps a hung worker and the one that took its place apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                # Else a machine that loses power may have renamed a file that is still empty.
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as err:
        raise StorageError.of(path, err) from err
