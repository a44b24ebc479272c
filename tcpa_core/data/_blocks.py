"""Images inside larger files: in streams that are read forwards only, or at known places."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from tcpa_core.errors import DataError

Stream = TypeVar("Stream")
Block = TypeVar("Block")

IN_BLOCK = 32
"""Images that are read at once."""
KEPT = 8
"""Blocks that stay: threads ask for their images in nearly ascending order, so that the last few
blocks answer all of them, and a data set of any size takes the memory of these."""


class Spans:
    """Images whose place in a file is known."""

    def __init__(self, root: Path, places: Sequence[tuple[str, int, int]]) -> None:
        """Args:
        places: Of each image its file below the root, where it begins, and its bytes.
        """
        self._root = root
        self._places = places

    def read(self, index: int) -> bytes:
        """The bytes of one image.

        Raises:
            DataError: The file cannot be read, or is shorter than it was.
        """
        name, start, size = self._places[index]
        path = self._root / name
        try:
            with path.open("rb") as file:
                file.seek(start)
                found = file.read(size)
        except OSError as err:
            raise DataError(
                f"{path} cannot be read: {err.strerror}; check its rights and the disk."
            ) from err
        if len(found) != size:
            raise DataError(f"{path} was changed while it was read; start again.")
        return found


class Blocks(Generic[Stream, Block]):
    """Blocks of some streams by number; one stream is open at a time, and begun anew to go back."""

    def __init__(self, open_stream: Callable[[Stream], Iterator[Block]]) -> None:
        """Args:
        open_stream: Gives the blocks of a stream from its start.
        """
        self._open_stream = open_stream
        self._lock = Lock()
        self._kept: OrderedDict[tuple[Stream, int], Block] = OrderedDict()
        self._stream: Stream | None = None
        self._blocks: Iterator[Block] = iter(())
        self._next = 0

    def get(self, stream: Stream, number: int) -> Block:
        """A block of a stream that has it."""
        with self._lock:
            if (stream, number) not in self._kept:
                if stream != self._stream or number < self._next:
                    self._stream, self._next = None, 0  # what fails is not gone on with
                    self._blocks = self._open_stream(stream)
                    self._stream = stream
                self._read_on(stream, number)
            return self._kept[stream, number]

    def _read_on(self, stream: Stream, number: int) -> None:
        while self._next <= number:
            try:
                self._kept[stream, self._next] = next(self._blocks)
            except BaseException:
                self._stream = None
                raise
            self._next += 1
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
