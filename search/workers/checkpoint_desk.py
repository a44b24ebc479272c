"""The driver's side of checkpoints that travel through Ray: files of its folder, in parts."""

import os
import re
from contextlib import suppress
from pathlib import Path

from search.workers.trial_files import PART_BYTES
from tcpa_core.errors import StorageError, StudyError
from tcpa_core.record.files import CHECKPOINTS

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


class CheckpointDesk:
    """Gives checkpoints out and takes them in.

    Args:
        study_dir: Folder of the study.
    """

    def __init__(self, study_dir: Path) -> None:
        self._checkpoints = study_dir / CHECKPOINTS

    def files(self, trial: str) -> list[tuple[str, int]]:
        """Names and sizes of a trial's files."""
        folder = self._checkpoints / _checked(trial)
        return [(path.name, path.stat().st_size) for path in sorted(folder.glob("[!.]*"))]

    def read(self, trial: str, name: str, start: int) -> bytes:
        """The part of a file that begins at a byte."""
        with (self._checkpoints / _checked(trial) / _checked(name)).open("rb") as file:
            file.seek(start)
            return file.read(PART_BYTES)

    def write(
        self, trial: str, name: str, key: str, start: int, part: bytes, is_last: bool
    ) -> None:
        """Take a part of a file; with the last one it replaces the file that was there.

        A part that comes again, because the answer was lost, changes nothing.

        Args:
            key: The same for all parts: a hung worker and the one that took its place may send the
                same file.
            start: Byte at which the part begins.

        Raises:
            StorageError: The disk is full, read-only or gone.
        """
        path = self._checkpoints / _checked(trial) / _checked(name)
        growing = path.with_name(f".{path.name}.{_checked(key)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if start and not growing.exists():
                return  # it was the last one, and came before
            with growing.open("r+b" if start else "wb") as file:
                file.seek(start)
                file.write(part)
                if is_last:
                    file.flush()
                    os.fsync(file.fileno())
            if is_last:
                growing.replace(path)
                for other in path.parent.glob(f".{path.name}.*"):  # its sender has died
                    other.unlink(missing_ok=True)
        except OSError as err:
            with suppress(OSError):
                growing.unlink(missing_ok=True)
            raise StorageError.of(path, err) from err


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StudyError(f"{name!r} is no name of a trial or of one of its files.")
    return name
