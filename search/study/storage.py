"""A folder of files at a storage address, on whatever pyarrow reaches: S3, GCS, Azure, HDFS, files.

A file there is whole or absent. Credentials come from the environment and the user's configuration,
as the services' own tools take them; nothing here reads, records or sends one.
"""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from search.study.address import below
from tcpa_core.errors import StorageError, StudyError

PATIENCE_S = 120.0
"""How long a storage that does not answer is asked again while a study runs."""
SHORT_PATIENCE_S = 10.0
"""The same where a user waits for the answer, or a process has to end."""
FIRST_PAUSE_S = 0.5
"""Between two tries; it doubles with every further one."""
MAX_PAUSE_S = 15.0

_OBJECT_STORES = ("s3", "gcs", "abfs")
"""There an object appears when its writer closes it; elsewhere a file grows under its name."""
_HOPELESS = (
    "ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_BUCKET",
    "UNRECOGNIZED_CLIENT", "INVALID_CLIENT_TOKEN", "HTTP status 401", "HTTP status 403",
    "PERMISSION_DENIED", "UNAUTHENTICATED", "AuthenticationFailed", "AuthorizationFailure",
    "libjvm", "libhdfs", "valid account name",
)  # fmt: skip
"""Words of errors that no repeat cures."""
_HOPELESS_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EROFS})

Answer = TypeVar("Answer")


class RefusedError(StorageError):
    """The storage answers, but not to us: no such bucket, other credentials, no driver for it."""


class Stat(NamedTuple):
    """What a storage knows of a file."""

    size: int
    changed_at: float
    """By the storage's clock; Unix time in seconds."""


class Storage:
    """Reads and writes files of a folder; a short outage is waited for.

    Safe to use from several threads.

    Args:
        address: As of `storage_address`.
        patience_s: Time for which a call that fails is repeated.

    Raises:
        StorageError: pyarrow cannot reach storages of this kind from here.
    """

    def __init__(self, address: str, patience_s: float = PATIENCE_S) -> None:
        self.address = address
        self.patience_s = patience_s
        try:
            self._fs, self._folder = _filesystem(address)
        except (OSError, ValueError, ImportError) as err:
            raise RefusedError(self._text(err)) from err

    def below(self, name: str) -> "Storage":
        """The folder of that name in this one."""
        return Storage(below(self.address, name), self.patience_s)

    def read(self, name: str) -> bytes | None:
        """A file's content; None: there is none."""

        def read() -> bytes:
            with self._fs.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())

        return self._repeat(read, or_absent=True)

    def fetch(self, name: str, path: Path) -> bool:
        """Copy a file to this machine, where it replaces the old one at once; False: absent."""
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")

        def copy() -> bool:
            with self._fs.open_input_stream(self._path(name)) as stream, temporary.open("wb") as to:
                shutil.copyfileobj(stream, to, 2**22)
                to.flush()
                os.fsync(to.fileno())
            return True

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._repeat(copy, or_absent=True):
                return False
            temporary.replace(path)
            return True
        except OSError as err:
            raise StorageError.of(path, err) from err
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Replace a file; a reader meets the old or the new one, never a part."""
        path = self._path(name)

        def write() -> None:
            if self._fs.type_name in _OBJECT_STORES:
                self._put(path, data)
                return
            folder, _, name = path.rpartition("/")
            self._fs.create_dir(folder, recursive=True)
            part = f"{folder}/.{name}.{uuid.uuid4().hex}"
            self._put(part, data)
            self._fs.move(part, path)

        self._repeat(write)

    def send(self, path: Path, name: str) -> None:
        """Copy a file of this machine, as `write` does."""
        self.write(name, path.read_bytes())

    def stat(self, name: str) -> Stat | None:
        """Size and time of a file; None: there is none."""
        from pyarrow.fs import FileType

        def look() -> Stat | None:
            (found,) = self._fs.get_file_info([self._path(name)])
            if found.type != FileType.File:
                return None
            return Stat(found.size, found.mtime.timestamp() if found.mtime else 0.0)

        return self._repeat(look)

    def names(self, folder: str = "", *, folders: bool = False) -> list[str]:
        """Names of the files in a folder, or of the folders in it; none where there is none.

        Those that begin with a dot are left out: they are parts of files that are being written.
        """
        from pyarrow.fs import FileSelector, FileType

        kind = FileType.Directory if folders else FileType.File
        selector = FileSelector(self._path(folder), allow_not_found=True)
        found = self._repeat(lambda: self._fs.get_file_info(selector)) or []
        names = (one.base_name for one in found if one.type == kind)
        return sorted(name for name in names if not name.startswith("."))

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}".rstrip("/")

    def _put(self, path: str, data: bytes) -> None:
        # In one call: whoever closes a stream after a part was written completes the object, and a
        # `with` closes it after an exception, too.
        with self._fs.open_output_stream(path) as stream:
            stream.write(data)

    def _repeat(self, call: Callable[[], Answer], *, or_absent: bool = False) -> Answer | None:
        """What a call answers, tried again for a while."""
        begun, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                return call()
            except FileNotFoundError as err:
                if or_absent:
                    return None
                raise RefusedError(self._text(err)) from err
            except OSError as err:
                if err.errno in _HOPELESS_ERRNOS or any(word in str(err) for word in _HOPELESS):
                    raise RefusedError(self._text(err)) from err
                # Asked again each time: a process that has to end has less patience.
                is_over = time.monotonic() + pause - begun > self.patience_s
                if is_over or err.errno is not None:
                    raise StorageError(self._text(err)) from err
            time.sleep(pause)
            pause = min(MAX_PAUSE_S, 2 * pause)

    def _text(self, err: Exception) -> str:
        why = " ".join((str(err).splitlines() or [type(err).__name__])[0].split())
        return (
            f"the storage {self.address} does not answer as it should ({why[:300]}); what is "
            "recorded so far is kept. Correct the address (--storage) or the credentials of this "
            "host, or wait until it answers, then 'tcpa resume'."
        )


@contextmanager
def refused_by_name() -> Iterator[None]:
    """Blame the user's address for a refusal: where nothing runs yet, nothing can be resumed.

    Raises:
        StudyError: The storage refuses us.
    """
    try:
        yield
    except RefusedError as err:
        raise StudyError(f"--storage: {err}") from err


def fetch_folder(storage: Storage, name: str, folder: Path) -> None:
    """Copy the files of a folder in a storage to this machine; nothing where there are none."""
    for file in storage.names(name):
        storage.fetch(f"{name}/{file}", folder / file)


def _filesystem(address: str) -> tuple[Any, str]:
    """pyarrow's file system of an address, and the path in it."""
    from pyarrow.fs import FileSystem

    scheme, _, rest = address.partition("://")
    if scheme == "az":  # pyarrow knows it as abfs://ACCOUNT@CONTAINER
        names = ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
        account = next(filter(None, map(os.environ.get, names)), "")
        address = f"abfs://{account}@{rest}" if account and "@" not in rest else f"abfs://{rest}"
    return FileSystem.from_uri(_with_defaults(scheme, address))


def _with_defaults(scheme: str, address: str) -> str:
    """The address with what we set where the user does not."""
    wanted = {
        "gs": f"retry_limit_seconds={SHORT_PATIENCE_S:.0f}",  # else it tries for 15 minutes
        "s3": "allow_delayed_open=true",  # a small file in one request and not three
    }.get(scheme)
    if wanted is None or wanted.partition("=")[0] in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}{wanted}"
