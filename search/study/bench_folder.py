"""The folder of a bench, ROOT/NAME: its cells are studies in it, bench.yaml says which is which."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from search.study.address import local_folder
from spaces.bench_cells import Bench, Cell
from spaces.confirmations import confirmed_name
from spaces.reader import read_stored
from spaces.suite import Suite
from tcpa_core.errors import RecordError, StudyError

RECORD = "bench.yaml"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A cell by its names."""

    method: str
    dataset: str
    backbone: str
    study: str

    def __str__(self) -> str:
        return f"{self.method} on {self.dataset}"


@dataclass(frozen=True, slots=True)
class BenchRecord:
    """What the folder of a bench says of it."""

    folder: Path
    source: str
    """File or shipped suite that it was made from last."""
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    groups: dict[str, list[str]]
    baseline: str
    top: int
    seeds: int
    entries: tuple[Entry, ...]
    """In the order in which they run."""

    @property
    def name(self) -> str:
        """Of the bench: that of its folder."""
        return self.folder.name

    @classmethod
    def of(cls, suite: Suite, folder: Path) -> "BenchRecord":
        """What is to be recorded of a suite."""
        return cls(
            folder=folder,
            source=suite.source,
            methods=suite.methods,
            datasets=suite.datasets,
            groups={name: list(sets) for name, sets in suite.groups.items()},
            baseline=suite.baseline,
            top=suite.confirm.top,
            seeds=suite.confirm.seeds,
            entries=tuple(
                Entry(one.method, one.dataset, one.backbone, one.name) for one in suite.cells
            ),
        )

    @classmethod
    def read(cls, folder: Path) -> "BenchRecord | None":
        """The record of a folder; None: it has none.

        Raises:
            RecordError: It is damaged.
        """
        path = folder / RECORD
        if not os.path.isfile(path):
            return None
        found = read_stored(path)
        if not isinstance(found, dict) or found.get("schema") != SCHEMA_VERSION:
            raise RecordError(f"{path} is not a valid record of a bench.")
        try:
            return cls(
                folder=folder,
                source=str(found["source"]),
                methods=tuple(map(str, found["methods"])),
                datasets=tuple(map(str, found["datasets"])),
                groups={str(name): list(map(str, sets)) for name, sets in found["groups"].items()},
                baseline=str(found["baseline"]),
                top=int(found["top"]),
                seeds=int(found["seeds"]),
                entries=tuple(Entry(**one) for one in found["entries"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise RecordError(f"{path} is not a valid record of a bench: {err!r}.") from err

    def write(self) -> None:
        """Replace the record; a reader meets the old or the new one.

        Raises:
            StudyError: The folder cannot be written.
        """
        said: dict[str, Any] = {"schema": SCHEMA_VERSION, **asdict(self)}
        del said["folder"]
        text = yaml.safe_dump(json.loads(json.dumps(said)), sort_keys=False, allow_unicode=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.folder / f".{RECORD}"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.folder / RECORD)
        except OSError as err:
            raise StudyError(
                f"{self.folder} cannot be written ({err.strerror or err}); make room or give "
                "another folder with --root."
            ) from err

    def bench(self) -> Bench:
        """What the table is made of, method by method in the order of the suite."""
        order = {name: number for number, name in enumerate(self.methods)}
        columns = {name: number for number, name in enumerate(self.datasets)}
        ordered = sorted(self.entries, key=lambda one: (order[one.method], columns[one.dataset]))
        return Bench(
            name=self.name,
            cells=tuple(self._cell(one) for one in ordered),
            baseline=self.baseline,
            groups={name: tuple(sets) for name, sets in self.groups.items()},
            num_seeds=self.seeds,
        )

    def _cell(self, one: Entry) -> Cell:
        confirmation = self.folder / confirmed_name(one.study)
        return Cell(one.method, one.dataset, one.backbone, self.folder / one.study, confirmation)


def found_bench(root: Path, name: str) -> BenchRecord | None:
    """The bench of a name below a root; None: there is none.

    Raises:
        RecordError: Its record is damaged.
    """
    if not name or "/" in name or name.startswith("."):  # a name is no path
        return None
    return BenchRecord.read(local_folder(root) / name)


def benches(root: Path) -> Iterator[str]:
    """Names of the benches below a root."""
    for path in sorted(root.glob(f"*/{RECORD}")):
        if not path.parent.name.startswith("."):
            yield path.parent.name
