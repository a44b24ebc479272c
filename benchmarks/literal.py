"""Training steps written the way the published programs are: the baseline of `benchmarks.step`.

Prompts are tokens like all others: every one is a query, goes through the output projection and the
MLP, and is thrown away behind its block. Masks are expanded to every head, attention maps are kept,
every token of the last block is computed, and prompts are projected for every sample. Fused
attention is used where the method allows it (VPT), since the libraries do so by themselves.
"""

# Axes: B samples, S real tokens, P prompts, D width, H heads, U = S + P.

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tcpa_core.model.backbone import Backbone

State = dict[str, Tensor]
Forward = Callable[[Backbone, Any, State, Tensor], tuple[Tensor, Tensor]]
"""(backbone, settings, state, images) -> logits (B, C) and the weighted extra loss."""


def vpt(backbone: Backbone, settings: Any, state: State, images: Tensor) -> tuple[Tensor, Tensor]:
    """VPT-deep (KMnP/vpt): explicit softmax over all tokens and prompts."""
    x, prefix = backbone.embed(images), backbone.layout.num_prefix
    for block, prompts in zip(backbone.blocks, state["vpt.prompts"], strict=True):
        size = len(prompts)
        z = _insert(x, F.dropout(prompts.expand(len(x), -1, -1), settings.prompt_dropout), prefix)
        z = z + block.ls1(_attention(block, block.norm1(z), None))
        z = z + block.ls2(block.mlp(block.norm2(z)))
        x = _remove(z, size, prefix)
    return _logits(backbone, state, x), x.new_zeros(())


def tcpa(backbone: Backbone, settings: Any, state: State, images: Tensor) -> tuple[Tensor, Tensor]:
    """TCPA with both parts on (ICML2025-TCPA): one mask per head over the whole attention map."""
    x, prefix = backbone.embed(images), backbone.layout.num_prefix
    penalty = x.new_zeros(())
    for layer, block in enumerate(backbone.blocks):
        pools = [state[f"tcpa.{role}_prompts"][layer].flatten(0, 1) for role in ("cls", "image")]
        prompts = torch.cat(pools).expand(len(x), -1, -1)
        masks, losses = zip(
            _match(x[:, :prefix], state["tcpa.cls_keys"][layer], settings.top_k_cls),
            _match(x[:, prefix:], state["tcpa.image_keys"][layer], settings.top_k_image),
            strict=True,
        )
        penalty = penalty + settings.lambda_cls * losses[0] + settings.lambda_image * losses[1]
        mask = _full_mask(masks, prompts.shape[1], prefix)
        z = _insert(x, F.dropout(prompts, settings.prompt_dropout), prefix)
        z = z + block.ls1(_attention(block, block.norm1(z), mask))
        z = z + block.ls2(block.mlp(block.norm2(z)))
        x = _remove(z, prompts.shape[1], prefix)
    return _logits(backbone, state, x), penalty


def cvpt(backbone: Backbone, settings: Any, state: State, images: Tensor) -> tuple[Tensor, Tensor]:
    """CVPT, third position (CVPT): cross attention with per-sample prompts and full projections."""
    x = backbone.embed(images)
    for block, prompts in zip(backbone.blocks, state["cvpt.prompts"], strict=True):
        x = x + block.ls1(_fused(block, block.norm1(x), block.norm1(x)))
        kv = F.dropout(prompts.expand(len(x), -1, -1), settings.prompt_dropout)
        x = x + _fused(block, x, kv)
        x = x + block.ls2(block.mlp(block.norm2(x)))
    return _logits(backbone, state, x), x.new_zeros(())


METHODS: dict[str, Forward] = {"vpt": vpt, "tcpa": tcpa, "cvpt": cvpt}


def _insert(x: Tensor, prompts: Tensor, prefix: int) -> Tensor:
    return torch.cat([x[:, :prefix], prompts, x[:, prefix:]], dim=1)


def _remove(z: Tensor, size: int, prefix: int) -> Tensor:
    return torch.cat([z[:, :prefix], z[:, prefix + size :]], dim=1)


def _match(tokens: Tensor, keys: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """0/1 choice (B, S, G) of each token, and the mean distance to what it chose."""
    cosines = F.normalize(tokens, dim=-1) @ F.normalize(keys, dim=-1).mT
    best = cosines.topk(top_k, dim=-1).indices
    chosen = torch.zeros_like(cosines).scatter(-1, best, 1.0)
    return chosen.detach(), (1 - cosines.gather(-1, best)).mean()


def _full_mask(masks: tuple[Tensor, ...], size: int, prefix: int) -> Tensor:
    """(B, U, U): image rows use no CLS prompt, CLS rows no image prompt, prompts all."""
    on_cls, on_image = masks
    batch, length = len(on_cls), size + on_cls.shape[1] + on_image.shape[1]
    mask = on_cls.new_ones(batch, length, length)
    middle = prefix + on_cls.shape[-1]
    mask[:, :prefix, prefix:middle] = on_cls
    mask[:, :prefix, middle : prefix + size] = 0
    mask[:, prefix + size :, prefix:middle] = 0
    mask[:, prefix + size :, middle : prefix + size] = on_image
    return mask


def _attention(block: nn.Module, z: Tensor, mask: Tensor | None) -> Tensor:
    attn = block.attn
    batch, length, _ = z.shape
    qkv = attn.qkv(z).reshape(batch, length, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    weights = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1)
    if mask is not None:
        weights = weights * mask[:, None].repeat(1, attn.num_heads, 1, 1)
    return attn.proj((weights @ v).transpose(1, 2).reshape(batch, length, -1))


def _fused(block: nn.Module, queries: Tensor, others: Tensor) -> Tensor:
    """Attention of tokens to tokens or prompts through the block's projections."""
    attn = block.attn
    width = attn.qkv.weight.shape[0] // 3
    q, k, v = (
        F.linear(
            source,
            attn.qkv.weight[i * width : (i + 1) * width],
            attn.qkv.bias[i * width : (i + 1) * width],
        )
        .unflatten(-1, (attn.num_heads, -1))
        .transpose(1, 2)
        for i, source in enumerate((queries, others, others))
    )
    out = F.scaled_dot_product_attention(q, k, v)
    return attn.proj(out.transpose(1, 2).flatten(2))


def _logits(backbone: Backbone, state: State, tokens: Tensor) -> Tensor:
    return F.linear(backbone.read(tokens), state["head.weight"], state["head.bias"])
