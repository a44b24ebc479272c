"""A sealed study: a zip file or a folder with a hash of every file, and one seal over them all.

`bundle.json` lists every file with its size and SHA-256; `seal.txt` has the SHA-256 of that list.
Whoever publishes the seal beside the bundle lets others see that nothing of it was changed since.
The comment of a zip file is the SHA-256 of all bytes before it, those of its directory included.
Nothing of a bundle is unpickled; its names are checked before any of them becomes a path.
"""

import hashlib
import json
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from tcpa_core.errors import RecordError, StudyError

SCHEMA = 1
MANIFEST = "bundle.json"
SEAL = "seal.txt"
_CHUNK = 1 << 20
_MOST = 1 << 24
"""Bytes of a list of files at most."""
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
_NAME = re.compile(rf"{_PART}(/{_PART}){{0,3}}")
_HEX = re.compile(r"[0-9a-f]{64}")
_COMMENT = 64
"""Bytes of a zip file's comment, which are its last ones."""
_LAST_MARK, _LAST_RECORD = b"PK\x05\x06", 22
"""How the last record of a zip file begins, and its bytes without a comment."""
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, struct.error, zlib.error,
               lzma.LZMAError, zipfile.BadZipFile, zipfile.LargeZipFile, StudyError)  # fmt: skip
"""What `zipfile` raises of damaged bytes, or the file system of a file that cannot be read."""


class Source(Protocol):
    """The files of a bundle, however they are kept."""

    def names(self) -> list[str]:
        """Of all of them."""

    def open(self, name: str) -> IO[bytes]:
        """Read one of `names`."""

    def damage(self) -> list[str]:
        """What is wrong with the bytes around the files, in sentences."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as a manifest has it."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says that it holds."""

    document: Mapping[str, Any]
    files: Mapping[str, Listed]
    seal: str
    """SHA-256 of the manifest as it is."""


class _Zip:
    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self._path = path
        self._file = file

    def names(self) -> list[str]:
        return self._file.namelist()

    def open(self, name: str) -> IO[bytes]:
        return self._file.open(name)

    def damage(self) -> list[str]:
        # One without a comment was packed by an earlier version, or again: its files are checked.
        if self._file.comment == _digest_before_comment(self._path) or _has_no_comment(self._path):
            return []
        return [
            f"{self._path.name}: bytes of the zip file were changed since it was sealed; to check "
            "its files alone, unpack it and verify the folder"
        ]


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        found = sorted(path for path in self._path.rglob("*") if not path.is_dir())
        return [path.relative_to(self._path).as_posix() for path in found]

    def open(self, name: str) -> IO[bytes]:
        path = self._path / name
        if path.is_symlink():
            raise StudyError(f"{path} is a symbolic link; a bundle holds plain files.")
        return path.open("rb")

    def damage(self) -> list[str]:
        return []


@contextmanager
def opened_bundle(path: Path) -> Iterator[Source]:
    """The files of a bundle, a zip file or a folder.

    Raises:
        StudyError: It is neither.
    """
    if os.path.isdir(path):
        yield _Folder(path)
        return
    try:
        file = zipfile.ZipFile(path)
    except _UNREADABLE as err:  # ValueError: also of what is no name of a file
        raise StudyError(f"{path} is no bundle of 'tcpa bundle': {err}.") from err
    with file:
        yield _Zip(path, file)


def write_bundle(target: Path, files: Mapping[str, Path], about: Mapping[str, Any]) -> str:
    """Write a bundle: a zip file, or a folder where the name has no ".zip".

    Args:
        files: Where each lies, by its name in the bundle.
        about: What the manifest says besides.

    Returns:
        The seal.

    Raises:
        StudyError: There is something of that name, or it cannot be written.
    """
    if target.exists():
        raise StudyError(f"{target} exists already; remove it or give another name with --out.")
    listed = {name: _hashed(path.open("rb")) for name, path in sorted(files.items())}
    entries = {n: {"bytes": one.size, "sha256": one.sha256} for n, one in listed.items()}
    manifest = json.dumps({"schema": SCHEMA, **about, "files": entries}, indent=1).encode()
    seal = hashlib.sha256(manifest).hexdigest()
    texts = {MANIFEST: manifest, SEAL: f"{seal}\n".encode()}
    draft = target.with_name(f".{target.name}.part")
    try:
        if target.suffix == ".zip":
            target.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as file:
                file.comment = bytes(_COMMENT)
                for name, text in texts.items():
                    file.writestr(name, text)
                for name, path in files.items():
                    file.write(path, name)
            digest = _digest_before_comment(draft)
            with draft.open("r+b") as raw:
                raw.seek(-_COMMENT, os.SEEK_END)
                raw.write(digest)
        else:
            for name, path in files.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                (draft / name).write_bytes(path.read_bytes())
            for name, text in texts.items():
                (draft / name).write_bytes(text)
        draft.rename(target)
    except OSError as err:
        raise StudyError(f"{target} cannot be written ({err.strerror or err}).") from err
    return seal


def read_manifest(source: Source) -> Manifest:
    """The manifest of a bundle, checked.

    Raises:
        RecordError: It is none, or lists what can be no file of a bundle.
    """
    if MANIFEST not in source.names():
        raise RecordError(f"it has no {MANIFEST}; 'tcpa bundle' made no such thing.")
    try:
        with source.open(MANIFEST) as file:
            text = file.read(_MOST)
        document = json.loads(text)
        files = {
            str(name): Listed(int(one["bytes"]), str(one["sha256"]))
            for name, one in document["files"].items()
        }
    except (*_UNREADABLE, LookupError, TypeError, AttributeError) as err:
        raise RecordError(f"{MANIFEST} cannot be read ({err}).") from err
    if document.get("schema") != SCHEMA:
        raise RecordError(f"{MANIFEST} is of schema {document.get('schema')!r}, not {SCHEMA}.")
    for name, one in files.items():
        if not _NAME.fullmatch(name) or name in (MANIFEST, SEAL) or not _HEX.fullmatch(one.sha256):
            raise RecordError(f"{MANIFEST} lists {name!r}, which is no file of a bundle.")
    return Manifest(document, files, hashlib.sha256(text).hexdigest())


def broken(source: Source, manifest: Manifest, seal: str | None = None) -> list[str]:
    """What of a bundle is not as it was sealed, in sentences; []: all is.

    Args:
        seal: As it was published; None: the one in the bundle counts.
    """
    found = []
    if seal is not None and seal.strip().lower() != manifest.seal:
        found.append(f"{MANIFEST}: its seal is {manifest.seal}, not the published {seal.strip()}")
    found += source.damage()
    names = source.names()
    found += [
        f"{name}: twice in the bundle" for name in sorted(set(names)) if names.count(name) > 1
    ]
    sealed = _text_of(source, SEAL) if SEAL in names else ""
    if sealed.strip() != manifest.seal:
        found.append(f"{MANIFEST}: changed since it was sealed, or {SEAL} was")
    for name in sorted(set(names) - manifest.files.keys() - {MANIFEST, SEAL}):
        found.append(f"{name!r}: not in the list of files")
    for name, listed in manifest.files.items():
        if name not in names:
            found.append(f"{name}: missing")
            continue
        try:
            is_same = _hashed(source.open(name), listed.size) == listed
        except _UNREADABLE as err:
            found.append(f"{name}: cannot be read ({err})")
            continue
        if not is_same:
            found.append(f"{name}: other content than was sealed")
    return found


def extract(source: Source, manifest: Manifest, folder: Path, prefixes: tuple[str, ...]) -> None:
    """Copy files of a bundle, whose names are checked, into a folder of this machine.

    Args:
        prefixes: How the names of the wanted ones begin.
    """
    for name, listed in manifest.files.items():
        if name.startswith(prefixes):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open(name) as file:
                target.write_bytes(file.read(listed.size))


def _text_of(source: Source, name: str) -> str:
    try:
        with source.open(name) as file:
            return file.read(200).decode(errors="replace")
    except _UNREADABLE:
        return ""


def _digest_before_comment(path: Path) -> bytes:
    """SHA-256 of a zip file up to its comment, in hex digits."""
    found = hashlib.sha256()
    left = max(0, path.stat().st_size - _COMMENT)
    with path.open("rb") as file:
        while left and (chunk := file.read(min(_CHUNK, left))):
            found.update(chunk)
            left -= len(chunk)
    return found.hexdigest().encode()


def _has_no_comment(path: Path) -> bool:
    """Whether a zip file ends with its last record: no flipped length field looks like that."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST_RECORD))
        return file.read(len(_LAST_MARK)) == _LAST_MARK


def _hashed(file: IO[bytes], most: int | None = None) -> Listed:
    """Size and hash of a file; no more of it is read than one byte beyond `most`."""
    size, found = 0, hashlib.sha256()
    with file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            found.update(chunk)
            if most is not None and size > most:  # an archive may unpack to anything
                break
    return Listed(size, found.hexdigest())
