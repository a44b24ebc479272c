"""The journal of a study as its driver writes it. One writer, many readers."""

import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tcpa_core.errors import RecordError, StorageError
from tcpa_core.record.events import Event, decode_line, encode_line


class Journal:
    """Append-only record of a study; a line is on disk before `append` returns.

    Safe to call from several threads of the driver. Opening drops a torn last line, which a killed
    writer never acknowledged.

    Raises:
        RecordError: A line other than the last is damaged.
        StorageError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dropped_bytes = 0
        """Length of a torn last line that was cut off; 0: the journal was whole."""
        self._lock = threading.Lock()
        self._next = 0
        # Time passes within one driver as it does, whoever sets the clock.
        self._epoch = time.time() - time.monotonic()
        if path.exists():
            whole = self._whole_length()
            self.dropped_bytes = path.stat().st_size - whole
            if self.dropped_bytes:
                os.truncate(path, whole)
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as err:
            raise StorageError.of(path, err) from err

    def append(self, *events: Event) -> list[Event]:
        """Write events with one flush to disk.

        Returns:
            The events as written: with their numbers and times.
        """
        with self._lock:
            now = self.now()
            stamped = [replace(event, n=n, t=now) for n, event in enumerate(events, self._next)]
            # All are encoded before any is written: one that cannot be leaves the file as it was.
            lines = [encode_line(event.as_dict()) for event in stamped]
            size = self._file.tell()
            try:
                data = memoryview(b"".join(lines))
                # No buffer in between: what is acknowledged is on the disk.
                while data:  # a disk that becomes full takes a part without an error
                    data = data[self._file.write(data) :]
                os.fsync(self._file.fileno())
            except OSError as err:
                with suppress(OSError):  # no half line: what follows would be unreadable
                    self._file.truncate(size)
                raise StorageError.of(self.path, err) from err
            self._next += len(lines)
        return stamped

    def now(self) -> float:
        """The time that an event would get: Unix time in seconds."""
        return round(self._epoch + time.monotonic(), 3)

    def close(self) -> None:
        """Close the file; nothing can be appended any more."""
        self._file.close()

    def _whole_length(self) -> int:
        """Bytes up to the end of the last whole line."""
        length = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    decode_line(line, f"{self.path.name}:{number}")
                except RecordError:
                    if line.endswith(b"\n"):
                        raise
                    break
                length += len(line)
                self._next = number
        return length
