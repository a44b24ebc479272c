"""What a study is asked for its next trials: the interface of everything that proposes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from tcpa_core.config import Flat, TrialConfig
from tcpa_core.record.events import Planned

Outcome = Mapping[str, Any]
"""How a trial ended: `status`, its metrics by name, `num_epochs` and `duration_s`."""

Past = Sequence[tuple[Planned, Outcome | None]]
"""Trials of earlier drivers in the order planned; None: has not ended, will be told later."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration to run, if it was not run before."""

    config: TrialConfig
    origin: str
    cells: Sequence[dict[str, Any]]
    draw: Flat
    asked: object = None
    """What the source knows the point of this trial by; read by the source alone."""
    before: Sequence[str | Flat] | None = None
    """As of `Planned`."""


class Later(Enum):
    """Says that a source has to know how running trials end before it goes on."""

    LATER = "later"


LATER = Later.LATER


class Source(Protocol):
    """What proposes the trials of a study: `Sampled`, `Design`, `Race` or `EqualBudgets`.

    Every proposal is followed by `take` if it is run, or by `repeat` if its digest was run before;
    each trial taken, also by an earlier driver (`replay`), is told once it has ended. One thread at
    a time calls it.
    """

    def propose(self, attempt: int) -> Proposal | Later | None: ...

    def take(self, planned: Planned, proposal: Proposal) -> None: ...

    def tell(self, planned: Planned, outcome: Outcome) -> None: ...

    def repeat(self, digest: str, proposal: Proposal, outcome: Outcome | None) -> None: ...

    def replay(self, past: Past) -> None: ...

    def close(self) -> None: ...
