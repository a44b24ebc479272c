"""Keeps a study's files in its storage while a driver runs it."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from search.study.copies import KEPT, Say, update_copy, whole_lines
from search.study.lock import Driver
from search.study.storage import SHORT_PATIENCE_S, Storage
from search.study.storage_lock import StorageLock
from tcpa_core.errors import StorageError

EVERY_S = 5.0
"""Between two looks at whether a file has grown."""
COST = 20
"""A file that takes a second to send is sent every so many seconds at most."""


class StorageKeeper:
    """One driver's hold on a study in a storage.

    Args:
        path: The working copy, which the driver writes.
        storage: Where the study lies.
    """

    def __init__(self, path: Path, storage: Storage) -> None:
        self._path = path
        self._storage = storage
        self._lock = StorageLock(storage, path.name)
        self._sent: dict[str, tuple[int, int]] = {}
        """Size and time of the files as they were sent last."""
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="storage", daemon=True)
        self.taken_over = ""
        """As of `StorageLock.take`."""
        self.failure: StorageError | None = None
        """Why the storage has not answered for too long."""

    def begin(self, me: Driver, is_dead: Callable[[Driver], bool], say: Say) -> None:
        """Take the study's lock and send what the storage lacks; from then on what comes.

        Args: As of `StorageLock.take`.

        Raises:
            RunningError: Another driver runs the study.
            StudyError: The storage has another study, or has gone another way with this one.
            StorageError: The storage does not answer.
        """
        self.taken_over = self._lock.take(me, is_dead, say)
        try:
            # It may have gone on elsewhere since it was opened, or while its driver was waited for.
            update_copy(self._path, self._storage, say)
            self.send()
        except BaseException:
            self._lock.release()
            raise
        self._thread.start()

    @property
    def lost_to(self) -> Driver | None:
        """Who took the study from this driver."""
        return self._lock.lost_to

    def send(self) -> None:
        """Send each file that has changed; nothing where another driver has taken the study over.

        Raises:
            StorageError: The storage does not answer.
        """
        with self._sending:
            if not self._lock.is_mine():
                return
            for name in KEPT:
                path = self._path / name
                if not path.exists():
                    continue
                stat = path.stat()
                mark = stat.st_size, stat.st_mtime_ns
                if self._sent.get(name) != mark:
                    self._storage.write(name, whole_lines(path.read_bytes()))
                    self._sent[name] = mark

    def end(self) -> None:
        """Send what is left, if the storage answers, and give the lock back."""
        # Who has to end cannot wait for long, nor for a thread that still does.
        self._storage.patience_s = SHORT_PATIENCE_S
        self._ended.set()
        self._thread.join()
        with suppress(StorageError):  # the journal here is the newer one, and is sent by a resume
            self.send()
        self._lock.release()

    def _work(self) -> None:
        pause = EVERY_S
        while not self._ended.wait(pause):
            begun = time.monotonic()
            try:
                self.send()
            except StorageError as err:
                self.failure = err
                return
            pause = max(EVERY_S, COST * (time.monotonic() - begun))
