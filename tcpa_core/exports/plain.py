"""A trained trial as timm's own network with a classifier, where its method allows it."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from tcpa_core.chain import method_class, overrides
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.head import HEADS
from tcpa_core.model.load_backbone import NANO_GEOMETRY
from tcpa_core.model.timm_names import NANO, ViT
from tcpa_core.training.trained import TrainedModel

NANO_AS = "vit_tiny_patch16_224"
"""A model of timm that becomes the shipped one by its arguments."""


def why_not_plain(model: TrainedModel) -> str | None:
    """Why a trial is no plain network; None: it is one."""
    if model.segments:
        return "the trial segments, and models of timm classify"
    for name in model.config.methods:
        if not overrides(method_class(name), "merged"):
            return f"{name!r} computes beside the network's own blocks, which no model of timm does"
    if f"{HEADS[0]}.weight" not in model.source.tensors:
        return "the trial has no linear head, as every model of timm has"
    return None


def merged(model: TrainedModel) -> Backbone:
    """The backbone with everything in it that was trained, but for the head.

    Raises:
        ConfigError: A layer of the backbone cannot take it up.
    """
    found = model.pack.backbone
    for name in model.config.methods:
        one = method_class(name).merged(found, model.config, dict(model.source.tensors))
        assert one is not None, f"{name} overrides `merged`"
        found = one
    return found


def with_head(backbone: Backbone, state: Mapping[str, Tensor]) -> ViT:
    """A copy of timm's network with the trial's classifier."""
    vit = deepcopy(backbone.vit)
    for name in HEADS[: backbone.layout.num_readouts]:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        head = nn.Linear(weight.shape[1], len(weight))
        head.load_state_dict({"weight": weight, "bias": bias})
        setattr(vit, name, head)
    return vit


def arguments(model: TrainedModel) -> tuple[str, dict[str, Any]]:
    """Name of timm's model, and what `timm.create_model` has to be told beside it."""
    cfg, layout = model.config.backbone, model.pack.backbone.layout
    name = cfg.full_name.partition(".")[0]
    told: dict[str, Any] = {}
    if name == NANO:
        name, told = NANO_AS, dict(NANO_GEOMETRY)
    if cfg.img_size is not None:
        told["img_size"] = cfg.img_size
    if cfg.pool is not None:
        told["global_pool"] = layout.pool
    return name, told
