"""Small random vision transformers in the names of the programs that write checkpoints.

A network is a mapping of roles to tensors. `features` computes it from the papers' definitions,
with no code of timm and none of this project; the other functions give its tensors the names of
one program each.
"""

import math
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import QuickGELU, SwiGLUPacked
from timm.models import register_model
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

State = dict[str, Tensor]
Roles = dict[str, Any]

WIDTH, DEPTH, HEADS, PATCH, SIDE, HIDDEN = 32, 2, 2, 8, 32, 128
GRID = SIDE // PATCH
GEOMETRY: dict[str, Any] = {
    "img_size": SIDE,
    "patch_size": PATCH,
    "embed_dim": WIDTH,
    "depth": DEPTH,
    "num_heads": HEADS,
    "num_classes": 0,
}


class ClipNorm(nn.LayerNorm):
    """torch's own eps."""

    def __init__(self, width: int, **settings: Any) -> None:
        super().__init__(width, eps=1e-5)


_CLIP: dict[str, Any] = {"pre_norm": True, "norm_layer": ClipNorm}
_REGISTERS: dict[str, Any] = {"init_values": 1.0, "reg_tokens": 4, "no_embed_class": True}
_SWIGLU: dict[str, Any] = {
    "init_values": 1.0,
    "mlp_layer": SwiGLUPacked,
    "mlp_ratio": 2 * HIDDEN / WIDTH,
    "act_layer": nn.SiLU,
}
MODELS: dict[str, dict[str, Any]] = {
    "layouts_plain_vit": {},
    "layouts_clip_vit": _CLIP,
    "layouts_clip_quickgelu_vit": {**_CLIP, "act_layer": QuickGELU},
    "layouts_openai_vit": _CLIP,
    "layouts_siglip_vit": {"class_token": False, "global_pool": "map"},
    "layouts_scaled_vit": {"init_values": 1.0},
    "layouts_registers_vit": _REGISTERS,
    "layouts_swiglu_vit": _SWIGLU,
    "layouts_deit3_vit": {"init_values": 1.0, "no_embed_class": True},
    "layouts_distilled_vit": {},
}
"""Small timm models by name, and what they have otherwise than timm's plain one."""


def _register(name: str, settings: dict[str, Any]) -> None:
    kind = VisionTransformerDistilled if "distilled" in name else VisionTransformer

    def build(pretrained: bool = False, **given: Any) -> nn.Module:
        own = {k: v for k, v in given.items() if not k.startswith(("pretrained", "cache"))}
        return kind(**{**GEOMETRY, **settings, **own})

    build.__name__, build.__module__ = name, __name__
    if not timm.is_model(name):
        register_model(build)


for _name, _settings in MODELS.items():
    _register(_name, _settings)

EVA_MODELS = {
    "layouts_eva02_vit": "eva02_tiny_patch14_224",
    "layouts_dinov3_vit": "vit_small_patch16_dinov3",
    "layouts_pe_vit": "vit_pe_core_base_patch16_224",
}
"""The same for timm's Eva family, and the model that each is a small one of."""


def _register_eva(name: str, like: str) -> None:
    def build(pretrained: bool = False, **given: Any) -> nn.Module:
        own = {k: v for k, v in given.items() if not k.startswith(("pretrained", "cache"))}
        return timm.create_model(like, **{**GEOMETRY, **own})

    build.__name__, build.__module__ = name, __name__
    if not timm.is_model(name):
        register_model(build)


for _name, _like in EVA_MODELS.items():
    _register_eva(_name, _like)


# One network by roles


def roles(
    *,
    num_prefix: int = 1,
    bias: bool = True,
    scale: bool = False,
    pre_norm: bool = False,
    swiglu: bool = False,
    pool: bool = False,
    seed: int = 7,
) -> Roles:
    """A random network.

    Args:
        num_prefix: Tokens before the patches that have positions: CLS and distillation.
        bias: The patch embedding has one.
        scale: Branches end in a layer scale.
        pre_norm: A norm stands before the first block.
        swiglu: MLPs are gated.
        pool: A query of its own reads the tokens (SigLIP).
    """
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    def layer(out: int, into: int) -> tuple[Tensor, Tensor]:
        return some(out, into), some(out)

    def norm() -> tuple[Tensor, Tensor]:
        return 1 + some(WIDTH), some(WIDTH)

    found: Roles = {
        "patch": (some(WIDTH, 3, PATCH, PATCH), some(WIDTH) if bias else None),
        "prefix": some(num_prefix, WIDTH),
        "positions": some(num_prefix + GRID**2, WIDTH),
        "norm": norm(),
        "pre_norm": norm() if pre_norm else None,
        "blocks": [
            {
                "norm1": norm(),
                **{part: layer(WIDTH, WIDTH) for part in ("q", "k", "v", "out")},
                "norm2": norm(),
                "fc1": layer(2 * HIDDEN if swiglu else HIDDEN, WIDTH),
                "fc2": layer(WIDTH, HIDDEN),
                "scale1": some(WIDTH) if scale else None,
                "scale2": some(WIDTH) if scale else None,
            }
            for _ in range(DEPTH)
        ],
    }
    if pool:
        found["pool"] = {
            "probe": some(1, 1, WIDTH),
            **{part: layer(WIDTH, WIDTH) for part in ("q", "k", "v", "out")},
            "norm": norm(),
            "fc1": layer(HIDDEN, WIDTH),
            "fc2": layer(WIDTH, HIDDEN),
        }
    return found


def _attention(of: Tensor, over: Tensor, part: Roles) -> Tensor:
    """Multi-head attention of some tokens over others, (B, S, D)."""
    q, k, v = (
        F.linear(x, *part[name]).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for x, name in ((of, "q"), (over, "k"), (over, "v"))
    )
    weights = (q @ k.transpose(-1, -2) / math.sqrt(WIDTH / HEADS)).softmax(-1)
    return F.linear((weights @ v).transpose(1, 2).flatten(2), *part["out"])


def _act(x: Tensor, kind: str) -> Tensor:
    if kind == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    if kind == "swiglu":
        gate, value = x.chunk(2, dim=-1)
        return gate * torch.sigmoid(gate) * value
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


def features(
    net: Roles,
    x: Tensor,
    *,
    eps: float = 1e-6,
    act: str = "gelu",
    registers: Tensor | None = None,
    read: str = "cls",
) -> Tensor:
    """What the network makes of images (B, 3, side, side).

    Args:
        read: cls: the first token, normalised; both: the first two; mean: the mean of the image
            tokens, normalised after the mean; pool: by a query of its own.
    """

    def norm(y: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(y, (WIDTH,), *pair, eps=eps)

    def mlp(y: Tensor, part: Roles) -> Tensor:
        return F.linear(_act(F.linear(y, *part["fc1"]), act), *part["fc2"])

    tokens = F.conv2d(x, *net["patch"], stride=PATCH).flatten(2).transpose(1, 2)
    prefix = net["prefix"].expand(len(x), -1, -1)
    tokens = torch.cat([prefix, tokens], dim=1) + net["positions"]
    if registers is not None:  # behind CLS, without positions
        tokens = torch.cat([tokens[:, :1], registers.expand(len(x), -1, -1), tokens[:, 1:]], dim=1)
    if net["pre_norm"] is not None:
        tokens = norm(tokens, net["pre_norm"])
    for block in net["blocks"]:
        scale1, scale2 = (1.0 if block[k] is None else block[k] for k in ("scale1", "scale2"))
        inner = norm(tokens, block["norm1"])
        tokens = tokens + scale1 * _attention(inner, inner, block)
        tokens = tokens + scale2 * mlp(norm(tokens, block["norm2"]), block)
    if read == "mean":
        return norm(tokens[:, len(net["prefix"]) :].mean(1), net["norm"])
    tokens = norm(tokens, net["norm"])
    if read == "pool":
        pool = net["pool"]
        found = _attention(pool["probe"].expand(len(x), -1, -1), tokens, pool)
        return (found + mlp(norm(found, pool["norm"]), pool))[:, 0]
    return tokens[:, :2].flatten(1) if read == "both" else tokens[:, 0]


# Its tensors in the names of programs


def put(state: State, name: str, pair: Any) -> None:
    """Weight and bias under a name."""
    weight, bias = pair
    state[f"{name}.weight"] = weight
    if bias is not None:
        state[f"{name}.bias"] = bias


def joined(block: Roles) -> tuple[Tensor, Tensor]:
    """Queries, keys and values as one matrix."""
    parts = [block[part] for part in ("q", "k", "v")]
    return torch.cat([w for w, _ in parts]), torch.cat([b for _, b in parts])


def timm_names(net: Roles, *, norm: str = "norm", scale: str = "ls{}.gamma") -> State:
    """timm's names, which are MAE's, DINO's, MoCo v3's, DeiT's and DINOv2's too."""
    state: State = {"pos_embed": net["positions"][None]}
    for name, token in zip(("cls_token", "dist_token"), net["prefix"], strict=False):
        state[name] = token[None, None]
    put(state, "patch_embed.proj", net["patch"])
    if net["pre_norm"] is not None:
        put(state, "norm_pre", net["pre_norm"])
    for i, block in enumerate(net["blocks"]):
        at = f"blocks.{i}"
        put(state, f"{at}.norm1", block["norm1"])
        put(state, f"{at}.attn.qkv", joined(block))
        put(state, f"{at}.attn.proj", block["out"])
        put(state, f"{at}.norm2", block["norm2"])
        put(state, f"{at}.mlp.fc1", block["fc1"])
        put(state, f"{at}.mlp.fc2", block["fc2"])
        for n in (1, 2):
            if block[f"scale{n}"] is not None:
                state[f"{at}.{scale.format(n)}"] = block[f"scale{n}"]
    put(state, norm, net["norm"])
    return state


def hf_vit(net: Roles, prefix: str = "vit.") -> State:
    """transformers: ViT, DeiT, ViTMAE, ViTMSN."""
    state: State = {"embeddings.position_embeddings": net["positions"][None]}
    names = ("cls_token", "distillation_token")
    for name, token in zip(names, net["prefix"], strict=False):
        state[f"embeddings.{name}"] = token[None, None]
    put(state, "embeddings.patch_embeddings.projection", net["patch"])
    for i, block in enumerate(net["blocks"]):
        at = f"encoder.layer.{i}"
        put(state, f"{at}.layernorm_before", block["norm1"])
        _hf_attention(state, f"{at}.attention", block)
        put(state, f"{at}.layernorm_after", block["norm2"])
        put(state, f"{at}.intermediate.dense", block["fc1"])
        put(state, f"{at}.output.dense", block["fc2"])
    put(state, "layernorm", net["norm"])
    return {f"{prefix}{name}": value for name, value in state.items()}


def _hf_attention(state: State, at: str, block: Roles) -> None:
    for part, name in (("q", "query"), ("k", "key"), ("v", "value")):
        put(state, f"{at}.attention.{name}", block[part])
    put(state, f"{at}.output.dense", block["out"])


def vit_pytorch(net: Roles, prefix: str = "transformer.") -> State:
    """ViT-pytorch and the programs built on it: VPT, TransFG."""
    state: State = {
        "embeddings.cls_token": net["prefix"][None],
        "embeddings.position_embeddings": net["positions"][None],
    }
    put(state, "embeddings.patch_embeddings", net["patch"])
    for i, block in enumerate(net["blocks"]):
        at = f"encoder.layer.{i}"
        put(state, f"{at}.attention_norm", block["norm1"])
        for part, name in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out")):
            put(state, f"{at}.attn.{name}", block[part])
        put(state, f"{at}.ffn_norm", block["norm2"])
        put(state, f"{at}.ffn.fc1", block["fc1"])
        put(state, f"{at}.ffn.fc2", block["fc2"])
    put(state, "encoder.encoder_norm", net["norm"])
    return {f"{prefix}{name}": value for name, value in state.items()}


def hf_dinov2(net: Roles, registers: Tensor | None = None, prefix: str = "") -> State:
    """transformers: Dinov2, with and without registers, with gated MLPs."""
    state: State = {
        "embeddings.cls_token": net["prefix"][None],
        "embeddings.mask_token": torch.ones(1, WIDTH),
        "embeddings.position_embeddings": net["positions"][None],
    }
    if registers is not None:
        state["embeddings.register_tokens"] = registers[None]
    put(state, "embeddings.patch_embeddings.projection", net["patch"])
    for i, block in enumerate(net["blocks"]):
        at = f"encoder.layer.{i}"
        is_gated = len(block["fc1"][0]) != HIDDEN
        put(state, f"{at}.norm1", block["norm1"])
        _hf_attention(state, f"{at}.attention", block)
        state[f"{at}.layer_scale1.lambda1"] = block["scale1"]
        put(state, f"{at}.norm2", block["norm2"])
        put(state, f"{at}.mlp.{'weights_in' if is_gated else 'fc1'}", block["fc1"])
        put(state, f"{at}.mlp.{'weights_out' if is_gated else 'fc2'}", block["fc2"])
        state[f"{at}.layer_scale2.lambda1"] = block["scale2"]
    put(state, "layernorm", net["norm"])
    return {f"{prefix}{name}": value for name, value in state.items()}


def hf_tower(net: Roles, prefix: str = "vision_model.") -> State:
    """transformers: the picture tower of CLIP and SigLIP."""
    state: State = {
        "embeddings.position_embedding.weight": net["positions"],
        "embeddings.position_ids": torch.arange(len(net["positions"]))[None],
    }
    if len(net["prefix"]):
        state["embeddings.class_embedding"] = net["prefix"][0]
    put(state, "embeddings.patch_embedding", net["patch"])
    if net["pre_norm"] is not None:
        put(state, "pre_layrnorm", net["pre_norm"])
    for i, block in enumerate(net["blocks"]):
        at = f"encoder.layers.{i}"
        put(state, f"{at}.layer_norm1", block["norm1"])
        for part in ("q", "k", "v", "out"):
            put(state, f"{at}.self_attn.{part}_proj", block[part])
        put(state, f"{at}.layer_norm2", block["norm2"])
        put(state, f"{at}.mlp.fc1", block["fc1"])
        put(state, f"{at}.mlp.fc2", block["fc2"])
    put(state, "post_layernorm", net["norm"])
    if "pool" in net:
        pool = net["pool"]
        state["head.probe"] = pool["probe"]
        weight, bias = joined(pool)
        state |= {"head.attention.in_proj_weight": weight, "head.attention.in_proj_bias": bias}
        put(state, "head.attention.out_proj", pool["out"])
        put(state, "head.layernorm", pool["norm"])
        put(state, "head.mlp.fc1", pool["fc1"])
        put(state, "head.mlp.fc2", pool["fc2"])
    return {f"{prefix}{name}": value for name, value in state.items()}


def clip_names(net: Roles, prefix: str = "visual.") -> State:
    """OpenAI's CLIP and open_clip: the picture tower."""
    state: State = {
        "class_embedding": net["prefix"][0],
        "positional_embedding": net["positions"],
        "proj": torch.ones(WIDTH, 16),
    }
    put(state, "conv1", net["patch"])
    put(state, "ln_pre", net["pre_norm"])
    for i, block in enumerate(net["blocks"]):
        at = f"transformer.resblocks.{i}"
        weight, bias = joined(block)
        state |= {f"{at}.attn.in_proj_weight": weight, f"{at}.attn.in_proj_bias": bias}
        put(state, f"{at}.attn.out_proj", block["out"])
        put(state, f"{at}.ln_1", block["norm1"])
        put(state, f"{at}.mlp.c_fc", block["fc1"])
        put(state, f"{at}.mlp.c_proj", block["fc2"])
        put(state, f"{at}.ln_2", block["norm2"])
    put(state, "ln_post", net["norm"])
    return {f"{prefix}{name}": value for name, value in state.items()}


def clip_texts() -> State:
    """What stands beside the picture tower."""
    return {
        "positional_embedding": torch.ones(7, 16),
        "text_projection": torch.ones(16, 16),
        "logit_scale": torch.tensor(1.0),
        "token_embedding.weight": torch.ones(9, 16),
        "transformer.resblocks.0.ln_1.weight": torch.ones(16),
        "transformer.resblocks.0.attn.in_proj_weight": torch.ones(48, 16),
        "ln_final.weight": torch.ones(16),
    }


def torchvision_names(net: Roles) -> State:
    """torchvision's vit_b_16 and its like, with a head of five classes."""
    state: State = {
        "class_token": net["prefix"][None],
        "encoder.pos_embedding": net["positions"][None],
    }
    put(state, "conv_proj", net["patch"])
    for i, block in enumerate(net["blocks"]):
        at = f"encoder.layers.encoder_layer_{i}"
        put(state, f"{at}.ln_1", block["norm1"])
        weight, bias = joined(block)
        state |= {
            f"{at}.self_attention.in_proj_weight": weight,
            f"{at}.self_attention.in_proj_bias": bias,
        }
        put(state, f"{at}.self_attention.out_proj", block["out"])
        put(state, f"{at}.ln_2", block["norm2"])
        put(state, f"{at}.mlp.0", block["fc1"])
        put(state, f"{at}.mlp.3", block["fc2"])
    put(state, "encoder.ln", net["norm"])
    put(state, "heads.head", (torch.ones(5, WIDTH), torch.ones(5)))
    return state


def mm_names(net: Roles, *, norm: str = "ln1", is_segmenter: bool = False) -> State:
    """mmpretrain, mmcls and mmseg, below `backbone.`"""
    state: State = {"cls_token": net["prefix"][None], "pos_embed": net["positions"][None]}
    put(state, "patch_embed.projection", net["patch"])
    for i, block in enumerate(net["blocks"]):
        at = f"layers.{i}"
        put(state, f"{at}.ln1", block["norm1"])
        weight, bias = joined(block)
        if is_segmenter:
            state |= {f"{at}.attn.attn.in_proj_weight": weight}
            state |= {f"{at}.attn.attn.in_proj_bias": bias}
            put(state, f"{at}.attn.attn.out_proj", block["out"])
        else:
            put(state, f"{at}.attn.qkv", (weight, bias))
            put(state, f"{at}.attn.proj", block["out"])
        put(state, f"{at}.ln2", block["norm2"])
        put(state, f"{at}.ffn.layers.0.0", block["fc1"])
        put(state, f"{at}.ffn.layers.1", block["fc2"])
        if block["scale1"] is not None:
            state[f"{at}.attn.gamma1.weight"] = block["scale1"]
            state[f"{at}.ffn.gamma2.weight"] = block["scale2"]
    put(state, norm, net["norm"])
    return {f"backbone.{name}": value for name, value in state.items()}


def jax_names(net: Roles, prefix: str = "", *, is_stacked: bool = False) -> State:
    """Google's JAX programs."""
    state: State = {}

    def kernel(name: str, pair: Any, shape: tuple[int, ...], flat: tuple[int, ...]) -> None:
        weight, bias = pair
        state[f"{name}/kernel"] = weight.T.reshape(shape)
        state[f"{name}/bias"] = bias.reshape(flat)

    def attention(name: str, part: Roles) -> None:
        for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
            kernel(f"{name}/{theirs}", part[ours], (WIDTH, HEADS, -1), (HEADS, -1))
        kernel(f"{name}/out", part["out"], (HEADS, -1, WIDTH), (WIDTH,))

    def norm(name: str, pair: Any) -> None:
        state[f"{name}/scale"], state[f"{name}/bias"] = pair

    weight, bias = net["patch"]
    state |= {"embedding/kernel": weight.permute(2, 3, 1, 0), "embedding/bias": bias}
    if len(net["prefix"]):
        state["cls"] = net["prefix"][None]
        state["Transformer/posembed_input/pos_embedding"] = net["positions"][None]
    else:
        state["pos_embedding"] = net["positions"][None]
    for i, block in enumerate(net["blocks"]):
        at = f"Transformer/encoderblock_{i}"
        norm(f"{at}/LayerNorm_0", block["norm1"])
        attention(f"{at}/MultiHeadDotProductAttention_0", block)
        norm(f"{at}/LayerNorm_1", block["norm2"])
        kernel(f"{at}/MlpBlock_0/Dense_0", block["fc1"], (WIDTH, HIDDEN), (HIDDEN,))
        kernel(f"{at}/MlpBlock_0/Dense_1", block["fc2"], (HIDDEN, WIDTH), (WIDTH,))
    norm("Transformer/encoder_norm", net["norm"])
    if "pool" in net:
        pool = net["pool"]
        state["MAPHead_0/probe"] = pool["probe"]
        attention("MAPHead_0/MultiHeadDotProductAttention_0", pool)
        norm("MAPHead_0/LayerNorm_0", pool["norm"])
        kernel("MAPHead_0/MlpBlock_0/Dense_0", pool["fc1"], (WIDTH, HIDDEN), (HIDDEN,))
        kernel("MAPHead_0/MlpBlock_0/Dense_1", pool["fc2"], (HIDDEN, WIDTH), (WIDTH,))
    if is_stacked:
        for name in [name for name in state if "encoderblock_0/" in name]:
            parts = [state.pop(name.replace("_0/", f"_{i}/", 1)) for i in range(DEPTH)]
            state[name.replace("encoderblock_0", "encoderblock")] = torch.stack(parts)
    return {f"{prefix}{name}": value for name, value in state.items()}


class Tree(nn.Module):
    """Modules that hold tensors under dotted names, as those of a program do."""

    def __init__(self, state: State) -> None:
        super().__init__()
        inner: dict[str, State] = {}
        for name, value in state.items():
            first, _, rest = name.partition(".")
            if rest:
                inner.setdefault(first, {})[rest] = value
            else:
                self.register_buffer(first, value.clone())
        for first, part in inner.items():
            self.add_module(first, Tree(part))

    def forward(self, x: Tensor) -> Tensor:
        return x
