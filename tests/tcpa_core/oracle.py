"""Literal, slow forward passes of VPT, VFPT, TCPA and CVPT for one trial, with loops over tokens.

Prompts are ordinary tokens of the sequence, masks are built entry by entry, whole attention maps
are kept. Nothing here is shared with the implementation but timm's own layers.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import MemberState, Step
from tcpa_core.model.backbone import Backbone
from tests.tcpa_core import chance


@dataclass
class Result:
    """What a pass computes; tokens are (B, S, D)."""

    logits: Tensor
    penalty: Tensor
    blocks: list[Tensor]
    prompts: list[Tensor]
    masks: list[Tensor] = field(default_factory=list)
    groups: list[dict[str, list[list[list[int]]]]] = field(default_factory=list)


def run(
    backbone: Backbone, config: TrialConfig, state: MemberState, images: Tensor, step: Step
) -> Result:
    """One pass of one member over images (B, 3, height, width)."""
    vit = backbone.vit
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
    result = RUN_BLOCKS[config.methods[-1]](backbone, config, state, x, step)
    tokens = vit.norm(result.blocks[-1])
    if backbone.layout.has_dist:
        first = tokens[:, 0] @ state["head.weight"].T + state["head.bias"]
        second = tokens[:, 1] @ state["head_dist.weight"].T + state["head_dist.bias"]
        result.logits = (first + second) / 2
    else:
        settings = config.method_settings[config.methods[-1]]
        if getattr(settings, "pool_prompts", False):
            seen = [tokens[:, backbone.layout.num_prefix :], vit.norm(result.prompts[-1])]
            features = vit.fc_norm(torch.cat(seen, dim=1).mean(1))
        else:
            features = vit.forward_head(tokens, pre_logits=True)
        result.logits = features @ state["head.weight"].T + state["head.bias"]
    return result


def attention(
    block: nn.Module, z: Tensor, mask: Tensor | None = None, mode: str = "post"
) -> Tensor:
    """Multi-head self-attention of normalised tokens (B, U, D) with a 0/1 mask (B, U, U)."""
    attn = block.attn
    batch, length, _ = z.shape
    qkv = attn.qkv(z).reshape(batch, length, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = attn.q_norm(qkv[0]), attn.k_norm(qkv[1]), qkv[2]
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None and mode == "pre":
        scores = scores + mask.log()[:, None]
    weights = softmax_rows(scores)
    if mask is not None and mode == "post":
        weights = weights * mask[:, None]
    mixed = (weights @ v).transpose(1, 2).reshape(batch, length, -1)
    return attn.proj(attn.norm(mixed))


def softmax_rows(scores: Tensor) -> Tensor:
    """Attention (B, H, U, U) before a "post" mask; tests that look at it listen here."""
    return scores.softmax(-1)


def _block(block: nn.Module, z: Tensor) -> Tensor:
    z = z + block.ls1(attention(block, block.norm1(z)))
    return z + block.ls2(block.mlp(block.norm2(z)))


def _empty(x: Tensor) -> Result:
    return Result(x, x.new_zeros(()), [], [])


def _linear(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Result:
    result = _empty(x)
    for block in backbone.blocks:
        x = _block(block, x)
        result.blocks.append(x)
    return result


def _drop(prompts: Tensor, rate: float, batch: int, step: Step, name: str, layer: int) -> Tensor:
    """Prompts (P, D) to (B, P, D), with dropout from the trial's stream in training."""
    expanded = prompts.expand(batch, *prompts.shape)
    if not step.training or rate == 0:
        return expanded
    return expanded * chance.prompt_dropout(tuple(expanded.shape), rate, step, name, layer)


def fourier(config: TrialConfig, prompts: Tensor, layer: int, depth: int) -> Tensor:
    """Prompts (B, P, D) of a block as VFPT, if it is in the chain, changes them."""
    if "vfpt" not in config.methods:
        return prompts
    settings = config.method_settings["vfpt"]
    chosen = {
        "all": True,
        "former": layer < depth / 2,
        "later": layer >= depth / 2,
        "mixed": layer % 2 == 0,
    }
    fraction = settings.fraction
    if fraction is None:
        fraction = 1.0 if "tcpa" in config.methods else 0.5
    count = int(prompts.shape[1] * fraction)
    if not chosen[settings.layers] or count == 0:
        return prompts
    first = prompts[:, :count].to(torch.complex128)
    if settings.dims != "hidden":
        first = dft(count) @ first
    if settings.dims != "sequence":
        first = first @ dft(prompts.shape[2])
    groups = [first.real.to(prompts.dtype), prompts[:, count:]]
    return torch.cat(groups if settings.location == "prepend" else groups[::-1], dim=1)


def dft(size: int) -> Tensor:
    """Matrix of the unnormalised discrete Fourier transform."""
    order = torch.arange(size, dtype=torch.float64)
    return torch.exp(-2j * torch.pi * torch.outer(order, order) / size)


def _vpt(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Result:
    (method,) = config.methods
    settings, depth = config.method_settings[method], backbone.layout.depth
    prefix, result = backbone.layout.num_prefix, _empty(x)
    prompts = x.new_zeros(len(x), 0, x.shape[-1])
    for layer, block in enumerate(backbone.blocks):
        if settings.num_prompts and (settings.deep or layer == 0):
            raw = state[f"{method}.prompts"]
            raw = raw[layer] if settings.deep else raw
            if settings.project_dim:
                weight, bias = (state[f"{method}.project_{kind}"] for kind in ("weight", "bias"))
                raw = raw @ weight.T + bias
            rate = settings.prompt_dropout
            prompts = _drop(raw, rate, len(x), step, f"{method}.prompt_dropout", layer)
            prompts = fourier(config, prompts, layer, depth)
        z = _block(block, torch.cat([x[:, :prefix], prompts, x[:, prefix:]], dim=1))
        size = prompts.shape[1]
        prompts = z[:, prefix : prefix + size]
        x = torch.cat([z[:, :prefix], z[:, prefix + size :]], dim=1)
        result.prompts.append(prompts)
        result.blocks.append(x)
    return result


def roles(backbone: Backbone, config: TrialConfig, length: int) -> list[str]:
    """Role of every token of the sequence."""
    settings, layout = config.method_settings["tcpa"], backbone.layout
    out = []
    for t in range(length):
        if t == 0 and layout.has_cls:
            out.append("cls")
        elif t == 1 and layout.has_dist:
            out.append(settings.dist_role)
        elif t < layout.num_prefix:
            out.append(settings.register_role)
        else:
            out.append("image")
    return out


def _tcpa(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Result:
    settings = config.method_settings["tcpa"]
    prefix, result = backbone.layout.num_prefix, _empty(x)
    token_roles = roles(backbone, config, x.shape[1])
    lengths = {
        "cls": settings.prompt_length,
        "image": settings.image_prompt_length or settings.prompt_length,
    }
    sizes = {"cls": settings.num_cls_prompts, "image": settings.num_image_prompts}
    pools = [role for role in ("cls", "image") if sizes[role]]
    for layer, block in enumerate(backbone.blocks):
        if not pools:
            x = _block(block, x)
            result.blocks.append(x)
            continue
        raw = torch.cat([state[f"tcpa.{r}_prompts"][layer].flatten(0, 1) for r in pools])
        rate = settings.prompt_dropout
        prompts = _drop(raw, rate, len(x), step, "tcpa.prompt_dropout", layer)
        counts = [sizes[r] * lengths[r] for r in pools]
        scopes = [sum(counts)] if settings.fourier_scope == "joint" else counts
        prompts = torch.cat(
            [fourier(config, p, layer, len(backbone.blocks)) for p in prompts.split(scopes, dim=1)],
            dim=1,
        )
        owners = [(r, g) for r in pools for g in range(sizes[r]) for _ in range(lengths[r])]
        keys = {}
        if settings.match_tokens:
            keys = {r: state[f"tcpa.{r}_keys"][layer] for r in pools}
        matched = x if settings.match_input == "raw" else block.norm1(x)
        if settings.detach_tokens:
            matched = matched.detach()
        random_scores = _random_scores(config, sizes, token_roles, len(x), step, layer, x.dtype)
        chosen, penalty = _choose(settings, matched, keys, token_roles, random_scores)
        result.penalty = result.penalty + penalty
        result.groups.append(chosen)
        mask = _mask(settings, chosen, token_roles, owners, prefix, len(x)).to(x.dtype)
        z = torch.cat([x[:, :prefix], prompts, x[:, prefix:]], dim=1)
        y = attention(block, block.norm1(z), mask, settings.mask_mode)
        y = torch.cat([y[:, :prefix], y[:, prefix + len(owners) :]], dim=1)
        x = x + block.ls1(y)
        x = x + block.ls2(block.mlp(block.norm2(x)))
        result.masks.append(mask)
        result.blocks.append(x)
    return result


def _random_scores(config, sizes, token_roles, batch, step, layer, dtype):  # type: ignore[no-untyped-def]
    """Scores (B, T, G) per role while selection is random, else {}."""
    settings = config.method_settings["tcpa"]
    limit = settings.random_epochs
    if limit is None:
        limit = min(10, config.train.epochs // 10)
    if not (step.training and step.epochs[0] < limit):
        return {}
    scores = {}
    for role in dict.fromkeys(token_roles):
        tokens = token_roles.count(role)
        rows = torch.arange(batch * tokens).view(batch, tokens)
        pools = [role] if settings.split_roles else list(sizes)
        drawn = [
            chance.numbers(step, f"tcpa.random_{role}_groups.{pool}", layer, rows, sizes[pool])
            for pool in pools
            if pool in sizes
        ]
        scores[role] = torch.cat(drawn, dim=-1).to(dtype)
    return scores


def _choose(settings, x, keys, token_roles, random_scores):  # type: ignore[no-untyped-def]
    """Chosen groups per sample and token, as sets of (pool, group), and the weighted loss."""
    chosen = [[None] * len(token_roles) for _ in x]
    losses: dict[str, list[Tensor]] = {"cls": [], "image": [], "none": []}
    for b in range(len(x)):
        for t, role in enumerate(token_roles):
            own = [r for r in keys if r == role or not settings.split_roles]
            if not own:
                continue
            table = torch.cat([keys[r] for r in own])
            cosines = (table @ x[b, t]) / (table.norm(dim=1) * x[b, t].norm())
            order = cosines if settings.select == "similarity" else -cosines
            if random_scores:
                order = random_scores[role][b, token_roles[:t].count(role)]
            by_role = settings.split_roles and role == "cls"
            count = settings.top_k_cls if by_role else settings.top_k_image
            best = order.argsort(descending=True)[:count].tolist()
            names = [(r, g) for r in own for g in range(len(keys[r]))]
            chosen[b][t] = {names[i] for i in best}
            losses[role].append((1 - cosines[best]).sum() / len(x) / _share(settings, count))
    return chosen, _weigh(settings, losses, token_roles, x)


def _weigh(settings, losses, token_roles, x):  # type: ignore[no-untyped-def]
    penalty = x.new_zeros(())
    for role in ("cls", "image"):
        if losses[role]:
            shared = role == "cls" or settings.lambda_shared
            weight = settings.lambda_cls if shared else settings.lambda_image
            total = torch.stack(losses[role]).sum()
            if settings.loss_reduction != "sum":
                total = total / token_roles.count(role)
            penalty = penalty + weight * total
    return penalty


def _share(settings, count):  # type: ignore[no-untyped-def]
    return 1 if settings.loss_reduction == "sum" else count


def _mask(settings, chosen, token_roles, owners, prefix, batch):  # type: ignore[no-untyped-def]
    """0/1 mask (B, U, U) over prefix tokens, prompts, image tokens; prompt rows are all 1."""
    width = len(token_roles) + len(owners)
    mask = torch.ones(batch, width, width)
    for b in range(batch):
        for t, role in enumerate(token_roles):
            row = t if t < prefix else t + len(owners)
            for column, (pool, group) in enumerate(owners):
                allowed = pool == role or not settings.split_roles
                if chosen[b][t] is not None:
                    allowed = allowed and (pool, group) in chosen[b][t]
                mask[b, row, prefix + column] = float(allowed)
    return mask


def _cvpt(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Result:
    settings, result = config.method_settings["cvpt"], _empty(x)
    for layer, block in enumerate(backbone.blocks):

        def cross(u: Tensor, layer: int = layer, block: nn.Module = block) -> Tensor:
            if settings.num_prompts == 0:
                return torch.zeros_like(u)
            raw, rate = state["cvpt.prompts"][layer], settings.prompt_dropout
            prompts = _drop(raw, rate, len(u), step, "cvpt.prompt_dropout", layer)
            return _cross(settings, block, layer, state, u, prompts)

        p = settings.position
        x = x + cross(x) if p == 1 else x
        entered = x
        x = x + block.ls1(attention(block, block.norm1(x)))
        x = x + cross(entered) if p == 2 else x + cross(x) if p == 3 else x
        hidden = block.norm2(x) + cross(x) if p == 4 else block.norm2(x)
        x = x + block.ls2(block.mlp(hidden))
        x = x + cross(x) if p == 5 else x
        result.blocks.append(x)
    return result


def _cross(settings, block, layer, state, u, prompts):  # type: ignore[no-untyped-def]
    attn = block.attn
    w_qkv, b_qkv = attn.qkv.weight, attn.qkv.bias
    w_o, b_o = attn.proj.weight, attn.proj.bias
    if settings.weights != "shared_frozen":
        w_qkv, b_qkv, w_o, b_o = (
            state[f"cvpt.{name}"][layer]
            for name in ("qkv_weight", "qkv_bias", "proj_weight", "proj_bias")
        )
    u = u if settings.ca_norm == "none" else block.norm1(u)
    prompts = block.norm1(prompts) if settings.ca_norm == "both" else prompts
    (w_q, w_k, w_v), (b_q, b_k, b_v) = w_qkv.chunk(3), b_qkv.chunk(3)

    def split(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return (z @ weight.T + bias).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)

    q, k = attn.q_norm(split(u, w_q, b_q)), attn.k_norm(split(prompts, w_k, b_k))
    v = split(prompts, w_v, b_v)
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2) @ w_o.T + b_o


RUN_BLOCKS = {"linear": _linear, "vpt": _vpt, "vfpt": _vpt, "tcpa": _tcpa, "cvpt": _cvpt}
"""By the last method of the chain."""
