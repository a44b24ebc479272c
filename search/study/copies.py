"""The files of a study in a storage beside those of its working copy: which of the two count.

Of two journals the longer one counts if it goes on where the shorter one ends; else they are a
fork, which nobody may guess the end of.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from search.study.description import read_description
from search.study.storage import Storage
from tcpa_core.errors import StorageError, StudyError
from tcpa_core.record import files

KEPT = (files.DESCRIPTION, files.OPTUNA_LOG, files.JOURNAL)
"""What is kept beside the checkpoints, which workers send; the journal last: it counts."""

Say = Callable[[str], None]


def whole_lines(data: bytes) -> bytes:
    """The text up to its last whole line: its writer may be at the next one, or have died of it."""
    return data[: data.rfind(b"\n") + 1]


def make_copy(path: Path, there: Storage, say: Say) -> bool:
    """Make a copy where there is none; False: the storage has no such study.

    Raises:
        RecordError: It is damaged there.
        StorageError: The storage does not answer, or the disk is full.
    """
    if there.stat(files.DESCRIPTION) is None:  # nothing is made for a name that is misspelt
        return False
    with _fetched(path, there) as fetched:
        if fetched is None:
            return False
        read_description(fetched)
        with suppress(FileExistsError):  # another command has just made it
            fetched.rename(path)
    say(f"{path}: working copy made from {there.address}.")
    return True


def update_copy(
    path: Path,
    there: Storage,
    say: Say,
    idle: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
) -> None:
    """Bring a copy up to date, unless it is the newer one.

    Args:
        idle: Keeps drivers of the copy away for a moment; False: one runs, and knows more.

    Raises:
        StudyError: They are two studies, or a fork of one.
        RecordError: One of them is damaged.
        StorageError: The storage does not answer, or the disk is full.
    """
    with _fetched(path, there) as fetched:
        if fetched is None:
            return  # its maker died before it could send it
        if read_description(fetched)["id"] != read_description(path)["id"]:
            raise StudyError(
                f"{path} and {there.address} are two studies of one name; give another --root, or "
                "move the folder away."
            )
        with idle() as is_idle:
            if is_idle:
                _compare(path, fetched, there.address, say)


@contextmanager
def _fetched(path: Path, there: Storage) -> Iterator[Path | None]:
    """A folder beside the copy with the storage's files; None: there are none."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        found = [there.fetch(name, temporary / name) for name in KEPT]
        yield temporary if found[0] else None
    except OSError as err:
        raise StorageError.of(path, err) from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _compare(path: Path, fetched: Path, address: str, say: Say) -> None:
    here, there = (_journal(folder) for folder in (path, fetched))
    if here == there:
        # A change of study.yaml alone: it is sent before the verb that made it ends.
        if (fetched / files.DESCRIPTION).read_bytes() != (path / files.DESCRIPTION).read_bytes():
            (fetched / files.DESCRIPTION).replace(path / files.DESCRIPTION)
            say(f"{path}: study.yaml brought up to date from {address}.")
    elif there.startswith(here):
        for name in KEPT:
            if (fetched / name).exists():
                (fetched / name).replace(path / name)
        say(
            f"{path}: brought up to date from {address}, which had {_lines(there, here)} events "
            "more."
        )
    elif here.startswith(there):
        say(
            f"{path}: newer than {address} by {_lines(here, there)} events; the next driver here "
            f"sends them: 'tcpa resume {path.name}'."
        )
    else:
        raise StudyError(_fork(path, here, there, address))


def _fork(path: Path, here: bytes, there: bytes, address: str) -> str:
    mine, others = here.splitlines(), there.splitlines()
    same = next(n for n, (a, b) in enumerate(zip(mine, others, strict=False)) if a != b)
    return (
        f"{path} and {address} have gone different ways since event {same}: the storage has "
        f"{len(others) - same} events since, the folder {len(mine) - same}. The storage counts if "
        f"the study was resumed on another host: move {path} away, and the next command makes it "
        "anew from there."
    )


def _lines(longer: bytes, shorter: bytes) -> int:
    return longer.count(b"\n") - shorter.count(b"\n")


def _journal(folder: Path) -> bytes:
    path = folder / files.JOURNAL
    return whole_lines(path.read_bytes()) if path.exists() else b""
