"""Room on a disk: asked before it is taken, and not taken to the last byte."""

import errno
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tcpa_core.errors import DataError

KEPT_BACK = 2**30
"""Most bytes of a disk that are left to others."""
_FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
"""The cause of a refusal, as if the disk had been filled: it is no trial's fault, and a study that
meets it stops to be resumed."""
_SHARE = 50
"""Of a small disk, one part in so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheNeed:
    """What images that the cache lacks will take there."""

    images: int
    """With masks; 0: the cache has all."""
    num_bytes: int
    """By the sizes in the headers of the files."""
    folder: Path
    free_bytes: int
    """Free on the disk of `folder`."""
    variable: str = "TCPA_CACHE"
    """Of the environment: chooses the folder."""
    masks: int = 0
    """Of `images`."""

    @classmethod
    def of(
        cls,
        images: int,
        num_bytes: int,
        folder: Path,
        variable: str = "TCPA_CACHE",
        masks: int = 0,
    ) -> "CacheNeed":
        """With what is free now."""
        return cls(
            images=images,
            masks=masks,
            num_bytes=num_bytes,
            folder=folder,
            free_bytes=free_bytes(folder),
            variable=variable,
        )

    def __str__(self) -> str:
        masks = f"; {self.masks:,} of them are masks" if self.masks else ""
        return (
            f"{self.images:,} images will be decoded into {self.folder} ({_mb(self.num_bytes)}), "
            f"where {_mb(self.free_bytes)} are free{masks}"
        )

    def check(self) -> None:
        """Refuse what the disk has no room for.

        Raises:
            DataError: Less than a reserve would be left.
        """
        kept_back = reserve(self.folder, self.num_bytes)
        if self.num_bytes + kept_back > self.free_bytes:
            raise DataError(
                f"the cache folder is too small ({_FULL.strerror}): {self.images:,} decoded images "
                f"need {_mb(self.num_bytes)} in {self.folder}, and its disk has "
                f"{_mb(self.free_bytes)} free, of which {_mb(kept_back)} are left to others. "
                f"{advice(self.variable)}"
            ) from _FULL


def free_bytes(folder: Path) -> int:
    """Bytes that the disk of a folder has free for this user; the folder may not exist yet."""
    return _free(os.statvfs(_existing(folder)))


def reserve(folder: Path, num_bytes: int) -> int:
    """What is left of a disk after so many bytes are written: as many again, up to a limit."""
    return _reserve(os.statvfs(_existing(folder)), num_bytes)


def _free(disk: os.statvfs_result) -> int:
    # Some file systems of networks and in user space do not say how large they are.
    return disk.f_bavail * disk.f_frsize if disk.f_blocks else sys.maxsize


def _reserve(disk: os.statvfs_result, num_bytes: int) -> int:
    return min(num_bytes, KEPT_BACK, disk.f_blocks * disk.f_frsize // _SHARE)


class Filling:
    """Watches a disk while a file grows.

    Args:
        file: The file's descriptor.
        folder: Where it lies, for the message.
        variable: Of the environment: chooses the folder.
    """

    STEP = 2**20
    """Bytes, at most, between two times that the disk is asked."""

    def __init__(self, file: int, folder: Path, variable: str) -> None:
        self._file = file
        self._folder = folder
        self._variable = variable
        self._written = 0
        self._granted = 0
        """Bytes for which the disk needs not be asked."""

    def grow(self, num_bytes: int) -> None:
        """Say that the file is about to become longer.

        Raises:
            DataError: That would leave the disk nearly full.
        """
        if num_bytes > self._granted:
            about = os.fstatvfs(self._file)
            free = _free(about)
            left = free - num_bytes - _reserve(about, self._written + num_bytes)
            if left < 0:
                raise DataError(
                    f"the cache folder is full ({_FULL.strerror}): the disk of {self._folder} has "
                    f"only {_mb(free)} left, with {_mb(self._written)} of decoded images written; "
                    f"the rest is left to others. {advice(self._variable)}"
                ) from _FULL
            self._granted = num_bytes + min(self.STEP, left)
        self._granted -= num_bytes
        self._written += num_bytes


def advice(variable: str) -> str:
    """What to do where there is no room."""
    return (
        f"Make room, set {variable} to a folder on another disk, or choose smaller images "
        "(backbone.img_size, data.resize_to)."
    )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    # Unlike path.is_dir() without errors on names that cannot be.
    places = (folder, *folder.absolute().parents)
    return next((path for path in places if os.path.isdir(path)), folder)


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
