"""What a form of export is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tcpa_core.training.trained import TrainedModel

Logits = Callable[[Tensor], Tensor]
"""From normalised images (n, 3, height, width) to logits (n, C), both on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a form of export has written into a folder."""

    config: Mapping[str, Any]
    """What programs that read the form look for in config.json, beside our own section."""
    usage: str
    """Python lines for the card that load it and predict with it; DIR stands for the folder."""
    library: str
    """Which library reads it, as the Hub calls that."""
    notes: tuple[str, ...] = ()
    """Sentences that its user has to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form of export."""

    why_not: Callable[[TrainedModel], str | None]
    """Why a trial cannot have it, and what is possible, as one sentence; None: it can. Raises
    ConfigError where a package is not installed."""
    write: Callable[[TrainedModel, Path], Written]
    """Writes the files into a folder that is empty."""
    read: Callable[[TrainedModel, Path], Logits]
    """Loads them again, as their user will; of the model only the backbone may be taken."""
    tolerance: float
    """Largest difference of logits that is taken, as a share of the largest logit; 0: none."""
