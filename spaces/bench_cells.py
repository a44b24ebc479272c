"""The cells of a bench: which study searched which method on which data, and which confirmed it.

What runs a bench says here what it planned; what makes the table reads from here, and says what is
not there yet. Neither knows the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the table: a method on a data set over a backbone.

    A planned cell is listed from the start: a folder that is not there yet is a gap that the table
    names.
    """

    method: str
    """Its row, as the suite calls it."""
    dataset: str
    """Its column, as the suite calls it."""
    backbone: str
    """Its table, as the suite calls it; tables of a bench have one each."""
    study: Path
    """Folder of the search, or of the design that stands for one."""
    confirmation: Path | None = None
    """Folder of the study that trained the best points again on fresh seeds; None: none is planned,
    so the cell has the seeds of the search."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a bench is to have."""

    name: str
    cells: tuple[Cell, ...]
    """All that are planned, method by method in the order of the suite."""
    baseline: str = ""
    """Method that others are compared with; "": the first one."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Data sets by group, as natural, specialized and structured of VTAB; {}: it has none."""
    num_seeds: int = 0
    """Fresh seeds that a cell is to have; 0: whatever its confirmation has."""
