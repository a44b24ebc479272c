"""What a form of export is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from tcpa_core.errors import ConfigError
from tcpa_core.training.trained import TrainedModel

Logits = Callable[[Tensor], Tensor]
"""From normalised images (n, 3, height, width) to logits (n, C), or (n, C, h, w) of a segmentation,
both on the CPU."""

WINDOWS = (
    "The network reads windows of height x width pixels and gives logits of a smaller map; a whole "
    "picture is scored as the mean of windows that slide over it, each enlarged to its pixels "
    "(bilinear), as load_trained(...).predict does."
)
"""What the user of a network that segments has to know."""


def need(format: str, packages: Sequence[str]) -> None:
    """Refuse a form whose packages are not installed.

    Raises:
        ConfigError: Naming them, and how they are installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--format {format}: not installed here: {', '.join(missing)}; install with pip "
            "install 'tcpa-search[export]'."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a form of export has written into a folder."""

    config: Mapping[str, Any]
    """What programs that read the form look for in config.json, beside our own section."""
    usage: str
    """Python lines for the card that load it and predict with it; DIR stands for the folder."""
    library: str
    """Which library reads it, as the Hub calls that."""
    has_backbone: bool = True
    """The weights of the backbone are in it."""
    notes: tuple[str, ...] = ()
    """Sentences that its user has to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form of export."""

    why_not: Callable[[TrainedModel], str | None]
    """Why a trial cannot have it, as a clause; None: it can."""
    write: Callable[[TrainedModel, Path], Written]
    """Writes the files into a folder that is empty."""
    read: Callable[[TrainedModel, Path], Logits]
    """Loads them again, as their user will; of the model only the backbone may be taken."""
    tolerance: float
    """Largest difference of logits that is taken, as a share of the largest logit; 0: none."""
    packages: tuple[str, ...] = ()
    """Of the extra "export", that it needs."""
