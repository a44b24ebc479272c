"""Data and weights of a study on a machine that may lack their files.

Copies of what another machine has stand for them then: decoded images and weights in the cache,
with the same identity and the same numbers. What is there is read where the settings say.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tcpa_core.data.base import (
    Dataset,
    Fetch,
    Progress,
    cache_root,
    dataset_fingerprint,
    load_dataset,
    open_manifest,
    source_key,
)
from tcpa_core.errors import DataError
from tcpa_core.model.bundle import WeightsBundle
from tcpa_core.model.load_backbone import weights_fingerprint
from tcpa_core.model.weights_bundle import open_bundle
from tcpa_core.settings import BackboneConfig, DataConfig


def _nothing(name: str) -> Iterator[bytes]:
    raise DataError(f"{name}: no other machine sends files here.")


@dataclass(frozen=True, slots=True)
class StandIns:
    """Copies that another machine can send; each is checked before it is used."""

    manifests: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Decoded data sets (`tcpa_core.data.base.write_manifest`), by `source_key` and image size."""
    bundles: Mapping[str, WeightsBundle] = field(default_factory=dict)
    """Weights files, by the value of `backbone.weights`."""
    fetch: Fetch = _nothing

    def data_fingerprint(
        self,
        cfg: DataConfig,
        cache_dir: Path | None,
        progress: Progress | None = None,
        *,
        memory: Path | None = None,
    ) -> str:
        """Identity of a data set; where its files are absent, it is sent here.

        Args:
            cache_dir: Where copies are.
            memory: Cache folder with hashes of files; None: `cache_dir`.

        Raises:
            DataError: It is neither here nor to be had.
        """
        try:
            return dataset_fingerprint(cfg, cache_dir=memory or cache_dir, progress=progress)
        except DataError:
            key = source_key(cfg)
            copies = [name for (source, _), name in self.manifests.items() if source == key]
            if not copies:
                raise
        found = [
            open_manifest(one, cache_dir, fetch=self.fetch, progress=progress) for one in copies
        ]
        return found[0].fingerprint  # of all sizes

    def weights_fingerprint(
        self, cfg: BackboneConfig, cache_dir: Path | None, progress: Progress | None = None
    ) -> str:
        """Identity of weights; where their file is absent, it is sent here.

        Raises:
            WeightsError: It is neither here nor to be had.
            DataError: The cache folder cannot be written, or its disk has no room.
        """
        return weights_fingerprint(self.backbone(cfg, cache_dir, progress))

    def load_dataset(
        self,
        cfg: DataConfig,
        img_size: int,
        *,
        cache_dir: Path | None = None,
        progress: Progress | None = None,
        keep: bool = True,
    ) -> Dataset:
        """As of `tcpa_core.data.base`; once a copy of it was sent here, that is read."""
        copy = self.manifests.get((source_key(cfg), img_size)) if self.manifests else None
        if copy is None or not (cache_root(cache_dir) / copy).is_file():
            return load_dataset(cfg, img_size, cache_dir=cache_dir, progress=progress, keep=keep)
        return open_manifest(copy, cache_dir, fetch=self.fetch, progress=progress)

    def backbone(
        self, cfg: BackboneConfig, cache_dir: Path | None, progress: Progress | None = None
    ) -> BackboneConfig:
        """The backbone; where its weights file is absent, with the copy of it.

        Raises:
            WeightsError, DataError: As of `weights_fingerprint`.
        """
        bundle = self.bundles.get(cfg.weights or "")
        if bundle is None or os.path.isfile(os.path.expanduser(cfg.weights or "")):
            return cfg
        copy = open_bundle(bundle, cache_dir, fetch=self.fetch, progress=progress)
        return cfg.model_copy(update={"weights": str(copy)})


HERE = StandIns()
"""Nothing is lacking."""
