"""timm's Eva family (EVA-02, DINOv3, Perception Encoder, ...) as a frozen backbone.

References run timm's own forward pass; what methods add is put into it from outside: prompts among
the tokens that timm does not rotate, or as further keys and values of its attention.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError, ShapeError
from tcpa_core.methods import ssf
from tcpa_core.methods.base import Step
from tcpa_core.model.attention import PromptKeys
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.blocks import compiled_blocks, plain_block
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.pack_model import PackModel
from tcpa_core.settings import DataConfig
from tcpa_core.training.costs import SAMPLES, training_costs
from tcpa_core.training.estimate import memory
from tests.tcpa_core import checks
from tests.tcpa_core.test_methods_contract import CHAINS, ZERO, build, carries, small
from tests.tcpa_core.tiny import (
    FAMILIES,
    NUM_CLASSES,
    VARIANTS,
    images,
    tiny_backbone,
    tiny_vit,
    training_step,
    trial,
)

ALL = (*FAMILIES, *VARIANTS)
EVAL = Step.evaluation(1)
COLUMNS = ("dinov3", "dinov3_plus", "eva02", "pe", "rope_mixed")
"""Of the table in docs/backbones.md."""
TOKEN_METHODS = ("tcpa", "vpt", "vfpt", "e2vpt", "gated", "cvpt", "sa2vp", "lora", "adapter")
Literal = Callable[[Any, dict[str, Tensor], Tensor], Tensor]
"""Features (B, F) of timm's network, tensors of a trial by short name, and images."""


@pytest.mark.parametrize("kind", ALL)
def test_with_nothing_added_it_is_timm_to_the_bit(kind: str) -> None:
    vit = tiny_vit(kind).eval()
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = vit(x)
    backbone = Backbone(vit)
    for name in TOKEN_METHODS:
        pack = build(backbone, [trial([name], **ZERO[name])])
        features, _ = pack.forward_features(x[None], EVAL)
        assert torch.equal(features[0], expected), name
        assert pack.features_are_frozen, name


@pytest.mark.parametrize("kind", ["dinov3", "rope_mixed"])
def test_images_of_another_size_have_their_own_places(kind: str) -> None:
    vit = tiny_vit(kind).eval()
    generator = torch.Generator().manual_seed(0)
    wide, own = (torch.randn(2, 3, *s, generator=generator) for s in ((24, 40), (32, 32)))
    expected = [vit(x) for x in (wide, own)]
    backbone = Backbone(vit)
    pack = build(backbone, [trial(["vpt"], **ZERO["vpt"])])
    for x, features in zip((wide, own), expected, strict=True):
        assert torch.equal(pack.forward_features(x[None], EVAL)[0][0], features)
    prompted = build(backbone, [trial(["vpt"], vpt__deep=False, vpt__num_prompts=2)])
    assert prompted(wide[None], EVAL).logits.isfinite().all()


@pytest.mark.parametrize("kind", ALL)
def test_a_block_taken_apart_is_timms(kind: str) -> None:
    backbone = tiny_backbone(kind)
    tokens = backbone.embed(images(backbone)[0])[None]
    for block in backbone.blocks:
        exists = torch.ones(1, tokens.shape[2], dtype=torch.bool)
        checks.close(plain_block(block, tokens, exists_MS=exists), plain_block(block, tokens))
        checks.close(plain_block(block, tokens, rows=2), plain_block(block, tokens)[:, :, :2])


class _MoreKeys(TorchFunctionMode):
    """Adds keys and values to timm's own attention; weights of those that are not used are set to
    0 behind the softmax."""

    def __init__(self, keys: Tensor, values: Tensor, used_BSP: Tensor | None = None) -> None:
        super().__init__()
        self._keys, self._values, self._used = keys, values, used_BSP

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = args
        more = (t.expand(len(q), -1, -1, -1) for t in (self._keys, self._values))
        k, v = (torch.cat(pair, dim=2) for pair in zip((k, v), more, strict=True))
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        if self._used is not None:
            seen = torch.ones(*self._used.shape[:2], v.shape[2] - self._used.shape[2])
            weights = weights * torch.cat([seen.bool(), self._used], dim=2)[:, None]
        return weights @ v


class _Heard(TorchFunctionMode):
    """Keeps queries, keys and values of timm's own attention."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is F.scaled_dot_product_attention:
            self.qkv = args
        return func(*args, **(kwargs or {}))


def _as_keys(block: Any, prompts_PD: Tensor) -> tuple[Tensor, Tensor]:
    """What timm's own attention makes of prompts without places."""
    with _Heard() as heard:
        block.attn(block.norm1(prompts_PD[None]))
    return heard.qkv[1], heard.qkv[2]


def _entering(vit: Any, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    """Tokens before the first block, and each block's rotations."""
    tokens, rope = vit._pos_embed(vit.patch_embed(x))
    ropes = list(rope) if vit.rope_mixed else [rope] * len(vit.blocks)
    return vit.norm_pre(tokens), ropes


def _read(vit: Any, tokens: Tensor) -> Tensor:
    return vit.forward_head(vit.norm(tokens), pre_logits=True)


def _vpt(vit: Any, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Prompts behind the prefix, as further tokens that timm takes for prefix."""
    tokens, ropes = _entering(vit, x)
    prefix, count = vit.num_prefix_tokens, state["prompts"].shape[-2]
    deep = state["prompts"].ndim == 3
    for i, (block, rope) in enumerate(zip(vit.blocks, ropes, strict=True)):
        prompts = state["prompts"][i] if deep else state["prompts"]
        if deep or i == 0:
            rest = tokens[:, prefix:]
            tokens = torch.cat([tokens[:, :prefix], prompts.expand(len(x), -1, -1), rest], dim=1)
        block.attn.num_prefix_tokens = prefix + count
        tokens = block(tokens, rope=rope)
        block.attn.num_prefix_tokens = prefix
        if deep:
            tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix + count :]], dim=1)
    if not deep:
        tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix + count :]], dim=1)
    return _read(vit, tokens)


def _tcpa(vit: Any, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Prefix tokens use the 2 most similar of the CLS prompts, image tokens 3 of theirs."""
    tokens, ropes = _entering(vit, x)
    prefix = vit.num_prefix_tokens
    for i, (block, rope) in enumerate(zip(vit.blocks, ropes, strict=True)):
        pools = [state[f"{role}_prompts"][i, :, 0] for role in ("cls", "image")]
        used = torch.zeros(*tokens.shape[:2], sum(len(pool) for pool in pools), dtype=torch.bool)
        spans = ((slice(0, prefix), 0, 2, "cls"), (slice(prefix, None), len(pools[0]), 3, "image"))
        for span, first, k, role in spans:
            keys = F.normalize(state[f"{role}_keys"][i], dim=-1)
            best = (F.normalize(tokens[:, span], dim=-1) @ keys.mT).topk(k, dim=-1).indices
            used[:, span].scatter_(-1, best + first, True)
        with _MoreKeys(*_as_keys(block, torch.cat(pools)), used):
            tokens = block(tokens, rope=rope)
    return _read(vit, tokens)


def _cvpt(vit: Any, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Between the branches of a block tokens read the prompts, both without norm and places."""
    tokens, ropes = _entering(vit, x)
    for i, (block, rope) in enumerate(zip(vit.blocks, ropes, strict=True)):
        entered, mlp = tokens, block.mlp
        block.mlp = torch.nn.Identity()
        kept: list[Tensor] = []

        def keep(_: Any, args: tuple[Tensor], kept: list[Tensor] = kept) -> None:
            kept.append(args[0])

        hook = block.norm2.register_forward_pre_hook(keep)
        block(entered, rope=rope)
        hook.remove()
        block.mlp = mlp
        with _Heard() as heard:
            block.attn(state["prompts"][i][None])
        inner, block.attn.norm = block.attn.norm, torch.nn.Identity()
        with _OnlyThese(*heard.qkv[1:]):
            tokens = kept[0] + block.attn(kept[0])
        block.attn.norm = inner
        gamma = 1.0 if block.gamma_2 is None else block.gamma_2
        tokens = tokens + gamma * block.mlp(block.norm2(tokens))
    return _read(vit, tokens)


class _OnlyThese(TorchFunctionMode):
    """Lets timm's own attention read other keys and values."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self._other = keys, values

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is F.scaled_dot_product_attention:
            args = (args[0], *(t.expand(len(args[0]), -1, -1, -1) for t in self._other))
        return func(*args, **(kwargs or {}))


def _lora(vit: Any, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The products merged into timm's own weights."""
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    for i, block in enumerate(vit.blocks):
        attn = block.attn
        for place, part in ((0, "q"), (2, "v")):
            product = state[f"{part}_up"][i] @ state[f"{part}_down"][i]
            if attn.qkv is None:
                getattr(attn, f"{part}_proj").weight.data += product
            else:
                attn.qkv.weight.data.chunk(3)[place].add_(product)
    tokens, ropes = _entering(vit, x)
    for block, rope in zip(vit.blocks, ropes, strict=True):
        tokens = block(tokens, rope=rope)
    features = _read(vit, tokens)
    vit.load_state_dict(before)
    return features


SHALLOW = {"vpt__deep": False, "vpt__num_prompts": 3}
REFERENCES: dict[str, tuple[TrialConfig, Literal]] = {
    "vpt": (trial(["vpt"], vpt__num_prompts=3), _vpt),
    "vpt shallow": (trial(["vpt"], **SHALLOW), _vpt),
    "vpt shallow at the end": (trial(["vpt"], **SHALLOW, vpt__position="end"), _vpt),
    "tcpa": (
        trial(
            ["tcpa"],
            tcpa__num_cls_prompts=4,
            tcpa__num_image_prompts=6,
            tcpa__top_k_cls=2,
            tcpa__top_k_image=3,
        ),
        _tcpa,
    ),
    "cvpt": (trial(["cvpt"], cvpt__num_prompts=3), _cvpt),
    "lora": (trial(["lora"], lora__rank=2), _lora),
}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", REFERENCES)
def test_methods_are_those_formulas(name: str, kind: str) -> None:
    config, literal = REFERENCES[name]
    if name == "tcpa" and kind == "pe_spatial":
        return  # no token has the role of CLS
    backbone = tiny_backbone(kind)
    pack = PackModel(backbone, [config], NUM_CLASSES)
    checks.shake(pack)
    x = images(backbone, samples=2)
    with torch.no_grad():
        ours = pack.forward_features(x, EVAL)[0][0]
        state = {k.split(".", 1)[1]: v for k, v in pack.tensors.state(0).items()}
        expected = literal(backbone.vit, state, x[0])
        plain = backbone.vit.forward_head(backbone.vit.forward_features(x[0]), pre_logits=True)
    assert (expected - plain).abs().max() > 1e-6, "nothing was added"
    checks.close(ours, expected)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("name", ["tcpa", "vpt", "cvpt", "lora"])
def test_it_trains(name: str, kind: str, half: bool) -> None:
    backbone = tiny_backbone(kind, dtype=torch.float32)
    network = backbone.halved() if half else backbone
    config = small([name], train__epochs=10)
    pack = PackModel(network, [config, small([name], seed=1, train__epochs=10)], NUM_CLASSES)
    before = {key: value.clone() for key, value in backbone.vit.state_dict().items()}
    x = images(backbone, samples=10).expand(2, -1, -1, -1, -1)
    labels = torch.arange(10) % NUM_CLASSES
    optimiser = torch.optim.AdamW(pack.tensors.trainable().values(), lr=0.02)
    losses = []
    for number in range(12):
        step = training_step(pack.configs, [number] * 2, [number] * 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = pack(x, step)
        loss = F.cross_entropy(output.logits.float().flatten(0, 1), labels.repeat(2))
        optimiser.zero_grad()
        (loss + output.penalty.sum()).backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0], losses
    assert all(torch.equal(value, before[k]) for k, value in backbone.vit.state_dict().items())


@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_halved_network_gives_the_same_logits_under_autocast(chain: list[str], kind: str) -> None:
    if not carries(chain, kind):
        return
    backbone, found = tiny_backbone(kind, dtype=torch.float32), []
    config = small(chain)
    states = [checks.fitted(backbone, config)]
    for network in (backbone, backbone.halved()):
        pack = PackModel(network, [config], NUM_CLASSES, states)
        checks.shake(pack)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(pack(images(backbone), training_step([config], [0], [0])).logits)
    assert torch.equal(*found)


PACKS: dict[str, Sequence[TrialConfig]] = {
    "shallow": [trial(["vpt"], n, vpt__deep=False, vpt__num_prompts=n) for n in (2, 5)],
    "deep": [trial(["vpt"], n, vpt__num_prompts=n) for n in (2, 5)],
    "gated": [trial(["gated"], n, gated__num_prompts=n) for n in (2, 5)],
    "tcpa": [
        trial(["tcpa"], n, tcpa__num_cls_prompts=n, tcpa__num_image_prompts=2 * n) for n in (2, 5)
    ],
    "cvpt": [trial(["cvpt"], n, cvpt__num_prompts=n) for n in (2, 5)],
    "lora": [trial(["lora"], n, lora__rank=n, lora__targets="q,k,v,o") for n in (2, 5)],
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", [*FAMILIES, "rope_mixed", "rope_qk_norm"])
@pytest.mark.parametrize("name", PACKS)
def test_members_of_other_sizes_change_nothing(name: str, kind: str, mode: str) -> None:
    checks.members_equal_solo(PACKS[name], kind, mode)


def test_a_sequence_of_which_nobody_says_where_prompts_stand_is_refused() -> None:
    backbone = tiny_backbone("dinov3")
    tokens = backbone.embed(images(backbone)[0])[None]
    longer = torch.cat([tokens, tokens[:, :, :2]], dim=2)
    for change in ({}, {"rows": 3}):
        with pytest.raises(ShapeError, match="places for 21 tokens, got 23"):
            plain_block(backbone.blocks[0], longer, **change)
    last = slice(21, None)
    assert plain_block(backbone.blocks[0], longer, inserted=last).shape == longer.shape


@pytest.mark.parametrize("kind", FAMILIES)
def test_flops_are_those_that_torch_counts(kind: str) -> None:
    for config in (trial(["linear"]), trial(["vpt"]), trial(["lora"])):
        left = checks.uncounted_flops(config, kind)
        pool = checks.uncounted_flops(trial(["linear"]), kind) if kind == "pe" else 0.0
        assert left == pytest.approx(pool, abs=1.0), config.methods


@pytest.mark.parametrize("kind", ["dinov3", "eva02"])
def test_compiled_blocks_equal_plain_ones(kind: str) -> None:
    backbone = tiny_backbone(kind, dtype=torch.float32)
    pack = build(backbone, [small(["tcpa"])])
    x, found = images(backbone), []
    for is_on in (False, True):
        with compiled_blocks(is_on, backend="aot_eager"), torch.no_grad():
            found.append(pack(x, EVAL).logits)
    checks.close(found[0], found[1], 1e-5)


def test_rotations_follow_the_number_format_and_frequencies_stay() -> None:
    """Made anew in double precision, and no trial trains what they are made from."""
    backbone = tiny_backbone("rope_mixed", dtype=torch.float32)
    names = {name for name in build(backbone, [trial(["full"])]).tensors.trainable()}
    assert "full.vit/blocks/0/gamma_1" in names
    assert not any("rope" in name for name in names)
    single = backbone.blocks[1].rotation.clone()
    double = backbone.to(torch.float64).blocks[1].rotation
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6)


def test_prompts_beside_the_sequence_are_not_rotated() -> None:
    """Equal prompts have equal keys, wherever they stand."""
    backbone = tiny_backbone("dinov3")
    pack = build(backbone, [trial(["vpt"], vpt__num_prompts=3)])
    pack.tensors.trainable()["vpt.prompts"].data[:] = 0.5
    keys = pack.forward_attention(images(backbone)).blocks[0].prompts
    assert isinstance(keys, PromptKeys)
    assert torch.equal(keys.k_MBHPE[..., :1, :].expand_as(keys.k_MBHPE), keys.k_MBHPE)


@pytest.mark.parametrize("kind", ["dinov3", "dinov3_cls", "pe", "eva", "rope_qk_norm"])
def test_merged_ssf_is_a_plain_backbone(kind: str) -> None:
    backbone = tiny_backbone(kind)
    pack = build(backbone, [trial(["ssf"])])
    checks.shake(pack)
    merged = ssf.merge(backbone, pack.tensors.state(0))
    x = images(backbone)
    ours = PackModel(merged, [trial(["linear"])], NUM_CLASSES).forward_features(x, EVAL)[0]
    checks.close(pack.head(ours), pack(x, EVAL).logits)


def test_ssf_is_not_merged_where_no_norm_is_last() -> None:
    backbone = tiny_backbone("pe_lang")
    pack = build(backbone, [trial(["ssf"])])
    with pytest.raises(ConfigError, match="the Identity of this backbone has no weight"):
        ssf.merge(backbone, pack.tensors.state(0))


def table_of_methods() -> dict[str, list[str]]:
    """Cells of the table in docs/backbones.md by method."""
    text = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
    lines = [line for line in text.split("## Files")[0].splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.split("`")[1]: rest for name, *rest in cells}


@pytest.mark.parametrize("name", sorted(ZERO))
def test_the_table_of_methods_and_families_is_true(name: str) -> None:
    cells = [*table_of_methods()[name], "yes"]
    for kind, cell in zip((*COLUMNS, "eva"), cells, strict=True):
        backbone = tiny_backbone(kind)
        if cell == "yes":
            assert build(backbone, [small([name])])(images(backbone), EVAL).logits.isfinite().all()
        else:
            answer, _, reason = cell.partition(": ")
            assert answer == "no"
            with pytest.raises(ConfigError, match=reason):
                build(backbone, [small([name])])


def test_layers_of_a_gated_mlp_are_no_targets() -> None:
    for kind, kind_of_mlp in (("eva02", "SwiGLU"), ("eva02_small", "GluMlp")):
        with pytest.raises(ConfigError, match=f"fc1 or fc2 needs .* got {kind_of_mlp}"):
            build(tiny_backbone(kind), [trial(["lora"], lora__targets="q,fc1")])


def test_positions_are_told_as_rotary() -> None:
    told = {kind: tiny_backbone(kind).preprocessing(DataConfig()).positions for kind in ALL}
    assert {kind for kind, text in told.items() if text == "rotary"} == {
        "dinov3", "dinov3_cls", "dinov3_plus", "rope_mixed",
    }  # fmt: skip


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("method", ["tcpa", "vpt", "cvpt", "lora"])
def test_memory_told_from_shapes_is_what_a_real_step_keeps(method: str, bf16: bool) -> None:
    for name, side in (("vit_tiny_patch16_dinov3_qkvb", 32), ("eva02_tiny_patch14_224", 28)):
        settings = {"name": name, "img_size": side, "weights": "random"}
        config = trial([method], **{f"backbone__{key}": v for key, v in settings.items()})
        told = memory(config, NUM_CLASSES, bf16=bf16)
        assert told is not None
        model = PackModel(load_backbone(config.backbone), [config], NUM_CLASSES)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            costs = training_costs(model, torch.randn(1, SAMPLES, 3, side, side), cached=False)
        image = 3 * side**2 * 4
        assert told.per_image == pytest.approx(costs.activation_bytes + image, rel=1e-3)
        assert told.trained == 16 * model.tensors.num_trainable(0)[0]


@pytest.mark.parametrize("kind", [*FAMILIES, "dinov3_cls", "rope_mixed"])
def test_tokens_that_are_kept_give_the_same_logits(kind: str) -> None:
    """Also after images of another size."""
    backbone = tiny_backbone(kind)
    pack = build(backbone, [trial(["partial"], partial__num_blocks=1)])
    checks.shake(pack)
    x = images(backbone)
    kept = pack.forward_frozen(x)
    if backbone.vit.dynamic_img_size:
        pack(torch.zeros(1, 1, 3, 48, 48, dtype=torch.float64), EVAL)
    assert torch.equal(pack.forward_trained(kept, EVAL).logits, pack(x, EVAL).logits)
