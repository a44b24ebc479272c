"""What a worker can be asked to do: plain values, so that they travel between processes."""

from dataclasses import dataclass

from tcpa_core.config import Flat
from tcpa_core.record.events import Parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Train a trial; from its last checkpoint where the study has one."""

    trial: str
    params: Flat
    until_epoch: int
    """It may train up to and including this epoch."""
    test_at_end: bool = False
    """Score the selected state on the test split once the last epoch is trained."""
    alone: bool = False
    """Its next epoch is trained before all others and by itself."""
    tells_costs: bool = False
    """Tell its `COSTS` when it starts."""
    parent: Parent | None = None
    """What it begins from where it has no checkpoint yet; None: from its seed."""
    keep_every: int | None = None
    """Its state after every so many epochs is kept for trials that begin from it; None: of none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend:
    """Let a trial train further."""

    trial: str
    until_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End a trial early, as pruned."""

    trial: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """Score the selected state of a trial that has ended on the test split."""

    trial: str
    params: Flat


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Train at most so many trials together; None: as many as memory and speed allow."""

    members: int | None


Command = Submit | Extend | Stop | Test | Limit
