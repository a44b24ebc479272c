"""Files go from the driver's node to nodes that lack them, in pieces through Ray's object store.

A node asks for one piece after the other, with one on its way while it writes the last; only so
many nodes are served at a time, so that little lies in anybody's store.
"""

import asyncio
import errno
import os
import platform
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from search.workers.ray_errors import reason_of
from tcpa_core.errors import DataError
from tcpa_core.model.bundle import WeightsBundle

if TYPE_CHECKING:
    from tcpa_core.training.stand_ins import StandIns

PIECE_BYTES = 4 * 2**20
AT_ONCE = 8
"""Nodes that are served at a time: a tenth of a store of 100 MB for each, with two pieces."""
SILENT_S = 30.0
"""Who has not asked for so long does not fetch any more."""
TURN_S = 2.0
"""How long who has to wait is kept waiting for an answer."""
TRIES = 3
"""Times that a piece may come damaged."""

_LOST = OSError(errno.EIO, os.strerror(errno.EIO))
"""The cause where nothing comes: it is no trial's fault, and a study that meets it stops to be
resumed."""

Piece = tuple[int, bytes]
"""Its CRC-32, and the bytes."""


class Sender:
    """Asynchronous Ray actor on the driver's node.

    Args:
        files: Where the files are, by their path below a cache folder.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._asked_at: dict[str, float] = {}
        """When those who are served have last asked."""
        self._sent: Counter[tuple[str, str]] = Counter()
        """Bytes by who asked and what for, until it has all."""
        self._said: list[str] = []
        self._has_said = asyncio.Event()

    async def piece(self, who: str, name: str, start: int) -> Piece | None:
        """A piece of a file; None: others are served at the moment, ask again.

        Args:
            who: Name of the process that asks.
            name: Of the file.
            start: Position of the first byte.

        Raises:
            DataError: The file is gone.
        """
        if not await self._has_turn(who):
            return None
        path = self._files[name]
        try:
            data = await asyncio.to_thread(_read, path, start)
        except OSError as err:
            raise DataError(
                f"{path} of the driver's node cannot be read ({err.strerror}), which this node is "
                "to be sent; go on with 'tcpa resume'."
            ) from err
        self._sent[who, "weights" if name.startswith("weights/") else "data"] += len(data)
        return zlib.crc32(data), data

    async def has_all(self, who: str, host: str) -> None:
        """Who asked has what it wanted."""
        self._asked_at.pop(who, None)
        found = {what: n for (one, what), n in self._sent.items() if one == who}
        for what in found:
            del self._sent[who, what]
        if found:
            self._said.append(
                f"{host} has no {' and no '.join(sorted(found))} of this study: "
                f"{sum(found.values()) / 1e6:,.1f} MB were sent to its cache (--ship-data)"
            )
            self._has_said.set()

    async def news(self) -> list[str]:
        """Wait for sentences on what was sent."""
        await self._has_said.wait()
        self._has_said.clear()
        said, self._said = self._said, []
        return said

    async def _has_turn(self, who: str) -> bool:
        until = time.monotonic() + TURN_S
        while True:
            now = time.monotonic()
            others = {
                one: at for one, at in self._asked_at.items() if now - at < SILENT_S and one != who
            }
            if who in self._asked_at or len(others) < AT_ONCE:
                self._asked_at = others | {who: now}
                return True
            if now > until:
                return False
            await asyncio.sleep(0.1)


def _read(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), PIECE_BYTES, start)


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Gives files of the driver's node, as `tcpa_core.data.base.Fetch`; travels to a worker."""

    sender: Any
    """Handle of the `Sender`."""
    sizes: Mapping[str, int]
    """Bytes of each file."""

    @property
    def who(self) -> str:
        """Name of this process."""
        return f"{platform.node()}/{os.getpid()}/{ray.get_runtime_context().get_node_id()}"

    def __call__(self, name: str) -> Iterator[bytes]:
        """The bytes of a file; b"" now and then while others are served.

        Raises:
            DataError: They cannot be had, or come damaged again and again.
        """
        size = self.sizes[name]
        asked = self._ask(name, 0)
        start = tries = 0
        while start < size:
            piece = self._answer(asked, name)
            crc, data = piece or (0, b"")
            if piece and not data:
                raise DataError(f"{name} of the driver's node has become shorter.") from _LOST
            is_whole = zlib.crc32(data) == crc
            tries = 0 if is_whole else tries + 1
            if tries == TRIES:
                text = f"{TRIES} times, a piece of {name} came damaged from the driver's node."
                raise DataError(text) from _LOST
            start += len(data) * is_whole
            if start < size:
                asked = self._ask(name, start)
            if is_whole:
                yield data

    def close(self) -> None:
        """Say that everything is here."""
        self.sender.has_all.remote(self.who, platform.node())

    def _ask(self, name: str, start: int) -> Any:
        return self.sender.piece.remote(self.who, name, start)

    def _answer(self, asked: Any, name: str) -> Piece | None:
        try:
            piece: Piece | None = ray.get(asked)
            return piece
        except RayError as err:
            why = reason_of(err)
            raise DataError(f"{name} does not come from the driver's node: {why}.") from _LOST


@dataclass(frozen=True, slots=True)
class Offer:
    """What nodes that lack data or weights are sent, as `StandIns` has it."""

    fetch: Fetcher
    manifests: Mapping[tuple[str, int], str]
    bundles: Mapping[str, WeightsBundle]

    def stand_ins(self) -> "StandIns":
        """The same for a worker."""
        from tcpa_core.training.stand_ins import StandIns  # loads torch

        return StandIns(self.manifests, self.bundles, self.fetch)
