"""One driver per study also across hosts that have nothing in common but a storage.

No storage that pyarrow reaches locks a file. So the lock is a file that names its holder, who
writes it again every few seconds with a higher number. Whoever finds one that is held watches it
for a while: no clock is compared with another. Two that take it at once both write, wait and read
what stayed.
"""

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from search.study.lock import BEAT_S, WATCHED_BEATS, Driver, taken
from search.study.storage import Storage
from tcpa_core.errors import StorageError
from tcpa_core.record.files import LOCK

SETTLE_S = 2.0
"""What is written by two at once has come to rest by then; a slower one is seen by the next look of
whoever has the lock."""


class StorageLock:
    """The lock of a study in its storage; held from `take` to `release` or the process's end.

    Args:
        storage: The study's folder.
        study: Its name.
        beat_s: Between two signs of life.
    """

    def __init__(self, storage: Storage, study: str, beat_s: float = BEAT_S) -> None:
        self._storage = storage
        self._study = study
        self._beat_s = beat_s
        self._me: Driver | None = None
        self._secret = ""
        """Tells two drivers apart that have host, pid and second in common."""
        self._beats = 0
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None
        self.lost_to: Driver | None = None
        """Who took the lock from us, because it saw no sign of life for too long."""

    def take(
        self, me: Driver, is_dead: Callable[[Driver], bool], say: Callable[[str], None]
    ) -> str:
        """Become the only driver.

        Args:
            me: As it is named to others.
            is_dead: Whether a driver is known to have ended, so that nobody need watch for it.
            say: Called with a sentence when it takes long.

        Returns:
            What was taken over from a dead driver, as a sentence; "" where there was none.

        Raises:
            RunningError: Another driver runs; it is named.
            StorageError: The storage does not answer.
        """
        found = self._read()
        before = Driver.of(found)
        if before is not None and not is_dead(before):
            watched_s = WATCHED_BEATS * self._beat_s
            say(
                f"study {self._study!r} was left by a driver that did not say good-bye ({before}); "
                f"watching {watched_s:.0f} s for a sign of its life."
            )
            if self._changes(found, watched_s):
                raise taken(self._study, before)
        self._me, self._secret, self.lost_to = me, uuid.uuid4().hex, None
        self._write()
        time.sleep(SETTLE_S)
        if not self.is_mine():
            raise taken(self._study, self.lost_to)
        self._ended.clear()
        self._heart = threading.Thread(target=self._beat, name="storage-lock", daemon=True)
        self._heart.start()
        return f"took over from a driver that ended unexpectedly: {before}" if before else ""

    def release(self) -> None:
        """Let another driver take over; nothing happens where the lock is not held."""
        if self._heart is None:
            return
        self._ended.set()
        self._heart.join()
        self._heart = None
        with suppress(StorageError):  # then the next driver watches for a while
            if self.is_mine():
                self._storage.write(LOCK, b"")

    def is_mine(self) -> bool:
        """Look whether the lock is held by this driver; if not, `lost_to` names who has it.

        Raises:
            StorageError: The storage does not answer.
        """
        found = self._read()
        if self._secret in found:
            return True
        self.lost_to = Driver.of(found) or Driver("unknown", 0, "unknown")
        return False

    def holder(self) -> Driver | None:
        """The driver that shows signs of life; None: nobody.

        Judged by the file's time and this host's clock, as a look must not take half a minute:
        enough to be shown, never to take the lock.
        """
        driver, stat = Driver.of(self._read()), self._storage.stat(LOCK)
        if driver is None or stat is None:
            return None
        is_recent = abs(time.time() - stat.changed_at) < 2 * WATCHED_BEATS * self._beat_s
        return driver if is_recent else None

    def _beat(self) -> None:
        """Write the lock again until the end; stop where it names another driver."""
        while not self._ended.wait(self._beat_s):
            with suppress(StorageError):  # it may come back
                if not self.is_mine():
                    return
                self._write()

    def _write(self) -> None:
        self._beats += 1
        self._storage.write(LOCK, f"{self._me}\n{self._secret} {self._beats}\n".encode())

    def _read(self) -> str:
        return (self._storage.read(LOCK) or b"").decode("utf-8", errors="replace")

    def _changes(self, found: str, watched_s: float) -> bool:
        until = time.monotonic() + watched_s
        while time.monotonic() < until:
            time.sleep(self._beat_s / 5)
            if self._read() != found:
                return True
        return False
