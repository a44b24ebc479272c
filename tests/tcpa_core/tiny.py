"""Tiny frozen ViTs of every supported kind, and trials on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.streams import Stream
from tcpa_core.training.divergence import Diverged
from tcpa_core.training.member import Member

NUM_CLASSES = 5
GEOMETRY: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 4,
    "num_classes": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "cls": {},
    "registers": {"reg_tokens": 4},
    "distilled": {},
    "no_cls": {"class_token": False, "global_pool": "avg"},
    "cls_avg": {"global_pool": "avg"},
    "dynamic": {"dynamic_img_size": True, "img_size": 48},
    "layer_scale": {"init_values": 0.3, "qk_norm": True, "scale_attn_norm": True},
    "map_pool": {"global_pool": "map"},
}


def tiny_backbone(kind: str = "cls", *, dtype: torch.dtype = torch.float64) -> Backbone:
    """A frozen ViT whose norms, biases and tokens are all away from their defaults."""
    cls = VisionTransformerDistilled if kind == "distilled" else VisionTransformer
    with torch.random.fork_rng():
        torch.manual_seed(7)
        vit = cls(**{**GEOMETRY, **KINDS[kind]})
        for name, parameter in vit.named_parameters():
            scale = 0.2 if parameter.ndim < 2 or "token" in name else 0.15
            parameter.data += scale * torch.randn_like(parameter)
    return Backbone(vit, fingerprint=f"tiny:{kind}").to(dtype)


def trial(methods: Sequence[str], seed: int = 0, **settings: Any) -> TrialConfig:
    """Settings of a trial; `tcpa__top_k_cls=3` stands for the path tcpa.top_k_cls."""
    paths: Mapping[str, Any] = {key.replace("__", "."): value for key, value in settings.items()}
    return TrialConfig.from_flat({"methods": list(methods), "seed": seed, **paths})


def images(backbone: Backbone, members: int = 1, samples: int = 3, seed: int = 1) -> Tensor:
    """Random normalised images (M, B, 3, side, side)."""
    side = backbone.img_size
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(
        members, samples, 3, side, side, generator=generator, dtype=torch.float64
    ).to(backbone.dtype)


def training_step(
    configs: Sequence[TrialConfig], epochs: Sequence[int], steps: Sequence[int]
) -> Step:
    """A training step in which every member is at its own place."""
    streams = [Stream(config.seed) for config in configs]
    return Step(training=True, epochs=epochs, steps=steps, streams=streams)


def trained(outcomes: Sequence[Member | Diverged]) -> list[Member]:
    """Members after an epoch that ended well for all."""
    members = [outcome for outcome in outcomes if isinstance(outcome, Member)]
    assert len(members) == len(outcomes), outcomes
    return members
