"""Archives whose checksum is known, unpacked beside themselves."""

import os
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from search.downloads.fetch import Remote
from tcpa_core.data.base import Progress
from tcpa_core.errors import DataError


def is_unpacked(remote: Remote, root: Path) -> bool:
    """Whether an archive was unpacked to its end, and what it made is still there."""
    marker = _marker(remote, root)
    if not marker.is_file():
        return False
    digest, *names = marker.read_text().splitlines()
    return digest == remote.digest and all((marker.parent / name).exists() for name in names)


def unpack(remote: Remote, root: Path, progress: Progress) -> None:
    """Unpack an archive; again from its start where that was interrupted.

    Raises:
        DataError: It is damaged, or there is no room.
    """
    path = root / remote.path
    try:
        if remote.name.endswith(".zip"):
            members = _unzip(path, progress)
        else:
            members = _untar(path, progress)
        made = sorted({part for name in members for part in PurePosixPath(name).parts[:1]})
        _marker(remote, root).write_text("\n".join([remote.digest, *made]))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as err:
        raise DataError(f"{path} cannot be unpacked ({err}).") from err
    except OSError as err:
        raise DataError(
            f"{path} cannot be unpacked into {path.parent} ({err.strerror or err}); make room and "
            "call the same command again."
        ) from err


def _marker(remote: Remote, root: Path) -> Path:
    path = root / remote.path
    return path.with_name(f".{path.name}.unpacked")


def _untar(path: Path, progress: Progress) -> list[str]:
    names = []
    size = path.stat().st_size
    with path.open("rb") as file, tarfile.open(fileobj=file) as archive:
        # Nothing outside of the folder and no device; Python 3.11 has it from 3.11.4 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        for member in archive:
            archive.extract(member, path.parent, set_attrs=False)
            # The number of members is known only at the end, the place in the file always.
            progress(f"unpack {path.name}, MB", file.tell() // 1_000_000, size // 1_000_000)
            names.append(member.name)
    return names


def _unzip(path: Path, progress: Progress) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for number, member in enumerate(members, start=1):
            archive.extract(member, path.parent)
            progress(f"unpack {path.name}", number, len(members))
    return [member.filename for member in members]


def unpacked_bytes(path: Path) -> int:
    """What an archive needs on the disk; of a tar about, since it does not say."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    return os.path.getsize(path)
