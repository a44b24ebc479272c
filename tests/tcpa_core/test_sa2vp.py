"""SA²VP: both branches, the neighbourhood, the loss (methods.md, 11 and 16)."""

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ShapeError
from tcpa_core.methods.base import MemberState, Step
from tcpa_core.model import pack_model
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import PackModel
from tcpa_core.training.loss import classification_loss
from tests.tcpa_core import chance, checks
from tests.tcpa_core.checks import close
from tests.tcpa_core.tiny import GEOMETRY, KINDS, NUM_CLASSES, images, tiny_backbone, trial

EVAL = Step.evaluation(1)


def sa2vp(seed: int = 0, **settings: Any) -> TrialConfig:
    return trial(["sa2vp"], seed=seed, **{f"sa2vp__{k}": v for k, v in settings.items()})


def deep_backbone(depth: int, grid: tuple[int, int] = (3, 5)) -> Backbone:
    """Random, with image tokens that do not lie in a square."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        size = (grid[0] * 8, grid[1] * 8)
        vit = VisionTransformer(**{**GEOMETRY, "depth": depth, "img_size": size, "reg_tokens": 1})
        for parameter in vit.parameters():
            parameter.data += 0.15 * torch.randn_like(parameter)
    return Backbone(vit, fingerprint="deep").double()


def literal(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Tensor:
    """Both branches side by side, sample by sample and token by token in the cross blocks."""
    settings, vit, layout = config.method_settings["sa2vp"], backbone.vit, backbone.layout
    own = {k.removeprefix("sa2vp."): v for k, v in state.items() if k.startswith("sa2vp.")}
    depth = layout.depth
    base = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(x))))
    zeros = torch.zeros(1, layout.num_image, layout.embed_dim, dtype=x.dtype)
    if vit.dynamic_img_size:
        zeros = zeros.unflatten(1, layout.grid)
    position = vit._pos_embed(zeros)
    for name in ("cls_token", "dist_token", "reg_token"):  # the positions alone
        token = getattr(vit, name, None)
        if token is not None:
            first = {"cls_token": 0, "dist_token": 1, "reg_token": 1}[name]
            position[:, first : first + token.shape[1]] -= token
    maps = [
        own["map_codes"][f] @ own["map_weight"][f].T + own["map_bias"][f]
        for f in range(len(own["map_codes"]))
    ]
    prompt = (maps[0] + position).expand(len(x), -1, -1)
    stride = max(2, (depth + 2) // 3)
    for layer, block in enumerate(vit.blocks):
        is_turn = layer % stride == 0
        query, other = (prompt, base) if is_turn else (base, prompt)
        if layer == depth - 1:  # only what the head reads is computed, and drawn for
            query = query[:, : backbone.rows_read]
        read = _cross(settings, layout, own, layer, block, query, other, step)
        rows = query.shape[1]
        base, prompt = block(base)[:, :rows], block(prompt)[:, :rows]
        if is_turn and layer:
            extra = block(maps[layer // stride][None])[:, :rows]
            prompt = prompt + own["map_scale"][layer // stride - 1] * extra
        if is_turn:
            prompt = prompt + settings.inter_weight * read
        else:
            base = base + settings.inter_weight * read
    logits = [_logits(backbone, state, tokens) for tokens in (base, prompt)]
    return checks.loss_of(logits[0], [(0.2, logits[1])])


def _cross(settings, layout, own, layer, block, query, other, step):  # type: ignore[no-untyped-def]
    attn, prefix = block.attn, layout.num_prefix
    height, width = layout.grid
    q = attn.qkv(block.norm1(query)).chunk(3, dim=-1)[0].unflatten(-1, (attn.num_heads, -1))
    k, v = (
        t.unflatten(-1, (attn.num_heads, -1))
        for t in attn.qkv(block.norm1(other)).chunk(3, dim=-1)[1:]
    )
    q, k = attn.q_norm(q), attn.k_norm(k)
    rows = []
    for t in range(query.shape[1]):
        if t < prefix:
            seen = list(range(other.shape[1]))
        else:
            y, x = divmod(t - prefix, width)
            seen = [
                prefix + i * width + j
                for i in range(y - 1, y + 2)
                for j in range(x - 1, x + 2)
                if 0 <= i < height and 0 <= j < width
            ]
        scores = torch.einsum("bhe,bshe->bhs", q[:, t], k[:, seen]) / q.shape[-1] ** 0.5
        rows.append(torch.einsum("bhs,bshe->bhe", scores.softmax(-1), v[:, seen]).flatten(1))
    read = attn.proj(attn.norm(torch.stack(rows, dim=1)))
    read = _drop(read, settings.dropout, step, "sa2vp.cross_dropout", layer) + query
    mean, variance = read.mean(-1, keepdim=True), read.var(-1, correction=0, keepdim=True)
    normal = (read - mean) / (variance + block.norm1.eps).sqrt()
    normal = normal * own["norm_weight"][layer] + own["norm_bias"][layer]
    hidden = normal @ own["down_weight"][layer].T + own["down_bias"][layer]
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    hidden = _drop(hidden, settings.dropout, step, "sa2vp.mlp_dropout", layer)
    out = hidden @ own["up_weight"][layer].T + own["up_bias"][layer]
    return _drop(out, settings.dropout, step, "sa2vp.output_dropout", layer)


def _drop(x: Tensor, rate: float, step: Step, name: str, layer: int) -> Tensor:
    if not step.training or rate == 0:
        return x
    return x * chance.dropout(tuple(x.shape), rate, step, name, layer)


def _logits(backbone: Backbone, state: MemberState, tokens: Tensor) -> Tensor:
    vit = backbone.vit
    tokens = vit.norm(tokens)
    is_distilled = backbone.layout.has_dist
    features = [tokens[:, 0], tokens[:, 1]] if is_distilled else [vit.forward_head(tokens, True)]
    return torch.stack(
        [
            f @ state[f"{name}.weight"].T + state[f"{name}.bias"]
            for f, name in zip(features, ("head", "head_dist"), strict=False)
        ]
    ).mean(0)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_gradients_equal_the_literal_reference(kind: str, mode: str) -> None:
    checks.equals_literal(kind, sa2vp(inner_dim=3, inter_weight=0.7), mode, literal)


@pytest.mark.parametrize("depth", [3, 7])
def test_deeper_backbones_with_grids_that_are_not_square(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In block 3 and 6 of seven a fresh map joins; the last block may be one of them."""
    backbone = deep_backbone(depth)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 2, 3, 24, 40, generator=generator).double()
    monkeypatch.setattr(checks, "tiny_backbone", lambda kind: backbone)
    monkeypatch.setattr(checks, "images", lambda backbone, **sizes: pixels)
    monkeypatch.setattr(pack_model, "check_images", lambda *_: None)
    checks.equals_literal("", sa2vp(inner_dim=2, inter_weight=0.5), "train", literal)


def test_members_equal_their_solo_runs() -> None:
    configs = [
        sa2vp(m, inner_dim=2 + 3 * m, inter_weight=0.5 * m, dropout=0.2 * m) for m in range(3)
    ]
    for mode in ("eval", "train"):
        checks.members_equal_solo(configs, "registers", mode)


@pytest.mark.parametrize("kind", KINDS)
def test_without_maps_it_is_the_backbone_and_head_to_the_bit(kind: str) -> None:
    checks.is_backbone_and_head(sa2vp(inner_dim=0), kind)


def test_without_weight_the_base_branch_is_the_backbone() -> None:
    backbone, x = tiny_backbone(), images(tiny_backbone())
    config = sa2vp(inter_weight=0.0)
    state = init_member_state(backbone, config, NUM_CLASSES)
    head = {k: v for k, v in state.items() if k.startswith("head")}
    plain = PackModel(backbone, [trial(["linear"])], NUM_CLASSES, [head])(x, EVAL)
    ours = PackModel(backbone, [config], NUM_CLASSES, [state])(x, EVAL)
    close(ours.logits, plain.logits)
    ((share, side),) = ours.side_logits
    assert share == 0.2 and (side - plain.logits).abs().max() > 1e-3


def test_the_loss_has_a_fifth_of_the_prompt_branch() -> None:
    pack = PackModel(tiny_backbone(), [sa2vp()], NUM_CLASSES)
    output = pack(images(pack.backbone), EVAL)
    labels = torch.tensor([0, 1, 2])
    targets = torch.nn.functional.one_hot(labels, NUM_CLASSES)[None].float()
    base, prompt = (
        torch.nn.functional.cross_entropy(logits[0].float(), labels)
        for logits in (output.logits, output.side_logits[0][1])
    )
    torch.testing.assert_close(classification_loss(output, targets)[0], 0.8 * base + 0.2 * prompt)


@pytest.mark.parametrize(
    ("inner", "count"), [(8, 202_200), (16, 372_912), (32, 714_336), (64, 1_397_184)]
)
def test_counts_are_the_published(inner: int, count: int) -> None:
    assert checks.count_without_head(sa2vp(inner_dim=inner)) == count


def test_prediction_and_evaluation_are_repeatable() -> None:
    pack = PackModel(tiny_backbone(), [sa2vp()], NUM_CLASSES)
    x = images(pack.backbone)
    assert torch.equal(pack(x, EVAL).logits, pack(x, EVAL).logits)


def test_images_of_another_size() -> None:
    pack = PackModel(tiny_backbone("dynamic"), [sa2vp()], NUM_CLASSES)
    with pytest.raises(ShapeError, match=r"sa2vp has 37 prompts, .* got images of 17 tokens"):
        pack(torch.zeros(1, 1, 3, 32, 32, dtype=torch.float64), EVAL)


def test_flops_are_those_that_torch_counts() -> None:
    """But for the head's second use, of which a method does not know the size."""
    assert checks.uncounted_flops(sa2vp()) == 2 * 32 * NUM_CLASSES
