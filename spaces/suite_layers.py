"""The space of one cell of a suite, laid in layers of which a later one replaces an earlier one.

They are the space that a method (or the suite) starts from, the suite's `base` and `axes`, the
backbone, the data set, the method, the method on that data set, and `--set`.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spaces.load import space_in_layers
from spaces.reader import Document, Keys
from spaces.setting_values import Entry, flatten, lookup, method_of, read_setting
from spaces.shipped import PRESETS
from spaces.space import Space
from tcpa_core.errors import ConfigError

STUDY_WIDE = ("objective", "sampler", "scheduler", "budget", "cluster")
"""Sections that every cell has as they stand."""

Listed = tuple[Document, Keys, Any]
"""An entry of a list, and where it stands."""


@dataclass
class _Layers:
    """Settings and axes of one cell; what is laid later replaces what was there."""

    fixed: dict[str, Entry] = field(default_factory=dict)
    start: dict[str, Entry] = field(default_factory=dict)
    """Settings of the space that it starts from."""
    axes: dict[str, tuple[Document, Entry]] = field(default_factory=dict)

    def begin(self, document: Document) -> None:
        """Start from a space."""
        self.start = flatten(document, "base")
        self.axes = {p: (document, entry) for p, entry in flatten(document, "axes").items()}

    def lay(
        self,
        fixed: Mapping[str, Entry],
        document: Document | None = None,
        axes: Mapping[str, Entry] | None = None,
    ) -> None:
        """Lay settings, and axes of a document.

        Raises:
            ConfigError: One and the same is fixed and varied.
        """
        for path, entry in (axes or {}).items():
            if path in fixed:
                raise ConfigError(
                    f"{path} is an axis ({entry.place}) and fixed in base ({fixed[path].place}); "
                    "remove one of them."
                )
            assert document is not None
            self.axes[path] = (document, entry)
            self.fixed.pop(path, None)
            self.start.pop(path, None)
        for path, entry in fixed.items():
            self.fixed[path] = entry
            self.start.pop(path, None)
            self.axes.pop(path, None)

    def keep_methods(self, chain: Collection[str]) -> None:
        """Leave out what the suite says of methods that the cell lacks."""
        laid: tuple[dict[str, Any], ...] = (self.fixed, self.axes, self.start)
        for one in laid:
            for path in [p for p in one if method_of(p) not in (None, *chain)]:
                del one[path]


class CellReader:
    """Makes the spaces of the cells of one suite.

    Args:
        document: The suite.
        fixed: Settings of `--set`, which count for every cell.
        data: The folder that relative names of `data.*` are relative to; None: that of the file.
    """

    def __init__(self, document: Document, fixed: Mapping[str, Entry], data: Path | None) -> None:
        self.document = document
        self.fixed = fixed
        self._data = None if data is None else data.expanduser().absolute()
        self._starts: dict[str, Document] = {}
        """Spaces from which methods start, by their sources."""

    def space(self, name: str, method: str, dataset: str, backbone: str) -> Space:
        """The space of a cell.

        Args:
            name: Of its study.
            backbone: Its name in the suite; "": the suite names none.

        Raises:
            ConfigError: A trial of it could not be trained.
        """
        document, row, layers = self.document, ("methods", method), _Layers()
        begun = self.start_of(method)
        if begun:
            layers.begin(begun)
        layers.lay(self._settings("base"), document, flatten(document, "axes"))
        if backbone:
            layers.lay(self._settings("backbones", backbone))
        layers.lay(self._settings("datasets", dataset))
        layers.lay(self._settings(*row, "base"), document, flatten(document, *row, "axes"))
        layers.lay(self._settings(*row, "datasets", dataset))
        layers.lay(self.fixed)
        chain = self.chain(method)
        layers.keep_methods(read_setting("methods", chain))
        layers.lay({"methods": chain})
        whole = self._cell_document(name, row, begun, layers.axes)
        try:
            return space_in_layers(whole, layers.fixed, layers.start)
        except ConfigError as err:
            raise ConfigError(f"{method} on {dataset}: {err}") from err

    def chain(self, method: str) -> Entry:
        """The chain of methods of a row.

        Raises:
            ConfigError: It has none.
        """
        document, keys = self.document, ("methods", method, "chain")
        raw = lookup(document.data, keys)
        if raw is not None:
            return Entry(raw, document.place(*keys), document.folder, keys)
        begun = self.start_of(method)
        found = flatten(begun, "base").get("methods") if begun else None
        if found is None:
            raise ConfigError(
                f"method {method!r} needs 'chain', a list of method names such as [vpt], or a "
                f"'space' whose base has one ({document.place('methods', method)})."
            )
        return found

    def start_of(self, method: str) -> Document | None:
        """The space from which a row starts; None: from none.

        Raises:
            ConfigError: It cannot be read, or is no search.
        """
        for keys in (("methods", method, "space"), ("space",)):
            source, place = lookup(self.document.data, keys), self.document.place(*keys)
            if source is None:
                continue
            if not isinstance(source, str):
                raise ConfigError(
                    f"space must be a file or the name of a preset, got {source!r} ({place})."
                )
            if source not in self._starts:
                self._starts[source] = self._start(source, place)
            return self._starts[source]
        return None

    def _start(self, source: str, place: str) -> Document:
        # relative to the suite, as other names of files in it
        near = self.document.folder / os.path.expanduser(source)
        try:
            found = PRESETS.read(str(near) if os.path.isfile(near) else source)
        except ConfigError as err:
            raise ConfigError(f"{err} ({place})") from err
        if not isinstance(found.data, dict) or "ablation" in found.data:
            raise ConfigError(f"space {source!r} is no search ({place}); a row needs one.")
        return found

    def _settings(self, *keys: str) -> dict[str, Entry]:
        """Settings at a place of the file; names of data are relative to the folder of data."""
        entries = flatten(self.document, *keys)
        if "methods" in entries:
            raise ConfigError(
                f"methods cannot be set there ({entries['methods'].place}); a row of a suite says "
                "it as 'chain'."
            )
        if self._data is None:
            return entries
        return {
            path: entry._replace(folder=self._data) if path.startswith("data.") else entry
            for path, entry in entries.items()
        }

    def _cell_document(
        self,
        name: str,
        row: Keys,
        begun: Document | None,
        axes: Mapping[str, tuple[Document, Entry]],
    ) -> Document:
        """The file that a cell would be, with the places where its parts stand."""
        mine, data, places = self.document, {"name": name}, dict[Keys, str]()
        out: dict[str, Any] = {**data, "base": {}, "axes": {}}
        for path, (document, entry) in axes.items():
            out["axes"][path] = entry.value
            places |= _moved(document, entry.keys, ("axes", path))
        points = (*row, "first_points")
        has_points = lookup(mine.data, points) is not None
        lists = {
            "constraints": [
                *_listed(begun, "constraints"),
                *_listed(mine, "constraints"),
                *_listed(mine, *row, "constraints"),
            ],
            "first_points": _listed(mine, *points) if has_points else _listed(begun, points[-1]),
        }
        for key, entries in lists.items():
            out[key] = [value for _, _, value in entries]
            for index, (document, keys, _) in enumerate(entries):
                places |= _moved(document, keys, (key, index))
        for key in STUDY_WIDE:
            if key in mine.data:
                out[key] = mine.data[key]
                places |= _moved(mine, (key,), (key,))
        # stopped early, methods would be compared by how fast they learn
        out.setdefault("scheduler", {"name": "none"})
        return Document(out, places, mine.label, mine.folder)


def _moved(document: Document, keys: Keys, to: Keys) -> dict[Keys, str]:
    """Where the parts of a value stand, by their keys in another document."""
    return {
        (*to, *found[len(keys) :]): place
        for found, place in document.places.items()
        if found[: len(keys)] == keys
    }


def _listed(document: Document | None, *keys: str | int) -> list[Listed]:
    """The entries of a list; of what is not there none.

    Raises:
        ConfigError: It is no list.
    """
    raw = None if document is None else lookup(document.data, keys)
    if document is None or raw is None:
        return []
    if not isinstance(raw, list):
        raise ConfigError(f"{keys[-1]} must be a list, got {raw!r} ({document.place(*keys)}).")
    return [(document, (*keys, index), value) for index, value in enumerate(raw)]
