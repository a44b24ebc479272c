"""Tiny frozen ViTs of every supported kind, and trials on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
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
FAMILIES: dict[str, dict[str, Any]] = {
    "dinov3": {
        "dynamic_img_size": True,
        "qkv_bias": False,
        "init_values": 0.3,
        "use_abs_pos_emb": False,
        "use_rot_pos_emb": True,
        "rope_type": "dinov3",
        "rope_temperature": 100,
        "rope_rotate_half": True,
        "num_reg_tokens": 4,
        "use_fc_norm": False,
    },
    "eva02": {
        "qkv_fused": False,
        "mlp_ratio": 8 / 3,
        "swiglu_mlp": True,
        "scale_mlp": True,
        "scale_attn_inner": True,
        "use_rot_pos_emb": True,
        "ref_feat_shape": (2, 2),
    },
    "pe": {
        "global_pool": "map",
        "attn_type": "rope",
        "use_pre_transformer_norm": True,
        "use_rot_pos_emb": True,
        "ref_feat_shape": (3, 3),
        "rope_grid_offset": 1.0,
        "rope_grid_indexing": "xy",
        "attn_pool_num_heads": 4,
        "attn_pool_mlp_ratio": 4.0,
    },
}
"""timm's Eva models as they are published, in small."""
VARIANTS: dict[str, dict[str, Any]] = {
    "dinov3_cls": {**FAMILIES["dinov3"], "qkv_bias": True, "global_pool": "token"},
    "dinov3_plus": {**FAMILIES["dinov3"], "swiglu_mlp": True, "swiglu_align_to": 8},
    "eva02_small": {"swiglu_mlp": True, "use_rot_pos_emb": True, "ref_feat_shape": (2, 2)},
    "eva": {"qkv_fused": True},
    "pe_lang": {
        **FAMILIES["pe"],
        "global_pool": "avg",
        "use_post_transformer_norm": False,
        "use_fc_norm": False,
        "init_values": 0.1,
    },
    "pe_spatial": {**FAMILIES["pe"], "global_pool": "avg", "class_token": False},
    "rope_mixed": {
        "attn_type": "rope",
        "use_abs_pos_emb": False,
        "use_rot_pos_emb": True,
        "rope_type": "mixed",
        "rope_temperature": 10.0,
        "init_values": 0.2,
        "dynamic_img_size": True,
    },
    "rope_qk_norm": {
        "attn_type": "rope",
        "qkv_fused": False,
        "qk_norm": True,
        "attn_only_layer_scale": True,
        "init_values": 0.5,
        "use_rot_pos_emb": True,
        "global_pool": "token",
    },
}
"""Further forms of them."""


def tiny_backbone(kind: str = "cls", *, dtype: torch.dtype = torch.float64) -> Backbone:
    """A frozen ViT whose norms, biases and tokens are all away from their defaults."""
    return Backbone(tiny_vit(kind), fingerprint=f"tiny:{kind}").to(dtype)


def tiny_vit(kind: str, **settings: Any) -> Any:
    """The network of `tiny_backbone` as timm has it, with further settings of timm's."""
    cls = VisionTransformerDistilled if kind == "distilled" else VisionTransformer
    cls, changes = (cls, KINDS[kind]) if kind in KINDS else (Eva, {**FAMILIES, **VARIANTS}[kind])
    with torch.random.fork_rng():
        torch.manual_seed(7)
        vit = cls(**{**GEOMETRY, **changes, **settings})
        for name, parameter in vit.named_parameters():
            scale = 0.2 if parameter.ndim < 2 or "token" in name else 0.15
            parameter.data += scale * torch.randn_like(parameter)
    return vit


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
