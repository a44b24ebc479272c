"""Which cache entries were found whole since this machine was started.

A mark lies in a folder that only this user can write to, so that no other user's word is taken, and
beside no entry, so that entries of a cache that cannot be written to have marks as well. Losing
marks costs one more check.
"""

import hashlib
import os
import stat
import tempfile
import time
from pathlib import Path

RACY_NS = 2_000_000_000
"""A file changed this shortly ago could change again within one tick of its file system's clock."""


MOST = 1_000
"""Marks that are kept."""


def is_settled(found: os.stat_result) -> bool:
    """Whether any later change of a file will show in its times."""
    return time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > RACY_NS


def settle(path: Path, clock: Path) -> bool:
    """Wait until any later change of a file that was just written will show in its times.

    Args:
        clock: A file on the same file system, whose time is set.

    Returns:
        False: the clock of the file system stands still.
    """
    found = path.stat()
    for _ in range(1_000):  # 2 s: the longest tick in use
        os.utime(clock)
        if clock.stat().st_mtime_ns > max(found.st_mtime_ns, found.st_ctime_ns):
            return True
        time.sleep(0.002)
    return False


def is_marked(path: Path, found: os.stat_result) -> bool:
    """Whether an entry was found whole, and has not been touched nor the machine started since."""
    try:
        return (_folder() / _name(path)).read_text() == _about(found)
    except (OSError, ValueError):
        return False


def mark(path: Path, found: os.stat_result) -> None:
    """Note that an entry was found whole, as far as that can be noted."""
    try:
        folder = _folder()
        (folder / _name(path)).write_text(_about(found))
        marks = sorted(folder.iterdir(), key=lambda one: one.lstat().st_mtime_ns)
        for old in marks[:-MOST]:  # of entries that are gone
            old.unlink(missing_ok=True)
    except OSError:
        return


def _name(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]


def _about(found: os.stat_result) -> str:
    """What tells a file as it is from the same file changed, and from others.

    Raises:
        OSError: The machine does not say when it was started.
    """
    times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
    return f"{_boot()} {found.st_dev} {found.st_ino} {found.st_size} {times}\n"


def _boot() -> str:
    """When this machine was started: what a disk gives after that was not seen before."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _folder() -> Path:
    """The folder of this user's marks; made when absent.

    Raises:
        OSError: It cannot be made, or is not this user's alone.
    """
    folder = Path(tempfile.gettempdir()) / f"tcpa-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_ours or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder
