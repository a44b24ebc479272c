"""What timm knows by name of its vision transformers: tags, published weights, shapes."""

import re
from collections.abc import Mapping
from functools import cache
from typing import TypeAlias

import timm
import torch
from timm.models import PretrainedCfg
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tcpa_core.errors import ConfigError, nearest

ViT: TypeAlias = VisionTransformer | Eva
"""The families whose blocks can be taken apart (`tcpa_core.model.blocks`)."""

NANO = "vit_nano"
MODULES = ("vision_transformer", "deit", "eva")
"""Of timm, with the models that can be a backbone."""

_SHAPE_ONLY = re.compile(r"vit_[a-z0-9]+_patch\d+_\d+")
"""Names that tell size, patch and image, but not who trained the weights or how."""
_SIZE = re.compile(r"[a-z0-9]+(_[a-z0-9]+_patch\d+)_")


def check_name(name: str) -> None:
    """Refuse a name that stands for no model.

    Raises:
        ConfigError: No such model, or no such tag of it; with the known ones.
    """
    arch, _, tag = name.partition(".")
    if name != NANO and not timm.is_model(arch):
        hint = nearest(arch, [NANO, *timm.list_models()])
        raise ConfigError(
            f"backbone.name must be {NANO!r} or a timm model, got {name!r}{hint}; "
            "'tcpa backbones' lists them."
        )
    if name != arch and name not in tagged_names(arch):
        known = [known.partition(".")[2] for known in tagged_names(arch)]
        raise ConfigError(
            f"backbone.name: timm knows no weights {tag!r} of {arch!r}{nearest(tag, known)}; known "
            f"tags: {', '.join(known) or 'none'}. For weights of your own leave the tag out and "
            "set backbone.weights."
        )


def check_published(name: str) -> None:
    """Refuse a name without weights on the hub.

    Raises:
        ConfigError: See above.
    """
    known = timm.get_pretrained_cfg(name)
    if known is not None and not known.has_weights:
        raise ConfigError(
            f"backbone.weights: no weights of {name!r} are published; set backbone.weights to a "
            "file of this model, or choose another backbone.name ('tcpa backbones' lists them)."
        )


def tagged_names(arch: str) -> list[str]:
    """ "arch.tag" for every tag of an architecture."""
    return list(timm.list_models(f"{arch}.*", include_tags=True))


def published(name: str) -> dict[str, PretrainedCfg]:
    """Published weights that a name stands for, by full name: that of its tag, else of all tags."""
    arch = name.partition(".")[0]
    found = {full: timm.get_pretrained_cfg(full) for full in tagged_names(arch)}
    return {full: cfg for full, cfg in found.items() if cfg.has_weights and name in (arch, full)}


def same_shape(name: str) -> dict[str, PretrainedCfg]:
    """Published weights of all models whose tensors have the names and shapes of this one's.

    Classifiers and the number of positions do not count: a file may lack or resize them.
    """
    arch = name.partition(".")[0]
    # Only models of the same size and patch can have equal shapes; to build each one takes long.
    size = _SIZE.match(arch)
    models = {arch}
    if size:
        # Nor can those of the two families, whose blocks have other names.
        is_eva = timm.models.is_model_in_modules(arch, ("eva",))
        for module in [m for m in MODULES if (m == "eva") == is_eva]:
            models |= set(timm.list_models(f"*{size[1]}_*", module=module))
    return {
        full: cfg
        for model in sorted(models)
        if model == arch or has_shape_of(model, arch)
        for full, cfg in published(model).items()
    }


def has_shape_of(arch: str, other: str) -> bool:
    """Whether the tensors of two architectures' blocks and ends have equal names and shapes."""
    return arch == other or shapes_of(arch) == shapes_of(other)


def is_shape_only(name: str) -> bool:
    """Whether a name says nothing of who trained the weights: no tag, no family."""
    return _SHAPE_ONLY.fullmatch(name) is not None


def is_clip(name: str) -> bool:
    """Whether a name is of CLIP's family, whose head may be a projection beside texts."""
    return "_clip_" in name or "_pe_core_" in name


def has_projection(name: str, tag: str) -> bool:
    """Whether the head of published weights is CLIP's projection and no classifier."""
    return is_clip(name) and "ft" not in tag.split("_")


@cache
def shapes_of(arch: str) -> frozenset[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a model's first block and its two ends."""
    # One block on the meta device shows all shapes: blocks of a model are alike.
    with torch.device("meta"):
        try:
            return tensor_shapes(timm.create_model(arch, num_classes=0, depth=1).state_dict())
        except AssertionError:  # its blocks differ, so that it has the shape of no other
            return frozenset({(arch, ())})


def tensor_shapes(state: Mapping[str, Tensor]) -> frozenset[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the first block and the two ends, without what tells nothing."""
    # A file's positions are resampled to another image size, and its classifier is not used.
    return frozenset(
        (key, tuple(value.shape))
        for key, value in state.items()
        if key != "pos_embed" and not re.match(r"head(_dist)?\.|blocks\.[1-9]", key)
    )
