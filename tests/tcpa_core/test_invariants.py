"""What must hold of linear, VPT, TCPA and CVPT on every kind of backbone (methods.md, 16)."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state, member_specs
from tcpa_core.model.pack_model import PackModel
from tcpa_core.model.single_model import build_model
from tests.tcpa_core import oracle
from tests.tcpa_core.tiny import KINDS, NUM_CLASSES, images, tiny_backbone, training_step, trial

EVAL = Step.evaluation(1)

TCPA: dict[str, Any] = {
    "tcpa__num_cls_prompts": 4,
    "tcpa__num_image_prompts": 5,
    "tcpa__top_k_cls": 2,
    "tcpa__top_k_image": 3,
    "tcpa__prompt_length": 2,
    "tcpa__image_prompt_length": 1,
    "tcpa__lambda_cls": 0.3,
    "tcpa__lambda_image": 0.7,
    "tcpa__random_epochs": 0,
}
TRIALS: dict[str, TrialConfig] = {
    "linear": trial(["linear"]),
    "vpt shallow": trial(["vpt"], vpt__num_prompts=3, vpt__deep=False),
    "vpt deep": trial(["vpt"], vpt__num_prompts=3, vpt__prompt_dropout=0.2),
    "tcpa": trial(["tcpa"], **TCPA),
    "tcpa pre": trial(["tcpa"], **TCPA, tcpa__mask_mode="pre"),
    "tcpa R": trial(["tcpa"], **TCPA, tcpa__match_tokens=False),
    "tcpa T": trial(["tcpa"], **TCPA, tcpa__split_roles=False),
    "tcpa T pre": trial(["tcpa"], **TCPA, tcpa__split_roles=False, tcpa__mask_mode="pre"),
    "tcpa off": trial(["tcpa"], **TCPA, tcpa__split_roles=False, tcpa__match_tokens=False),
    "tcpa distance": trial(["tcpa"], **TCPA, tcpa__select="distance", tcpa__lambda_shared=True),
    "tcpa ln1": trial(["tcpa"], **TCPA, tcpa__match_input="ln1"),
    "tcpa sum": trial(["tcpa"], **TCPA, tcpa__loss_reduction="sum", tcpa__detach_tokens=True),
    "tcpa image roles": trial(
        ["tcpa"], **TCPA, tcpa__register_role="image", tcpa__dist_role="image"
    ),
    "tcpa no roles": trial(["tcpa"], **TCPA, tcpa__register_role="none", tcpa__dist_role="none"),
    "tcpa random": trial(["tcpa"], **{**TCPA, "tcpa__random_epochs": 3}),
    "tcpa image only": trial(["tcpa"], **{**TCPA, "tcpa__num_cls_prompts": 0}),
    "tcpa cls only": trial(["tcpa"], **{**TCPA, "tcpa__num_image_prompts": 0}),
    "cvpt one": trial(["cvpt"], cvpt__num_prompts=1),
    "cvpt folded": trial(["cvpt"], cvpt__num_prompts=4, cvpt__prompt_dropout=0.0),
    "cvpt unfolded": trial(["cvpt"], cvpt__num_prompts=9, cvpt__prompt_dropout=0.0),
    **{
        f"cvpt at {p}": trial(
            ["cvpt"],
            cvpt__num_prompts=3,
            cvpt__position=p,
            cvpt__ca_norm=("none", "query", "both")[p % 3],
            cvpt__weights="shared_learnable" if p % 2 else "random_learnable",
        )
        for p in (1, 2, 3, 4, 5)
    },
}


def fits(config: TrialConfig, backbone: Backbone) -> bool:
    """Whether a trial is meant for backbones without CLS."""
    settings = config.method_settings.get("tcpa")
    needs_cls = settings is not None and settings.split_roles and settings.num_cls_prompts
    return backbone.layout.has_cls or not needs_cls


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", TRIALS)
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_gradients_equal_the_literal_reference(kind: str, name: str, mode: str) -> None:
    backbone, config = tiny_backbone(kind), TRIALS[name]
    if not fits(config, backbone):
        with pytest.raises(ConfigError, match="tcpa.num_cls_prompts must be 0"):
            PackModel(backbone, [config], NUM_CLASSES)
        return
    step = EVAL if mode == "eval" else training_step([config], [2], [11])
    x = images(backbone, samples=2)
    pack = PackModel(backbone, [config], NUM_CLASSES)
    output = pack(x, step)
    (output.logits.square().sum() + output.penalty.sum()).backward()
    state = {k: v.requires_grad_() for k, v in pack.tensors.state(0).items()}
    expected = oracle.run(backbone, config, state, x[0], step)
    loss = expected.logits.square().sum() + expected.penalty
    grads = torch.autograd.grad(loss, list(state.values()), materialize_grads=True)
    close(output.logits[0], expected.logits)
    close(output.penalty[0], expected.penalty)
    for key, reference in zip(state, grads, strict=True):
        close(pack.tensors.trainable()[key].grad[0], reference)  # type: ignore[index]
    for parameter in backbone.parameters():
        assert parameter.grad is None


def close(ours: Tensor, reference: Tensor) -> None:
    """1e-11 relative to the largest value."""
    scale = max(float(reference.detach().abs().max()), 1e-6)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-11 * scale)


ZERO = {
    "linear": {},
    "vpt": {"vpt__num_prompts": 0},
    "tcpa": {"tcpa__num_cls_prompts": 0, "tcpa__num_image_prompts": 0},
    "cvpt": {"cvpt__num_prompts": 0},
}


@pytest.mark.parametrize("method", ZERO)
@pytest.mark.parametrize("kind", KINDS)
def test_zero_prompts_are_the_backbone_and_head_to_the_bit(kind: str, method: str) -> None:
    backbone = tiny_backbone(kind, dtype=torch.float32)
    model = build_model(trial([method], **ZERO[method]), num_classes=NUM_CLASSES, backbone=backbone)
    x = images(backbone, samples=4)[0]
    state, vit = model.pack.tensors.state(0), backbone.vit
    vit.reset_classifier(NUM_CLASSES)
    vit.head.load_state_dict({"weight": state["head.weight"], "bias": state["head.bias"]})
    if backbone.layout.has_dist:
        dist = {"weight": state["head_dist.weight"], "bias": state["head_dist.bias"]}
        vit.head_dist.load_state_dict(dist)
    assert torch.equal(model(x), vit(x))
    assert model.pack.features_are_frozen


@pytest.mark.parametrize("kind", ["cls", "registers"])
def test_tcpa_without_roles_and_matching_is_deep_vpt(kind: str) -> None:
    backbone = tiny_backbone(kind)
    tcpa = trial(["tcpa"], **TCPA, tcpa__split_roles=False, tcpa__match_tokens=False, seed=3)
    ours = build_model(tcpa, num_classes=NUM_CLASSES, backbone=backbone)
    state = ours.pack.tensors.state(0)
    prompts = torch.cat([state.pop(f"tcpa.{r}_prompts").flatten(1, 2) for r in ("cls", "image")], 1)
    vpt = build_model(
        trial(["vpt"], vpt__num_prompts=prompts.shape[1]),
        num_classes=NUM_CLASSES,
        backbone=backbone,
        state=state | {"vpt.prompts": prompts},
    ).eval()
    x = images(backbone)[0]
    close(ours.eval()(x), vpt(x))


def test_choosing_the_whole_pool_is_roles_alone() -> None:
    backbone = tiny_backbone()
    whole = {**TCPA, "tcpa__top_k_cls": 4, "tcpa__top_k_image": 5}
    full = build_model(trial(["tcpa"], **whole), num_classes=NUM_CLASSES, backbone=backbone)
    state = {k: v for k, v in full.pack.tensors.state(0).items() if "keys" not in k}
    roles = build_model(
        TRIALS["tcpa R"], num_classes=NUM_CLASSES, backbone=backbone, state=state
    ).eval()
    x = images(backbone)[0]
    logits, penalty = full.eval().forward_with_penalty(x)
    close(logits, roles(x))
    assert float(penalty.detach()) > 0
    assert float(roles.forward_with_penalty(x)[1]) == 0


def test_permuting_groups_with_their_keys_changes_nothing() -> None:
    backbone, config = tiny_backbone(), TRIALS["tcpa"]
    state = init_member_state(backbone, config, NUM_CLASSES)
    shuffled = dict(state)
    for role, order in (("cls", [2, 0, 3, 1]), ("image", [4, 1, 0, 3, 2])):
        for part in ("prompts", "keys"):
            shuffled[f"tcpa.{role}_{part}"] = state[f"tcpa.{role}_{part}"][:, order]
    x = images(backbone)
    packs = [PackModel(backbone, [config], NUM_CLASSES, [s]) for s in (state, shuffled)]
    first, second = (pack(x, EVAL) for pack in packs)
    close(first.logits, second.logits)
    close(first.penalty, second.penalty)


def test_each_row_sees_k_groups_of_its_role() -> None:
    backbone = tiny_backbone("registers")
    pack = PackModel(backbone, [TRIALS["tcpa"]], NUM_CLASSES)
    visible = pack.forward_blocks(images(backbone), EVAL).output.stats["tcpa.visible"]
    prefix, columns = backbone.layout.num_prefix, 4 * 2
    assert (visible[:, :, :, :prefix, :columns].sum(-1) == 2 * 2).all()
    assert (visible[:, :, :, prefix:, columns:].sum(-1) == 3).all()
    assert not visible[:, :, :, :prefix, columns:].any()
    assert not visible[:, :, :, prefix:, :columns].any()


def worked_state(backbone: Backbone, config: TrialConfig, tokens: Tensor) -> dict[str, Tensor]:
    """Keys of the first block made from the tokens, so that the choice is known beforehand."""
    state = init_member_state(backbone, config, NUM_CLASSES)
    cls, first, second = tokens[0, 0], tokens[0, 1], tokens[0, 2]
    state["tcpa.cls_keys"][0] = torch.stack([-cls, cls])
    away = torch.linalg.pinv(torch.stack([first, second]))
    only_first = away @ torch.tensor([1.0, -1.0], dtype=tokens.dtype)
    both = away @ torch.tensor([1.0, 1.0], dtype=tokens.dtype)
    state["tcpa.image_keys"][0] = torch.stack([only_first, -only_first, both])
    return state


@pytest.mark.parametrize("length", [1, 2])
def test_worked_mask(length: int) -> None:
    """CLS takes c2; patch 1 takes i1 and i3; patch 2 takes i2 and i3 (methods.md, section 1.2)."""
    backbone = tiny_backbone()
    config = trial(
        ["tcpa"],
        tcpa__num_cls_prompts=2,
        tcpa__num_image_prompts=3,
        tcpa__top_k_cls=1,
        tcpa__top_k_image=2,
        tcpa__prompt_length=length,
    )
    x = images(backbone, samples=1)
    state = worked_state(backbone, config, backbone.embed(x[0]))
    pack = PackModel(backbone, [config], NUM_CLASSES, [state])
    visible = pack.forward_blocks(x, EVAL).output.stats["tcpa.visible"][0, 0, 0, :3]
    rows = ["01000", "00101", "00011"]
    expected = [[bit == "1" for bit in row for _ in range(length)] for row in rows]
    assert visible.tolist() == expected


def test_pre_mode_keeps_the_roles_apart_and_post_mode_leaks() -> None:
    backbone = tiny_backbone()
    prefix, x = backbone.layout.num_prefix, images(backbone)
    moved = {}
    for mode in ("pre", "post"):
        config = TRIALS["tcpa"].replace_paths({"tcpa.mask_mode": mode})
        state = init_member_state(backbone, config, NUM_CLASSES)
        changed = dict(state, **{"tcpa.cls_prompts": -state["tcpa.cls_prompts"]})
        first, second = (
            PackModel(backbone, [config], NUM_CLASSES, [s]).forward_blocks(x, EVAL).blocks[0]
            for s in (state, changed)
        )
        assert (first - second)[:, :, :prefix].abs().max() > 1e-3
        moved[mode] = float((first - second).detach()[:, :, prefix:].abs().max())
    assert moved["pre"] == 0
    assert moved["post"] > 1e-3


def gradients(config: TrialConfig, step: Step = EVAL) -> dict[str, Tensor]:
    backbone = tiny_backbone()
    pack = PackModel(backbone, [config], NUM_CLASSES)
    output = pack(images(backbone), step)
    (output.logits.square().sum() + output.penalty.sum()).backward()
    return {k: p.grad[0] for k, p in pack.tensors.trainable().items() if p.grad is not None}


def test_keys_learn_from_the_matching_loss_only() -> None:
    off = gradients(trial(["tcpa"], **{**TCPA, "tcpa__lambda_cls": 0.0, "tcpa__lambda_image": 0.0}))
    on = gradients(TRIALS["tcpa"])
    for role in ("cls", "image"):
        assert not off[f"tcpa.{role}_keys"].any()
        assert on[f"tcpa.{role}_keys"].any()


def test_last_image_prompts_learn_through_the_denominator_only() -> None:
    post, pre = (gradients(TRIALS[n])["tcpa.image_prompts"][-1] for n in ("tcpa", "tcpa pre"))
    assert post.any()
    assert not pre.any()


def test_unchosen_prompts_learn_in_post_mode_only() -> None:
    only_one = {**TCPA, "tcpa__top_k_cls": 1}
    post, pre = (
        gradients(trial(["tcpa"], **only_one, tcpa__mask_mode=mode))["tcpa.cls_prompts"][0]
        for mode in ("post", "pre")
    )
    assert int(pre.flatten(1).any(1).sum()) == 1  # the first block's CLS token is always the same
    assert int(post.flatten(1).any(1).sum()) == 4


def test_one_cvpt_prompt_adds_one_vector_to_every_token() -> None:
    backbone = tiny_backbone()
    one = trial(["cvpt"], cvpt__num_prompts=1, cvpt__position=5)
    x = images(backbone)
    added = PackModel(backbone, [one], NUM_CLASSES).forward_blocks(x, EVAL).blocks[0]
    plain = PackModel(backbone, [TRIALS["linear"]], NUM_CLASSES).forward_blocks(x, EVAL).blocks[0]
    difference = added - plain
    close(difference, difference[:, :1, :1].expand_as(difference))
    assert difference.abs().max() > 1e-2


def test_cvpt_learnable_weights_start_as_the_blocks_own() -> None:
    backbone = tiny_backbone()
    config = trial(["cvpt"], cvpt__weights="shared_learnable")
    state = init_member_state(backbone, config, NUM_CLASSES)
    for layer, block in enumerate(backbone.blocks):
        assert torch.equal(state["cvpt.qkv_weight"][layer], block.attn.qkv.weight)
        assert torch.equal(state["cvpt.proj_bias"][layer], block.attn.proj.bias)


def test_frozen_random_cross_attention_is_drawn_from_the_seed_and_not_trained() -> None:
    backbone, x = tiny_backbone(), images(tiny_backbone())
    frozen = trial(["cvpt"], seed=4, cvpt__weights="random_frozen", cvpt__num_prompts=3)
    learned = trial(["cvpt"], seed=4, cvpt__weights="random_learnable", cvpt__num_prompts=3)
    first, second = (PackModel(backbone, [c], NUM_CLASSES) for c in (frozen, learned))
    assert first.tensors.trainable().keys() == {"cvpt.prompts", "head.weight", "head.bias"}
    close(first(x, EVAL).logits, second(x, EVAL).logits)
    other = PackModel(backbone, [frozen.replace_paths({"seed": 5})], NUM_CLASSES)
    names = ("qkv_weight", "qkv_bias")
    drawn = [[getattr(p.methods["cvpt"], n) for n in names] for p in (first, other)]
    assert not torch.equal(drawn[0][0], drawn[1][0])
    assert not drawn[0][1].any()


@pytest.fixture(scope="module")
def vit_base() -> Backbone:
    """ViT-B/16 geometry without memory."""
    with torch.device("meta"):
        return Backbone(timm.create_model("vit_base_patch16_224", num_classes=0))


@pytest.mark.parametrize(
    ("methods", "settings", "count"),
    [
        (["linear"], {}, 0),
        (["vpt"], {}, 92_160),
        (["vpt"], {"vpt__deep": False}, 7_680),
        (["cvpt"], {}, 92_160),
        (["cvpt"], {"cvpt__weights": "shared_learnable"}, 92_160 + 28_348_416),
        (["tcpa"], {}, 552_960),
        (["tcpa"], {"tcpa__num_cls_prompts": 18, "tcpa__num_image_prompts": 18}, 663_552),
        (["tcpa"], {"tcpa__match_tokens": False}, 276_480),
    ],
)
def test_parameter_counts_are_the_published(
    vit_base: Backbone, methods: list[str], settings: dict[str, Any], count: int
) -> None:
    specs = member_specs(vit_base, trial(methods, **settings), num_classes=100)
    sizes = {name: torch.Size(spec.shape).numel() for name, spec in specs.items()}
    assert sum(n for name, n in sizes.items() if not name.startswith("head")) == count
    assert sum(n for name, n in sizes.items() if name.startswith("head")) == 100 * 769


@pytest.mark.parametrize("name", ["vpt deep", "tcpa random", "cvpt at 3"])
def test_random_draws_stop_in_evaluation(name: str) -> None:
    backbone = tiny_backbone()
    model = build_model(TRIALS[name], num_classes=NUM_CLASSES, backbone=backbone)
    x = images(backbone)[0]
    assert not torch.equal(model.train()(x), model(x))
    first = model.eval()(x)
    assert torch.equal(first, model(x))
    assert not torch.allclose(first, model.train()(x))


@pytest.mark.parametrize("name", TRIALS)
def test_batch_order_does_not_matter_in_evaluation(name: str) -> None:
    backbone = tiny_backbone()
    pack = PackModel(backbone, [TRIALS[name]], NUM_CLASSES)
    x, order = images(backbone, samples=4), [2, 0, 3, 1]
    close(pack(x[:, order], EVAL).logits, pack(x, EVAL).logits[:, order])


class TestNegativeControls:
    """Mistakes that must be seen: they change results by more than 1 %."""

    def test_masking_before_the_softmax(self) -> None:
        config = trial(["tcpa"])
        changed = config.replace_paths({"tcpa.mask_mode": "pre"})
        assert logits_distance(config, changed) > 1e-2

    def test_detached_tokens(self) -> None:
        heavy = {**TCPA, "tcpa__lambda_cls": 10.0, "tcpa__lambda_image": 10.0}
        config = trial(["tcpa"], **heavy)
        ours, changed = (
            gradients(c)["tcpa.image_prompts"]
            for c in (config, config.replace_paths({"tcpa.detach_tokens": True}))
        )
        assert float((ours - changed).abs().max() / ours.abs().max()) > 1e-2

    def test_least_similar_groups(self) -> None:
        config = TRIALS["tcpa"]
        changed = config.replace_paths({"tcpa.select": "distance"})
        assert logits_distance(config, changed) > 1e-2

    def test_normalised_tokens(self) -> None:
        config = TRIALS["tcpa"]
        changed = config.replace_paths({"tcpa.match_input": "ln1"})
        assert logits_distance(config, changed) > 1e-2


def logits_distance(first: TrialConfig, second: TrialConfig) -> float:
    """Largest difference of logits relative to the largest logit, with equal tensors."""
    backbone = tiny_backbone()
    state = init_member_state(backbone, first, NUM_CLASSES)
    x = images(backbone)
    a, b = (PackModel(backbone, [c], NUM_CLASSES, [state])(x, EVAL).logits for c in (first, second))
    return float(((a - b).abs().max() / a.abs().max()).detach())
