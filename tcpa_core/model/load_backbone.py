"""Building a backbone with its weights: shipped, of the hub, of a file, or random.

The identity of weights (`weights_fingerprint`) is found without building a model.
"""

import hashlib
import math
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files
from pathlib import Path

import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.model.backbone import AS_TRAINED, Backbone, Classifier, check_supported
from tcpa_core.model.computing import compute_as_source, described_computing
from tcpa_core.model.fit_weights import classifier_of_file, fit_weights, resampled
from tcpa_core.model.preprocessing import (
    NormStats,
    stats_beside,
    stats_of_file,
    stats_of_name,
    stats_of_setting,
)
from tcpa_core.model.timm_names import (
    MODULES,
    NANO,
    ViT,
    check_name,
    check_published,
    has_projection,
)
from tcpa_core.model.weights_file import SUFFIXES, read_weights
from tcpa_core.settings import BackboneConfig

NANO_GEOMETRY = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "mlp_ratio": 4,
}
"""Of the shipped vit_nano, which timm does not know by name."""


def load_backbone(
    cfg: BackboneConfig,
    *,
    device: str | torch.device = "cpu",
    recorded: bool = False,
) -> Backbone:
    """Build a backbone with its weights.

    Args:
        cfg: Name, source of weights, image size, mean and std.
        device: Where to put it. "meta" (torch's device of shapes without numbers), for plans:
            weights of the hub are not fetched, random ones not drawn, and a file is only checked.
        recorded: The settings are those of a study that was planned before. Where nothing tells
            mean and std, they are then those of the name, with a warning, as before the plan asked.

    Raises:
        ConfigError: No such model, or one that is not supported.
        WeightsError: The weights cannot be fetched or read, or belong to another model.
    """
    is_random = cfg.weights == "random"
    warnings = [
        f"Backbone {cfg.full_name} has random weights: accuracies mean nothing."
    ] * is_random
    on_meta = torch.device(device).type == "meta"
    found = _of_hub(cfg, on_meta) if is_random or _is_hub(cfg) else _of_file(cfg, recorded)
    warnings += found.warnings
    vit, classifier, stats = found.vit, found.classifier, found.stats
    if cfg.pool is not None:
        (_pool_by_mean if cfg.pool == "avg" else _pool_by_cls)(vit, cfg.full_name)
        classifier = ()  # it was trained on what the model read before
    if recorded and isinstance(stats, ConfigError):
        named = stats_of_name(cfg.full_name, getattr(vit, "pretrained_cfg", None))
        warnings.append(f"Mean and std are those of {named.source}, which nothing proves: {stats}")
        stats = named
    backbone = Backbone(
        vit,
        fingerprint=weights_fingerprint(cfg),
        warnings=tuple(warnings),
        stats=stats_of_setting(cfg) or stats,
        classifier=classifier,
        positions=found.positions,
        changes=found.changes,
    )
    return backbone.to(device)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model with its weights, and what is known of these."""

    vit: ViT
    classifier: Classifier
    stats: NormStats | ConfigError
    """Mean and std, or the question that the weights leave open: `Backbone.norm_stats` raises it,
    so what needs neither (a plan's costs) does without an answer."""
    positions: str
    """How position embeddings were resampled."""
    changes: str = ""
    """What was renamed, left out and set otherwise to take the file as it is meant."""
    warnings: tuple[str, ...] = ()


def _of_hub(cfg: BackboneConfig, on_meta: bool) -> _Loaded:
    """A model with the hub's weights or random ones, or without numbers."""
    if _is_hub(cfg):
        check_name(cfg.full_name)
        check_published(cfg.full_name)
    if on_meta:
        with torch.device("meta"):
            vit = _create(cfg)
        classifier = _random_classifier(vit, cfg.full_name)
    elif cfg.weights == "random":
        vit = _create(cfg, seed=True)
        classifier = _random_classifier(vit, cfg.full_name)
    else:
        vit = _create_from_hub(cfg)
        classifier = _take_classifier(vit, cfg.full_name)
    stats = stats_of_name(cfg.full_name, getattr(vit, "pretrained_cfg", None))
    return _Loaded(vit, classifier, stats, _resized_at_hub(vit) if _is_hub(cfg) else AS_TRAINED)


def _of_file(cfg: BackboneConfig, recorded: bool) -> _Loaded:
    """A model with the weights of a file."""
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        vit = _create(cfg)
    file = read_weights(weights_path(cfg), vit, cfg.full_name)
    changes = list(file.changes)
    if vit.global_pool == "token" and {"fc_norm.weight", "fc_norm.bias"} <= file.state.keys():
        _pool_by_mean(vit, cfg.full_name)  # as the file's own program reads its features
        changes.append("pool avg, as fc_norm follows the mean")
    positions = fit_weights(file, vit, cfg.full_name)
    warnings: tuple[str, ...] = ()
    try:
        changes += compute_as_source(file, vit, cfg.full_name)
    except ConfigError as err:
        if not recorded:
            raise
        warnings = (f"Computed as before, as {cfg.full_name} does: {err}",)
    classifier = classifier_of_file(file, vit, cfg.full_name)
    stats = stats_of_file(cfg, file, len(classifier[0][0]) if classifier else 0)
    return _Loaded(vit, classifier, stats, positions, "; ".join(changes), warnings)


def weights_fingerprint(cfg: BackboneConfig) -> str:
    """Identity of the weights, without building a model.

    Returns:
        "random:<name>", "hub:<name>@<tag>", or "sha256:<16 hex digits>" of the file's content.

    Raises:
        ConfigError: The model is not known.
        WeightsError: The file is missing.
    """
    if cfg.weights == "random":
        return f"random:{cfg.full_name}"
    if _is_hub(cfg):
        check_name(cfg.full_name)
        check_published(cfg.full_name)
        # The tag stands for the content, which no plan fetches. A name without a tag means timm's
        # default one, which is written out: another timm may have another default.
        pretrained = timm.get_pretrained_cfg(cfg.full_name)
        return f"hub:{cfg.full_name.split('.')[0]}@{pretrained.tag if pretrained else ''}"
    path = weights_path(cfg)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return f"sha256:{digest}{_described(path, cfg)}"


def _described(path: Path, cfg: BackboneConfig) -> str:
    """Mark of a description beside the weights that changes how images are normalised, or how the
    network computes.

    Empty where it says what is assumed without it: such weights keep the fingerprint that they had
    before descriptions were read.
    """
    # The shipped weights have none, and `backbone.norm_stats` is in the trial's digest by itself.
    computing = "" if cfg.weights is None else described_computing(path)
    if computing:
        computing = f"-{hashlib.sha256(computing.encode()).hexdigest()[:8]}"
    found = None if cfg.weights is None or cfg.norm_stats else stats_beside(path, cfg.full_name)
    if found is None:
        return computing
    known = None if cfg.full_name == NANO else timm.get_pretrained_cfg(cfg.full_name)
    usual = stats_of_name(cfg.full_name, known.to_dict() if known else None)
    pair = (found.mean, found.std)
    if pair == (usual.mean, usual.std):
        return computing
    return f"{computing}-{hashlib.sha256(repr(pair).encode()).hexdigest()[:8]}"


def _pool_by_mean(vit: ViT, name: str) -> None:
    """Let a model that reads CLS read the mean of its image tokens, normalised after the mean."""
    if isinstance(vit, VisionTransformerDistilled) or vit.global_pool not in ("token", "avg"):
        raise ConfigError(
            f"backbone.pool: 'avg' needs a model that reads CLS, got {name!r} (pool "
            f"{vit.global_pool!r}{', distilled' if hasattr(vit, 'dist_token') else ''}); leave "
            "backbone.pool out."
        )
    # timm builds such models with `fc_norm` behind the mean and no norm before it; here the final
    # norm, which is trained, changes its place.
    if vit.global_pool == "token":
        vit.global_pool, vit.fc_norm, vit.norm = "avg", vit.norm, nn.Identity()


def _pool_by_cls(vit: ViT, name: str) -> None:
    """Let a model that reads the mean of its image tokens read CLS, normalised as the mean was."""
    pools = ("token", "avg")
    if vit.cls_token is None or hasattr(vit, "dist_token") or vit.global_pool not in pools:
        raise ConfigError(
            f"backbone.pool: 'token' needs a model with CLS that reads the mean of its tokens, got "
            f"{name!r} (pool {vit.global_pool!r}{', no CLS' if vit.cls_token is None else ''}); "
            "leave backbone.pool out."
        )
    vit.global_pool = "token"


def _is_hub(cfg: BackboneConfig) -> bool:
    return cfg.weights is None and cfg.full_name != NANO


def weights_path(cfg: BackboneConfig) -> Path:
    """The file of the weights, shipped or the user's; not for those of the hub or random ones.

    Raises:
        WeightsError: There is no such file.
    """
    if cfg.weights is None:
        return Path(str(files("tcpa_core.weights") / f"{NANO}.safetensors"))
    path = Path(os.path.expanduser(cfg.weights))
    if os.path.isdir(path):  # unlike path.is_dir() without errors on names that cannot be
        inside = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)
        raise WeightsError(
            f"backbone.weights: {cfg.weights!r} is a folder; give a weights file in it: "
            f"{', '.join(inside[:5]) or 'it has none'}."
        )
    if not os.path.isfile(path):
        raise WeightsError(
            f"backbone.weights: no file {cfg.weights!r}; give the path of a .safetensors, .pth or "
            f".npz file of {cfg.full_name}, or 'random'."
        )
    return path


def _create(cfg: BackboneConfig, *, seed: bool = False, pretrained: bool = False) -> ViT:
    """Build the network, without a classifier unless it is pretrained.

    Args:
        seed: Make its random weights a fixed set.
        pretrained: Fetch the hub's weights.
    """
    check_name(cfg.full_name)  # timm's own message for a wrong name lists nothing
    size = {} if cfg.img_size is None else {"img_size": cfg.img_size}
    classes = {} if pretrained else {"num_classes": 0}
    # The caller's random stream stays where it is; the seed follows the name, so that two processes
    # of a study build the same random weights.
    with torch.random.fork_rng(devices=[], enabled=seed):
        if seed:
            torch.manual_seed(int(hashlib.sha256(cfg.full_name.encode()).hexdigest()[:8], 16))
        try:
            if cfg.full_name == NANO:
                vit = VisionTransformer(**{**NANO_GEOMETRY, **size}, num_classes=0)
            else:
                vit = timm.create_model(cfg.full_name, pretrained=pretrained, **classes, **size)
        except (TypeError, AssertionError) as err:
            raise ConfigError(
                f"backbone.name: {cfg.full_name!r} cannot be built with img_size={cfg.img_size!r} "
                f"({err}); only timm VisionTransformer and Eva models are supported."
            ) from err
    if not isinstance(vit, VisionTransformer | Eva):
        raise ConfigError(
            f"backbone.name: {cfg.full_name!r} is a {type(vit).__name__}; only timm "
            "VisionTransformer and Eva models are supported."
        )
    if cfg.img_size is None:
        _check_square(vit, cfg.full_name)
    if cfg.img_size is not None:
        check_size(vit, cfg.full_name, cfg.img_size)
    return vit


def _create_from_hub(cfg: BackboneConfig) -> ViT:
    try:
        return _create(cfg, pretrained=True)
    except (OSError, RuntimeError) as err:
        raise WeightsError(
            f"backbone.weights: the pretrained weights of {cfg.full_name!r} could not be fetched "
            f"({type(err).__name__}); set backbone.weights to a local .safetensors, .pth or .npz "
            "file of this model, use backbone.name=vit_nano (shipped), or 'random'."
        ) from err


def _check_square(vit: ViT, name: str) -> None:
    height, width = vit.patch_embed.img_size
    if height != width:
        raise ConfigError(
            f"backbone.img_size: {name!r} was trained on images of {height} x {width} pixels, and "
            "those of a data set are brought to squares; set backbone.img_size, for example to "
            f"{min(height, width)}."
        )


def check_size(vit: ViT, name: str, size: int) -> None:
    """Refuse a side of images of which the patches would leave a strip unseen.

    Raises:
        ConfigError: Naming the two nearest sides. The model's own one is as its makers want it.
    """
    # vit_so400m_patch14_siglip_384 is published with a strip: 384 is no multiple of 14.
    own = (getattr(vit, "pretrained_cfg", None) or {}).get("input_size", (0,))[-1]
    patch = math.lcm(*vit.patch_embed.patch_size)
    if size != own and size % patch:
        lower = max(size // patch, 1) * patch
        raise ConfigError(
            f"backbone.img_size must be a multiple of the patch of {name!r}, {patch} pixels, got "
            f"{size}; the nearest are {lower} and {lower + patch}."
        )


def _take_classifier(vit: ViT, name: str) -> Classifier:
    """Take the head off a model; it is returned if it is a classifier."""
    heads = [vit.head, *([vit.head_dist] if isinstance(vit, VisionTransformerDistilled) else [])]
    pairs = [(h.weight.detach(), h.bias.detach()) for h in heads if isinstance(h, nn.Linear)]
    vit.reset_classifier(0)
    known = timm.get_pretrained_cfg(name)
    return () if known is not None and has_projection(name, known.tag or "") else pairs


def _random_classifier(vit: ViT, name: str) -> Classifier:
    """A classifier of the shape that the hub's weights have: a plan that fetches nothing counts its
    parameters and FLOPs all the same."""
    known = None if name == NANO else timm.get_pretrained_cfg(name)
    if known is None or not known.num_classes or has_projection(name, known.tag or ""):
        return ()
    count = 2 if isinstance(vit, VisionTransformerDistilled) else 1
    generator = torch.Generator().manual_seed(0)
    shape = (known.num_classes, vit.embed_dim)
    with torch.device("cpu"):  # tests and plans build the model itself on the meta device
        weights = [0.02 * torch.randn(shape, generator=generator) for _ in range(count)]
        return [(weight, torch.zeros(len(weight))) for weight in weights]


def _resized_at_hub(vit: ViT) -> str:
    """Whether timm has resampled the position embeddings of the hub's weights."""
    own = (getattr(vit, "pretrained_cfg", None) or {}).get("input_size")
    if own is None:
        return AS_TRAINED
    grid = tuple(side // p for side, p in zip(own[-2:], vit.patch_embed.patch_size, strict=True))
    return resampled(grid, tuple(vit.patch_embed.grid_size))


def backbone_names(pattern: str = "*") -> list[str]:
    """Names that `backbone.name` can take without a file: vit_nano, and timm's vision transformers
    of the supported families with published weights."""
    # Part of a name is enough, as with timm's own lists.
    filters = pattern if "*" in pattern else f"*{pattern}*"
    names = sorted(n for module in MODULES for n in timm.list_models(filters, module=module))
    return [n for n in (NANO,) if fnmatch(n, filters)] + [n for n in names if _is_usable(n)]


@cache
def _is_usable(name: str) -> bool:
    """Whether a plan takes a name; seen from one block, as all blocks of a model are alike."""
    try:
        check_published(name)
        with torch.device("meta"):
            vit = timm.create_model(name, num_classes=0, depth=1)
        check_supported(vit)
        _check_square(vit, name)
    except (ConfigError, AssertionError):  # the latter where blocks have settings of their own
        return False
    return True
