"""One driver per study: a lock file that names its holder and shows that the holder lives.

On one machine, and on shared file systems that carry `flock` between machines, the kernel keeps the
lock and frees it when its holder dies. Elsewhere the holder's heart beats: it touches the file, and
whoever finds the file of another machine watches it for a while. No clock is compared with another.
"""

import errno
import fcntl
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

from tcpa_core.errors import RunningError, StorageError

BEAT_S = 10.0
"""Time between two signs of life."""
WATCHED_BEATS = 3
"""Signs of life that must fail to come before a driver of another machine is taken for dead."""
POLL_S = 1.0
"""Time between two looks at a lock that is waited for."""
SAID_S = 60.0
"""Time between two sentences on whom it is waited for."""

_LINE = re.compile(r"host (\S+), pid (\d+), since (\S+)")
_NO_FLOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Driver:
    """A process that runs a study."""

    host: str
    pid: int
    since: str

    @classmethod
    def this(cls) -> Self:
        """The present process, from now on."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), since)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The driver that a lock file names; None: nobody since it was given back."""
        return cls.of(path.read_text(encoding="utf-8", errors="replace"))

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The same from the file's text."""
        found = _LINE.match(text)
        return cls(found[1], int(found[2]), found[3]) if found else None

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, since {self.since}"


class DriverLock:
    """The lock of one study; held from `take` to `release` or the end of the process.

    Whoever holds it may take it again, and then gives it back as often.
    """

    def __init__(self, path: Path, study: str) -> None:
        self._path = path
        self._study = study
        self._file: IO[str] | None = None
        self.me: Driver | None = None
        """This process, since it took the lock."""
        self.depth = 0
        """How often it was taken and not yet given back."""
        self._taken_over = ""
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None
        self.before: Driver | None = None
        """The dead driver whose lock was taken over."""
        self.lost_to: Driver | None = None
        """Who took the lock from us, because it saw no sign of life for too long."""

    def take(self) -> str:
        """Become the only driver.

        Returns:
            What was taken over from a dead driver, as a sentence; "" where there was none.

        Raises:
            RunningError: Another driver runs; it is named.
            StorageError: The file cannot be written.
        """
        if self.depth == 0:
            self._taken_over = self._take()
        self.depth += 1
        return self._taken_over

    def take_when_free(self, wait_s: float, say: Callable[[str], None]) -> str:
        """`take`, after the end of the driver that runs now.

        Args:
            wait_s: How long to wait for that at most.
            say: Called with whom it is waited for, at once and then every minute.

        Raises:
            RunningError: That driver still runs.
            StorageError: The file cannot be written.
        """
        begun, said = time.monotonic(), 0
        while True:
            try:
                return self.take()
            except RunningError:
                waited = time.monotonic() - begun
                if waited >= wait_s:
                    raise
                if waited >= said * SAID_S:
                    said += 1
                    by = Driver.read(self._path) or "an unknown process"
                    say(
                        f"waiting for the driver that runs study {self._study!r}: {by}; 'tcpa stop "
                        f"{self._study}' ends it, Ctrl-C the waiting."
                    )
            time.sleep(min(POLL_S, wait_s))

    def _take(self) -> str:
        try:
            file = os.fdopen(
                os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+"
            )
        except OSError as err:
            raise StorageError.of(self._path, err) from err
        try:
            self._flock(file)
            # The kernel's lock is ours; where it does not reach, the last holder may still run.
            before = Driver.read(self._path)
            if before is not None and self._lives(before):
                raise taken(self._study, before)
            self.before, self.me = before, Driver.this()
            file.seek(0)
            file.truncate()
            file.write(f"{self.me}\n")
            file.flush()
        except OSError as err:
            file.close()
            raise StorageError.of(self._path, err) from err
        except BaseException:  # an interrupt, too: the file would stay locked
            file.close()
            raise
        self._file, self.lost_to = file, None
        self._ended.clear()
        # A thread of its own: the main one may be in a call of Ray for minutes.
        self._heart = threading.Thread(target=self._beat, name="driver-lock", daemon=True)
        self._heart.start()
        return f"took over from a driver that ended unexpectedly: {before}" if before else ""

    def release(self) -> None:
        """Let another driver take over; nothing happens where the lock is not held."""
        self.depth = max(0, self.depth - 1)
        if self.depth or self._file is None or self._heart is None:
            return
        self._ended.set()
        self._heart.join()
        with suppress(OSError):
            if self.lost_to is None:
                self._file.truncate(0)
        self._file.close()
        self._file = None

    def holder(self) -> Driver | None:
        """The driver that holds the lock now; None: nobody does."""
        try:
            with self._path.open("r+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return None
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return Driver.read(self._path) or Driver("unknown", 0, "unknown")

    @contextmanager
    def idle(self) -> Iterator[bool]:
        """Keep drivers away for a moment, in which the folder is changed; False: one runs."""
        try:
            with self._path.open("r+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield True
        except FileNotFoundError:
            yield True
        except BlockingIOError:
            yield False

    def is_open_in(self, pid: int) -> bool:
        """Whether a process has the file open; True where the system does not tell."""
        if not os.path.isdir("/proc/self/fd"):
            return True
        with suppress(OSError):  # it has ended, or is another user's
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):  # closed meanwhile
                    if os.path.samefile(f"/proc/{pid}/fd/{name}", self._path):
                        return True
        return False

    def _flock(self, file: IO[str]) -> None:
        for _ in range(5):  # `holder` has it for a moment
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.05)
            except OSError as err:
                if err.errno in _NO_FLOCK:
                    return
                raise
        raise taken(self._study, Driver.read(self._path))

    def _lives(self, before: Driver) -> bool:
        """Whether a driver whose lock is free still runs: its machine's locks do not reach here."""
        if before.host == socket.gethostname():
            return False
        seen = self._path.stat().st_mtime_ns
        until = time.monotonic() + WATCHED_BEATS * BEAT_S
        while time.monotonic() < until:
            time.sleep(BEAT_S / 5)
            with self._path.open() as file:  # opening it makes a network file system look again
                if os.fstat(file.fileno()).st_mtime_ns != seen:
                    return True
        return False

    def _beat(self) -> None:
        """Touch the file until the end; stop where it names another driver."""
        while not self._ended.wait(BEAT_S):
            with suppress(OSError):  # full or away: it may come back
                now = Driver.read(self._path)
                if now is not None and now != self.me:
                    self.lost_to = now
                    return
                os.utime(self._path)


def taken(study: str, by: Driver | None) -> RunningError:
    """The error for a study that another driver runs."""
    return RunningError(
        f"study {study!r} is run by another driver: {by or 'an unknown process'}; wait for it or "
        f"stop it with 'tcpa stop {study}'."
    )
