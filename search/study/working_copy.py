"""Studies by their names: those of a folder, and those of a storage by their copies in one.

Every verb opens a study here. Of one that lies in a storage it gets the working copy below `root`,
made or brought up to date first; a driver writes the copy and sends it (`StorageKeeper`).
"""

import sys
from pathlib import Path

from search.study.address import below, local_folder
from search.study.copies import Say, make_copy, update_copy
from search.study.description import read_description
from search.study.folder import StudyDir, check_name
from search.study.storage import SHORT_PATIENCE_S, Storage, refused_by_name
from tcpa_core.errors import RecordError, StudyError, TakenError
from tcpa_core.record import files


def tell(text: str) -> None:
    """Say something beside what a verb prints."""
    print(text, file=sys.stderr, flush=True)


def opened(root: Path, name: str, storage: str | None = None, say: Say = tell) -> StudyDir:
    """An existing study; of one that lies in a storage the copy below `root` is up to date.

    Args:
        storage: Storage address of the studies, if the user gave one; else the recorded one counts.
        say: Called with what was done to the copy.

    Raises:
        StudyError: There is none of that name, or the copy and the storage contradict each other.
        StorageError: The storage does not answer.
    """
    root = local_folder(root)
    path = root / name
    recorded = _recorded_storage(path)
    is_here = (path / files.DESCRIPTION).exists()
    if storage and is_here and not _is_same(recorded, storage):
        where = f"lies in {recorded}" if recorded else "lies in its folder alone"
        raise StudyError(
            f"--storage: study {name!r} in {root} {where}; leave --storage out, or give another "
            "--root for the study in the storage."
        )
    address = storage or recorded
    if not address:
        return StudyDir.open(root, name)
    check_name(name)
    with refused_by_name():
        there = Storage(below(address, name), SHORT_PATIENCE_S)
        if is_here:
            update_copy(path, there, say, StudyDir(path).idle)
        elif not make_copy(path, there, say):
            names = stored_names(address)
            listed = f" Studies there: {', '.join(names)}." if names else ""
            raise StudyError(f"no study {name!r} in {address}.{listed}")
    study = StudyDir.open(root, name)
    study.storage = address
    return study


def existing(root: Path, name: str, storage: str | None = None, say: Say = tell) -> StudyDir | None:
    """The study of that name, as of `opened`; None: there is none, and one can be made.

    Raises:
        StudyError: As `StudyDir.check_free` but for a name that is taken.
        StorageError: The storage does not answer.
    """
    try:
        StudyDir.check_free(root, name, storage)
    except TakenError:
        return opened(root, name, storage, say)
    return None


def exists(root: Path, name: str, storage: str | None = None) -> bool:
    """Whether `opened` would find a study of that name, here or in the storage.

    Raises:
        StorageError: The storage does not answer.
    """
    if (local_folder(root) / name / files.DESCRIPTION).is_file():
        return True
    if not storage:
        return False
    return Storage(below(storage, name), SHORT_PATIENCE_S).stat(files.DESCRIPTION) is not None


def stored_names(address: str) -> list[str]:
    """Names of the studies in a storage.

    Raises:
        StudyError: The storage refuses us.
        StorageError: It does not answer.
    """
    with refused_by_name():
        return Storage(address, SHORT_PATIENCE_S).names(folders=True)


def _recorded_storage(path: Path) -> str | None:
    """The storage address that a study folder names; None: it lies here, or cannot be read."""
    try:
        return read_description(path).get("storage")
    except (RecordError, OSError):  # whoever opens the study says what is wrong
        return None


def _is_same(recorded: str | None, given: str) -> bool:
    # The part behind "?" says how a host reaches the storage, which may differ.
    return recorded is not None and recorded.partition("?")[0] == given.partition("?")[0]
