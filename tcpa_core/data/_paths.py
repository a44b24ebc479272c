"""Where the images of a list lie: lists name them from other folders than the one given."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcpa_core.data._formats import SUFFIXES
from tcpa_core.data._listing import relative_key
from tcpa_core.errors import DataError

ENDINGS = ("", *(s for suffix in SUFFIXES for s in (suffix, suffix.upper())))


@dataclass(frozen=True, slots=True)
class Base:
    """How a list's paths become paths below the data set's folder."""

    dropped: str = ""
    """What stands in front of each path and is not below the folder: "/home/me/vtab-1k/cifar/"."""
    folder: str = ""
    """Folder that the rest is relative to: "images/"."""
    ending: str = ""
    """Suffix that the list leaves out."""

    def key(self, text: str, place: str) -> str:
        """A path of the list below the data set's folder.

        Raises:
            DataError: It does not begin as the others do, or leaves the folder.
        """
        path = text.replace("\\", "/") if "/" not in text else text
        if not path.startswith(self.dropped):
            raise DataError(
                f"{place}: image path must begin with {self.dropped!r} as the first one does, got "
                f"{text!r}; write all paths in one way."
            )
        return relative_key(self.folder + path[len(self.dropped) :] + self.ending, place)

    def note(self, source: str) -> Iterator[str]:
        """What is said of paths that are read from elsewhere than they say."""
        if self.dropped:
            yield f"{source}: {self.dropped!r} is dropped from the paths, which are read below " + (
                f"{self.folder}." if self.folder else "data.root."
            )


def find_base(root: Path, first: str, folders: Sequence[str], place: str) -> Base | None:
    """Where the first path of a list leads to a file; None: nowhere.

    Args:
        root: Folder of the data set, outside which nothing is looked for.
        first: The path.
        folders: Folders that may hold the images, "" for the root itself, the likeliest first.
        place: List and line, for messages.

    Raises:
        DataError: The path has ".." or control characters.
    """
    text = first.replace("\\", "/") if "/" not in first else first
    key = relative_key(text.lstrip("/"), place)
    lead = text[: len(text) - len(text.lstrip("/"))]
    endings = ENDINGS[:1] if text.lower().endswith(SUFFIXES) else ENDINGS
    parts = text[len(lead) :].split("/")
    for number in range(len(parts)):
        dropped = (
            "" if number == 0 and not lead else lead + "".join(f"{p}/" for p in parts[:number])
        )
        rest = "/".join(parts[number:])
        if not rest.strip("./") or key == "":
            continue
        for folder in folders:
            prefix = f"{folder}/" if folder else ""
            for ending in endings:
                if os.path.isfile(root / f"{prefix}{rest}{ending}"):
                    return Base(dropped, prefix, ending)
    return None
