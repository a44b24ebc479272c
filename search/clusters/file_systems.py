"""Whether other machines see a folder, as far as its file system tells."""

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
_OF_ONE_MACHINE = frozenset(
    "bcachefs btrfs exfat ext2 ext3 ext4 f2fs hfsplus overlay ramfs reiserfs squashfs tmpfs vfat "
    "xfs zfs".split()
)


def why_not_shared(folder: Path, mounts: Path = MOUNTS) -> str:
    """A file system of one machine that a folder lies on, as "ext4 of this machine"; "": it may
    be shared, or the system does not tell.

    Args:
        folder: Need not exist yet.
        mounts: As Linux lists them, see proc_pid_mountinfo(5).
    """
    if not mounts.exists():
        return ""
    place = os.path.realpath(folder)
    best, kind = "", ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        of_mount, _, of_device = line.partition(" - ")
        # Blanks in names are written as \040.
        point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), of_mount.split()[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of equal ones the last is on top
            best, kind = point, of_device.split()[0]
    return f"{kind} of this machine" if kind in _OF_ONE_MACHINE else ""
