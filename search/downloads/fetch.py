"""Files from the network: told whole by their checksum, and gone on with where one broke off.

torchvision starts a file anew when it was interrupted, and so does huggingface_hub from version 2
on, which moreover compares sizes only.
"""

import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from search.terminal import bytes_text
from tcpa_core.data.base import Progress
from tcpa_core.errors import DataError

CHUNK = 1 << 16
"""About what is lost when the process is killed."""
HASHED = 1 << 20
MOST = 2
"""Times its published size that a file may have, before its checksum is known."""
TIMEOUT_S = 60.0
"""Without a byte a connection is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A published file."""

    url: str
    path: str
    """Where it belongs below the folder of the data set."""
    size: int
    """Bytes, as published."""
    digest: str
    """"md5:" or "sha256:" and hex digits; "blob:" and those of git, which hashes a header too."""
    unpacks: bool = False
    """An archive, unpacked into the folder that it lies in."""

    @property
    def name(self) -> str:
        """Without folders."""
        return self.path.rpartition("/")[2]

    def by_hand(self, root: Path) -> str:
        """How to do without this program what could not be done, as a sentence."""
        return (
            f"By hand: put {self.url} at {root / self.path} and call the same command again, which "
            "checks it."
        )


def address(url: str) -> str:
    """Where a published address is asked for: all that is fetched passes here.

    Tests put a server of this machine in its place.
    """
    return url


def opened(url: str, start: int = 0, token: str | None = None) -> HTTPResponse:
    """The answer to a request.

    Args:
        start: First byte that is wanted; the server may send all the same.
        token: For the server that is asked; not shown to one that it refers to.
    """
    headers = {"User-Agent": "tcpa-search"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = Request(address(url), headers=headers)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    answer: HTTPResponse = urlopen(request, timeout=TIMEOUT_S)
    return answer


def is_whole(remote: Remote, root: Path, progress: Progress) -> bool:
    """Whether a file is there.

    Raises:
        DataError: It is, but with another content.
    """
    path = root / remote.path
    if not path.exists():
        return False
    found = _digest(path, remote, progress)
    if found != remote.digest:
        raise DataError(
            f"{path} has {found}, published is {remote.digest}: it is another file, or a part of "
            "it; move it away and call the command again."
        )
    return True


def fetch(remote: Remote, root: Path, progress: Progress, token: str | None = None) -> None:
    """Fetch a file that is not there, or the rest of it.

    What has arrived stays in PATH.part, and becomes PATH once its checksum is right.

    Raises:
        DataError: The server does not answer or not to the end, the file is another one, there is
            no room for it, or its folder cannot be written.
    """
    path = root / remote.path
    part = path.with_name(f"{path.name}.part")
    with _written(path), _held(part) as file:
        _receive(remote, root, file, progress, token)
        found = _digest(part, remote, progress)
        if found != remote.digest:
            part.unlink()
            raise DataError(
                f"{remote.url} gave a file with {found}, published is {remote.digest}: it is "
                f"another one, and was not kept. Call the command again. {remote.by_hand(root)}"
            )
        part.replace(path)


def need_room(folder: Path, size: int, what: str) -> None:
    """Refuse what does not fit.

    Args:
        folder: Where it is written, or will be made.
        size: Bytes.
        what: It, for the message.

    Raises:
        DataError: The disk has less room.
    """
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise DataError(
            f"{what} needs {bytes_text(size)} in {folder}, the disk has {bytes_text(free)} free; "
            "make room, or name a folder on another disk with --root."
        )


def _receive(
    remote: Remote, root: Path, file: BinaryIO, progress: Progress, token: str | None
) -> None:
    """Append to a file what it lacks."""
    stage = f"download {remote.name}"
    have = file.seek(0, 2)
    try:
        with _answering(remote, root):
            answer = opened(remote.url, have, token)
    except DataError as err:
        if have and isinstance(err.__cause__, HTTPError) and err.__cause__.code == 416:
            return  # there is no byte behind these: all had arrived
        raise
    with answer:
        if have and answer.status != 206:  # this server begins at the beginning
            have = 0
            file.truncate(0)
        elif have and not _begins_at(answer, have):
            raise DataError(f"{remote.url} sent another part than asked. {remote.by_hand(root)}")
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else remote.size
        need_room(root, total - have, remote.name)
        progress(stage, have, total)
        while True:
            if max(have, total) > MOST * remote.size:
                raise DataError(
                    f"{remote.url} sends {max(have, total):,} bytes or more, published are "
                    f"{remote.size:,}: it is another file. {remote.by_hand(root)}"
                )
            with _answering(remote, root):
                data = answer.read(CHUNK)
            if not data:
                break
            file.write(data)
            have += len(data)
            progress(stage, have, total)
    file.flush()
    if have < total:
        raise DataError(
            f"the connection to {remote.url} ended after {have:,} of {total:,} bytes, which are "
            f"kept: call the same command again, which goes on from there. {remote.by_hand(root)}"
        )


def _begins_at(answer: HTTPResponse, start: int) -> bool:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == start


@contextmanager
def _answering(remote: Remote, root: Path) -> Iterator[None]:
    """Turn a failure of the network into a `DataError` that says what else can be done."""
    try:
        yield
    except HTTPError as err:
        raise DataError(
            f"{remote.url} answers {err.code} ({err.reason}). {remote.by_hand(root)}"
        ) from err
    except (OSError, HTTPException) as err:
        raise DataError(
            f"{remote.url} cannot be reached ({reason_of(err)}); what has arrived is kept: call "
            f"the same command again when there is a network. {remote.by_hand(root)}"
        ) from err


def reason_of(err: Exception) -> str:
    """Why the network failed, in a few words."""
    inner = getattr(err, "reason", None) or err
    return str(getattr(inner, "strerror", None) or inner or type(err).__name__).rstrip(".")


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Make a file's folder, and turn a failure to write into it into a `DataError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as err:
        raise DataError(
            f"{path} cannot be written ({err.strerror or err}); make room or take another folder "
            "with --root. What has arrived is kept."
        ) from err


@contextmanager
def _held(part: Path) -> Iterator[BinaryIO]:
    """A file to append to, which no other process appends to."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise DataError(
                f"{part} is being fetched by another 'tcpa data get'; wait for that."
            ) from err
        yield file


def _digest(path: Path, remote: Remote, progress: Progress) -> str:
    """Checksum of a file in the way that the published one is given."""
    kind = remote.digest.partition(":")[0]
    size, done = path.stat().st_size, 0
    found = hashlib.new("sha1" if kind == "blob" else kind, usedforsecurity=False)
    if kind == "blob":
        found.update(b"blob %d\0" % size)
    with path.open("rb") as file:
        while data := file.read(HASHED):
            found.update(data)
            done += len(data)
            progress(f"check {remote.name}", done, size)
    return f"{kind}:{found.hexdigest()}"
