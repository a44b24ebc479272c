"""What killed workers leave on a node that does not share the study's folder, and who removes it.

A worker removes the files of its trials itself. One that is killed cannot, as all are whose driver
is killed, and its trials may go on elsewhere. So the last worker of the study on a node looks, as
it ends, for what others have left there. The kernel knows which workers live: each holds a lock.
"""

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from ray.exceptions import RayError

from tcpa_core.errors import TcpaError
from tcpa_core.record.files import BEST, CHECKPOINTS, FOUND, LAST

_LOCK = ".workers"
"""Beside the checkpoints."""
_COPY = ".compared"
"""Among them: a trial's files as the study has them."""

Bring = Callable[[str, Path], None]
"""As `search.workers.trial_files.Carrier.bring`."""


class Presence:
    """Tells other workers of the node that there is one that has files, until it ends or is killed.

    Args:
        folder: Of the study on this node.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _LOCK
        self._held: IO[str] | None = None

    def enter(self) -> None:
        """Before it has files there.

        Raises:
            OSError: The folder cannot be written.
        """
        self._held = self._held or _locked(self._path, fcntl.LOCK_SH)

    def leave(self) -> None:
        """When it has none any longer."""
        if self._held:
            self._held.close()
            self._held = None


def clear(folder: Path, bring: Bring) -> None:
    """Remove what killed workers have left, as far as the study has it; then the empty folders.

    Nothing is done while a worker is present: it does this as it ends. Nor is it where the file
    system has no locks, which leaves open whether one is.

    Args:
        folder: Of the study on this node.

    Raises:
        OSError: The folder cannot be written.
    """
    if not folder.is_dir():
        return
    lock = _locked(folder / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if lock is None:
        return
    with lock:
        for trial in sorted((folder / CHECKPOINTS).glob("[!.]*")):
            # What cannot be compared stays, for a later worker.
            with suppress(TcpaError, RayError, OSError):
                _remove_kept(trial, bring)
        (folder / _LOCK).unlink(missing_ok=True)
        for empty in (folder / CHECKPOINTS, folder):
            with suppress(OSError):  # something had to stay, or a worker has just come
                empty.rmdir()


def _remove_kept(trial: Path, bring: Bring) -> None:
    """Remove a trial's folder if the study has all of its files, as far trained or further."""
    copy = trial.with_name(_COPY)
    shutil.rmtree(copy, ignore_errors=True)  # of a worker that was killed over it
    try:
        bring(trial.name, copy)
        if all(_is_kept(path, copy / path.name) for path in trial.glob("[!.]*")):
            shutil.rmtree(trial)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _is_kept(path: Path, copy: Path) -> bool:
    if not copy.exists():
        return False
    if path.name in (BEST, LAST):
        return _epoch(copy) >= _epoch(path)
    # A trial is scored once: the study has what belongs to the score that counts.
    return path.name in FOUND.values() or path.read_bytes() == copy.read_bytes()


def _epoch(checkpoint: Path) -> int:
    from tcpa_core.training.checkpoint import (
        load_checkpoint,
    )  # loads torch, which the dispatcher does without

    return int(load_checkpoint(checkpoint)[1]["epoch"])


def _locked(path: Path, how: int) -> IO[str] | None:
    """The open file of a lock, which is held until it is closed; None: it is not to be had."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a")
        except FileNotFoundError:  # its last holder has just removed the folder
            continue
        try:
            fcntl.flock(file, how)
        except OSError:  # held by others, or the file system has no locks
            file.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its last holder has removed it since it was opened
