"""Where in a journal the trials stand that have completed, by their digests.

Most lines of a journal are epochs. Here a line is looked at by its first bytes and no line is
parsed, so that journals of millions of lines are read in seconds, and each only once: of a long one
the result is kept beside it, and what was appended since is all that is read. It says where to
look; what is found there is checked like every other record.
"""

import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tcpa_core.errors import RecordError
from tcpa_core.record import files
from tcpa_core.record.events import TrialEvent, decode_line

_VERSION = 1
_HEAD = 64
"""Bytes in which a driver writes a line's number, time and kind."""
_NAMED = 192
"""Bytes in which it has written the name of its trial."""
_MIN_NEW = 1 << 22
"""New bytes from which the places are kept; fewer are read again in less time."""
_TAIL = 4096
"""Bytes before the end of what was read that must be the same at the next look."""
_KIND = re.compile(rb'"kind":"([a-z]+)"')
_TRIAL = re.compile(rb'"trial":"([A-Za-z0-9_-]{1,64})"')
_DIGEST = re.compile(rb'"digest":"([0-9a-f]{16})"')


@dataclass(slots=True)
class _Trial:
    digest: str
    start: int
    """Offset of the line that planned it."""
    end: int = -1
    """Offset behind the line with which it has completed; -1: it has not."""
    tested: int = -1
    """Offset of the line with its score on the test split; -1: there is none."""


@dataclass(slots=True)
class Digests:
    """Places of a journal's trials, up to an offset."""

    path: Path
    offset: int = 0
    tail: int = 0
    """CRC-32 of the last bytes before the offset."""
    trials: dict[str, _Trial] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, *, keep: bool) -> "Digests":
        """Read a journal, from where an earlier look has ended.

        Args:
            keep: Remember the places of a long journal beside it.

        Raises:
            OSError: It cannot be read.
        """
        with path.open("rb") as file:
            found = _kept(path, file) or cls(path)
            before = found.offset
            found._read(file)
        if keep and found.offset - before >= _MIN_NEW:
            found._keep()
        return found

    def completed(self) -> Iterator[tuple[str, str]]:
        """Digest and name of every trial that has completed."""
        for name, one in self.trials.items():
            if one.end >= 0:
                yield one.digest, name

    def record(self, name: str) -> list[TrialEvent]:
        """What a journal says of a completed trial, from its plan to its end, and its test score.

        Raises:
            RecordError: A line of it is damaged.
            OSError: The journal cannot be read.
        """
        trial = self.trials[name]
        mark = name.encode()
        with self.path.open("rb") as file:
            file.seek(trial.start)
            lines = file.read(trial.end - trial.start).splitlines(keepends=True)
            if trial.tested >= 0:
                file.seek(trial.tested)
                lines.append(file.readline())
        events = []
        for line in lines:
            match = _TRIAL.search(line, 0, _NAMED)
            if match is not None and match[1] == mark:
                event = decode_line(line, f"{self.path}: trial {name}")
                assert isinstance(event, TrialEvent)
                events.append(event)
        return events

    def _read(self, file: BinaryIO) -> None:
        file.seek(self.offset)
        for line in file:
            if not line.endswith(b"\n"):  # it is being written
                break
            self._take(line)
            self.offset += len(line)
        self.tail = _tail(file, self.offset)

    def _take(self, line: bytes) -> None:
        kind, name = _KIND.search(line, 0, _HEAD), _TRIAL.search(line, 0, _NAMED)
        if kind is None or name is None or kind[1] == b"epoch":
            return
        trial = self.trials.get(name[1].decode())
        if kind[1] == b"planned":
            digest = _DIGEST.search(line)
            if digest is not None and trial is None:
                self.trials[name[1].decode()] = _Trial(digest[1].decode(), self.offset)
        elif trial is None:
            return
        elif kind[1] == b"completed":
            trial.end = self.offset + len(line)
        elif kind[1] == b"started":  # what it had ended with is void
            trial.end = trial.tested = -1
        elif kind[1] == b"tested":
            trial.tested = self.offset

    def _keep(self) -> None:
        """Remember what was read; a folder that cannot be written costs time only."""
        trials = {n: (t.digest, t.start, t.end, t.tested) for n, t in self.trials.items()}
        kept = {"version": _VERSION, "offset": self.offset, "tail": self.tail, "trials": trials}
        draft = self.path.with_name(f"{files.DIGESTS}.{os.getpid()}")
        try:
            draft.write_text(json.dumps(kept))
            draft.replace(self.path.with_name(files.DIGESTS))
        except OSError:
            draft.unlink(missing_ok=True)


def _kept(path: Path, file: BinaryIO) -> Digests | None:
    """What an earlier look has kept, if the journal goes on where that ended."""
    try:
        kept = json.loads(path.with_name(files.DIGESTS).read_bytes())
        if kept["version"] != _VERSION:
            return None
        trials = {str(n): _Trial(str(d), *map(int, at)) for n, (d, *at) in kept["trials"].items()}
        found = Digests(path, int(kept["offset"]), int(kept["tail"]), trials)
        is_same = found.tail == _tail(file, found.offset)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # none yet, or not ours: the journal is the truth
    return found if is_same else None


def _tail(file: BinaryIO, offset: int) -> int:
    file.seek(max(0, offset - _TAIL))
    return zlib.crc32(file.read(min(_TAIL, offset)))


def checked(events: list[TrialEvent], digest: str, name: str) -> list[TrialEvent]:
    """The same, if it is the whole record of a completed trial of that digest.

    Raises:
        RecordError: It is not.
    """
    kinds = [event.kind for event in events if event.kind != "tested"]
    planned = getattr(events[0], "digest", None) if events else None
    if planned != digest or kinds[-1] != "completed":
        raise RecordError(f"trial {name} is not recorded as a completed one of digest {digest}.")
    return events
