"""The name of copied weights. Processes that only pass it on load no torch for it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightsBundle:
    """What `backbone.weights` names, to be copied: the file and the descriptions beside it."""

    path: str
    """Of the weights file, below the cache folder that it is copied to."""
    digests: Mapping[str, str]
    """SHA-256 of its files, by path below that folder."""
