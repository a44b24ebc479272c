"""What a node without data or weights can be sent: images and weights of the driver's node."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spaces.space import Space
from tcpa_core.config import TrialConfig
from tcpa_core.data.base import (
    Progress,
    cache_root,
    files_of,
    load_dataset,
    source_key,
    write_manifest,
)
from tcpa_core.errors import ConfigError
from tcpa_core.model.bundle import WeightsBundle
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.weights_bundle import bundle_of
from tcpa_core.settings import BackboneConfig, DataConfig

MOST_VALUES = 100
"""Of an axis, where each means another decoded data set."""


@dataclass(frozen=True, slots=True)
class Cargo:
    """Files of the driver's node, and what they stand for."""

    manifests: Mapping[tuple[str, int], str]
    """As of `tcpa_core.training.stand_ins.StandIns`."""
    bundles: Mapping[str, WeightsBundle]
    files: Mapping[str, Path]
    """Where they are on the driver's node, by path below a cache folder."""
    sizes: Mapping[str, int]
    """Bytes of each."""


def cargo_of(space: Space, cache_dir: Path | None, progress: Progress | None = None) -> Cargo:
    """All that trials of a space may need.

    Args:
        cache_dir: Of the driver; images that it lacks are decoded.

    Raises:
        ConfigError: An axis asks for ever new data sets.
        DataError: A data set or the cache cannot be read.
        WeightsError: Weights cannot be read.
    """
    cache = cache_root(cache_dir).absolute()
    manifests: dict[tuple[str, int], str] = {}
    bundles: dict[str, WeightsBundle] = {}
    files: dict[str, Path] = {}
    sides: dict[BackboneConfig, int] = {}
    for data, backbone in parts_to_send(space):
        if backbone not in sides:
            sides[backbone] = load_backbone(backbone, device="meta", recorded=True).img_size
        key = (source_key(data), sides[backbone])
        if data.root is not None and key not in manifests:
            found = load_dataset(data, key[1], cache_dir=cache, progress=progress)
            manifests[key] = write_manifest(found, cache)
            files |= {name: cache / name for name in files_of(manifests[key], cache)}
        if backbone.weights not in (None, "random", *bundles):
            bundles[str(backbone.weights)], places = bundle_of(backbone)
            files |= places
    return Cargo(manifests, bundles, files, {n: path.stat().st_size for n, path in files.items()})


def parts_to_send(space: Space) -> list[tuple[DataConfig, BackboneConfig]]:
    """Data and backbones of all trials that a space may ask for; of settings that store the same
    images, one.

    Raises:
        ConfigError: They cannot be listed.
    """
    found = _distinct(space.trials)
    axes = {} if space.ablation else space.axes
    for path, axis in axes.items():
        if not path.startswith(("data.", "backbone.")):
            continue
        values = axis.values()
        is_long = values is None or len(values) > MOST_VALUES
        # Corners do not show every pair of values that two axes may have.
        tried = axis.ends() if values is None or is_long else values
        variants = [_distinct(_variants(config, path, tried)) for config in found]
        if is_long and any(len(of_one) > 1 for of_one in variants):
            raise ConfigError(
                f"--ship-data: axis {path} has {'ever new' if values is None else len(values)} "
                "values, and each asks for other decoded images; give it a few as a choice, or "
                "leave --ship-data out."
            )
        found = _distinct([*found, *(config for of_one in variants for config in of_one)])
    return [(config.data, config.backbone) for config in found]


def _variants(config: TrialConfig, path: str, values: Iterable[object]) -> list[TrialConfig]:
    found = []
    for value in values:
        try:
            found.append(config.replace_paths({path: value}))
        except ConfigError:  # no trial has these together
            continue
    return found


def _distinct(configs: Iterable[TrialConfig]) -> list[TrialConfig]:
    found = {(source_key(config.data), config.backbone): config for config in configs}
    return list(found.values())
