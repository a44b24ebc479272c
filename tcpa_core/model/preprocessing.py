"""How images become the numbers that a backbone reads, and where that is known from.

Mean and std belong to the weights. They come from the first that tells them: the setting
`backbone.norm_stats`; the tag, for weights of the hub; the file's metadata or a description beside
it; its layout; what is published for its shape. Where these leave it open, the user is asked.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
from timm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)
from timm.models import PretrainedCfg

from tcpa_core.data._decode import ResizeRule
from tcpa_core.errors import ConfigError
from tcpa_core.model.timm_names import NANO, has_shape_of, is_shape_only, published, same_shape
from tcpa_core.model.weights_file import SUFFIXES, WeightsFile
from tcpa_core.settings import BackboneConfig, DataConfig, Triple, norm_stats_value

NAMED: Mapping[str, tuple[Triple, Triple]] = {
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "inception": (IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD),
    "clip": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
}
"""Mean and std by the names of `backbone.norm_stats`."""

_OF_ANYBODY = (0, 1000)
"""Numbers of classes that weights of every origin have; others tell the origin."""
_HUB_FILES = ("model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model")
"""Stems of the weights in a folder as the hub's, whose descriptions are then theirs."""
_DESCRIPTIONS = (
    ("config.json", "pretrained_cfg", "mean", "std"),
    ("config.json", None, "mean", "std"),
    ("open_clip_config.json", "preprocess_cfg", "mean", "std"),
    ("preprocessor_config.json", None, "image_mean", "image_std"),
)
"""Files beside the weights: section, and the keys of mean and std."""
DESCRIBED_IN = tuple(dict.fromkeys(file for file, *_ in _DESCRIPTIONS))
"""Names of these files; how a network computes stands in two of them."""


@dataclass(frozen=True, slots=True)
class NormStats:
    """Mean and std per colour channel for pixels in [0, 1]."""

    mean: Triple
    std: Triple
    source: str
    """What says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """All that happens between a picture and the first block, in timm's terms."""

    mean: Triple
    std: Triple
    source: str
    """What mean and std are known from."""
    img_size: int
    """Side of the square that the network sees, in pixels."""
    crop_mode: str
    """In evaluation: squash: the whole picture, aspect ignored; center: the middle; whole: all of
    it, in windows or at once, where pixels have classes."""
    crop_pct: float
    """`img_size` over the shorter side before the crop."""
    interpolation: str
    antialias: bool
    pool: str
    """Which tokens the head reads: token, avg, avgmax, max, map or prr."""
    positions: str
    """Whether position embeddings were resampled, and from which grid."""
    file: str = ""
    """What was renamed, left out and set otherwise to read the weights' file; "": nothing."""

    @classmethod
    def of(
        cls,
        stats: NormStats,
        data: DataConfig,
        *,
        img_size: int,
        pool: str,
        positions: str,
        file: str = "",
    ) -> "Preprocessing":
        """What the settings of a data set make of a backbone's images."""
        rule = ResizeRule.of(data, img_size)
        return cls(
            mean=stats.mean,
            std=stats.std,
            source=stats.source,
            img_size=img_size,
            crop_mode=_crop_mode(data),
            crop_pct=round(img_size / rule.side, 4),
            interpolation=rule.interpolation,
            antialias=rule.antialias,
            pool=pool,
            positions=positions,
            file=file,
        )

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values; `file` only where there is something to say."""
        found = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        return found if self.file else {k: v for k, v in found.items() if k != "file"}

    def __str__(self) -> str:
        mean, std = (", ".join(f"{v:.4g}" for v in part) for part in (self.mean, self.std))
        crop = "squashed" if self.crop_mode == "squash" else f"centre {self.crop_pct:g} cut"
        if self.crop_mode == "whole":
            crop = f"whole pictures, short side {self.img_size / self.crop_pct:.0f} px, cut"
        filtered = "" if self.antialias else " without antialiasing"
        return (
            f"mean ({mean}), std ({std}) from {self.source}; {crop} to {self.img_size} px, "
            f"{self.interpolation}{filtered}; pool {self.pool}; positions {self.positions}"
            f"{f'; file: {self.file}' if self.file else ''}"
        )


def _crop_mode(data: DataConfig) -> str:
    if data.resize == "squash":
        return "squash"
    return "whole" if data.has_masks else "center"


def stats_of_name(name: str, cfg: Mapping[str, Any] | None) -> NormStats:
    """Mean and std of the weights that a name stands for.

    Args:
        cfg: timm's settings of the built model; None or {}: it has none.
    """
    if name == NANO or not cfg or "mean" not in cfg:
        return NormStats(*NAMED["imagenet"], f"{NANO}'s model card" if name == NANO else "default")
    tag = cfg.get("tag")
    return NormStats(
        tuple(cfg["mean"]), tuple(cfg["std"]), f"the model's tag {tag}" if tag else "the model"
    )


def stats_of_file(
    cfg: BackboneConfig, file: WeightsFile, num_classes: int
) -> NormStats | ConfigError:
    """Mean and std of a local file, or the question that it leaves open.

    Args:
        num_classes: Of its classifier; 0: it has none.
    """
    # What was written for this very file comes before what its layout or shape make likely.
    described = _from_metadata(file) or stats_beside(file.path, cfg.full_name)
    if described is not None:
        return described
    if file.norm_stats is not None:
        return NormStats(*NAMED[file.norm_stats], f"the file's layout ({file.layout.title})")
    if cfg.full_name == NANO:
        return stats_of_name(NANO, None)
    return _of_published(cfg.full_name, file.path.name, num_classes)


def stats_of_setting(cfg: BackboneConfig) -> NormStats | None:
    """What `backbone.norm_stats` says; None: nothing."""
    if cfg.norm_stats is None:
        return None
    known = NAMED[cfg.norm_stats] if isinstance(cfg.norm_stats, str) else cfg.norm_stats
    return NormStats(*known, "backbone.norm_stats")


def stats_beside(path: Path, name: str) -> NormStats | None:
    """Mean and std that a description beside a weights file gives, as the hub's folders have it.

    It must be of this file: of a folder with several weights only those under the hub's names have
    one, and its architecture must have the shape of the model.

    Raises:
        ConfigError: It gives a mean or std that cannot be.
    """
    if not has_own_description(path):
        return None
    for file, section, mean, std in _DESCRIPTIONS:
        document = _json(path.parent / file)
        arch = document.get("architecture")
        is_other = isinstance(arch, str) and timm.is_model(arch) and name != NANO
        # A description of another architecture is not of this file.
        if is_other and not has_shape_of(str(arch).partition(".")[0], name.partition(".")[0]):
            continue
        found = document if section is None else document.get(section)
        if isinstance(found, dict) and mean in found and std in found:
            return _checked([found[mean], found[std]], f"{file} beside the weights")
    return None


def has_own_description(path: Path) -> bool:
    """Whether a description beside a weights file is of this file, if there is one."""
    return path.stem in _HUB_FILES or sum(p.suffix in SUFFIXES for p in path.parent.iterdir()) <= 1


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_metadata(file: WeightsFile) -> NormStats | None:
    """Mean and std in the metadata of a .safetensors file, as JSON."""
    values = {}
    for key in ("mean", "std", "pretrained_cfg"):
        try:
            values[key] = json.loads(file.metadata.get(key, "null"))
        except (ValueError, RecursionError):
            continue
    # timm writes its settings as one JSON object, other programs mean and std side by side.
    inner = values.get("pretrained_cfg")
    values |= inner if isinstance(inner, dict) else {}
    if values.get("mean") is None or values.get("std") is None:
        return None
    return _checked([values["mean"], values["std"]], "the file's metadata")


def _checked(value: object, source: str) -> NormStats:
    """Mean and std as somebody has written them down, for pixels in [0, 1]."""
    try:
        mean, std = norm_stats_value(value)
    except ValueError as err:
        raise ConfigError(
            f"backbone.weights: mean and std in {source} cannot be: {value!r}; correct them, or "
            "set backbone.norm_stats."
        ) from err
    return NormStats(mean, std, source)


def _of_published(name: str, file: str, num_classes: int) -> NormStats | ConfigError:
    """What is published in the file's shape decides where it agrees; else a name that says whose
    weights it means, as far as the file bears it out."""
    # The number of classes narrows the origin down (21,843: ImageNet-21k), 1,000 and 0 do not.
    own, all_known = published(name), same_shape(name)
    possible = {k: v for k, v in all_known.items() if v.num_classes == num_classes}
    if num_classes in _OF_ANYBODY or not possible:
        possible = all_known
    found = _common(possible, "published weights of its shape")
    if found is None and not is_shape_only(name.partition(".")[0]):
        found = _common(own, "the family in backbone.name")
    elif found is None and "." in name:
        confirmed = {k: v for k, v in own.items() if v.num_classes == num_classes}
        found = _common(confirmed, "the tag in backbone.name")
    return found or _question(name, file, possible)


def _common(known: Mapping[str, PretrainedCfg], source: str) -> NormStats | None:
    """The mean and std of some weights, if all have the same."""
    found = {(tuple(cfg.mean), tuple(cfg.std)) for cfg in known.values()}
    if len(found) != 1:
        return None
    (pair,) = found
    first = ", ".join(list(known)[:2]) + (", ..." if len(known) > 2 else "")
    return NormStats(*pair, f"{source} ({first})")


def _question(name: str, file: str, known: Mapping[str, PretrainedCfg]) -> ConfigError:
    """What to ask the user: the possible answers, each with weights that it would be true for."""
    groups: dict[str, list[str]] = {}
    names = {pair: name for name, pair in NAMED.items()}
    for full, cfg in known.items():
        pair = (tuple(cfg.mean), tuple(cfg.std))
        groups.setdefault(names.get(pair, f"[{list(pair[0])}, {list(pair[1])}]"), []).append(full)
    listed = "; ".join(f"{group} ({', '.join(found[:2])})" for group, found in groups.items())
    return ConfigError(
        f"backbone.norm_stats: neither the file {file!r} nor the name {name!r} says with which "
        f"mean and std the weights were trained; published in this shape: {listed or 'none'}. Set "
        "backbone.norm_stats to imagenet, inception, clip or [[mean], [std]]."
    )
