"""What a machine uses in place of files that a study names and this machine does not have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tcpa_core.data.base import source_key
from tcpa_core.settings import BackboneConfig, DataConfig


@dataclass(frozen=True, slots=True)
class StandIns:
    """Copies in the cache folder of a machine. Empty where everything is in its place."""

    manifests: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Decoded data sets (`tcpa_core.data.base.open_manifest`), by `source_key` and image size."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Weights files, by the value of `backbone.weights`."""

    def manifest(self, cfg: DataConfig, img_size: int) -> str | None:
        """The decoded images that stand for a data set; None: they are read where it says."""
        return self.manifests.get((source_key(cfg), img_size)) if self.manifests else None

    def backbone(self, cfg: BackboneConfig) -> BackboneConfig:
        """The backbone with a weights file that is there."""
        found = self.weights.get(cfg.weights or "")
        return cfg if found is None else cfg.model_copy(update={"weights": str(found)})
