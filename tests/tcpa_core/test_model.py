"""Packs: members are alone in their numbers; states, shapes, counts and the user's module."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tcpa_core.chain import pack_key
from tcpa_core.config import TrialConfig
from tcpa_core.errors import CheckpointError, ConfigError, ShapeError
from tcpa_core.methods.base import Step
from tcpa_core.model.attention import Backend
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import ModelOutput, PackModel
from tcpa_core.model.single_model import build_model
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone, training_step, trial

EVAL = Step.evaluation(1)


def tcpa_members(**common: Any) -> list[TrialConfig]:
    """Pools, K, lengths, lambdas, dropout, random epochs and seeds all differ."""
    sizes = [(2, 3, 1, 2, 1), (5, 6, 3, 4, 2), (4, 2, 4, 1, 1), (3, 6, 2, 6, 3)]
    return [
        trial(
            ["tcpa"],
            seed=10 + m,
            tcpa__num_cls_prompts=n_c,
            tcpa__num_image_prompts=n_i,
            tcpa__top_k_cls=k_c,
            tcpa__top_k_image=k_i,
            tcpa__prompt_length=length,
            tcpa__image_prompt_length=1 + m % 2,
            tcpa__lambda_cls=0.2 * m,
            tcpa__lambda_image=0.5 - 0.1 * m,
            tcpa__prompt_dropout=0.1 * m,
            tcpa__random_epochs=2,
            **common,
        )
        for m, (n_c, n_i, k_c, k_i, length) in enumerate(sizes)
    ]


def sized(method: str, *sizes: int, **common: Any) -> list[TrialConfig]:
    """Members that differ in prompts, dropout and seed."""
    return [
        trial(
            [method],
            seed=10 + m,
            **{f"{method}__num_prompts": size, f"{method}__prompt_dropout": 0.1 * m, **common},
        )
        for m, size in enumerate(sizes)
    ]


PACKS: dict[str, list[TrialConfig]] = {
    "linear": [trial(["linear"], seed=s, optim__lr=10.0**-s) for s in (1, 2, 3)],
    "tcpa": tcpa_members(),
    "tcpa pre": tcpa_members(tcpa__mask_mode="pre"),
    "tcpa R": tcpa_members(tcpa__match_tokens=False),
    "tcpa T": tcpa_members(tcpa__split_roles=False),
    "tcpa off": tcpa_members(tcpa__split_roles=False, tcpa__match_tokens=False),
    "vpt deep": sized("vpt", 1, 5, 3),
    "vpt shallow": sized("vpt", 4, 1, 2, vpt__deep=False),
    "cvpt": sized("cvpt", 1, 4, 2),
    "cvpt learnable": sized("cvpt", 3, 1, 4, cvpt__weights="shared_learnable", cvpt__position=1),
    "cvpt random": sized("cvpt", 3, 1, 4, cvpt__weights="random_frozen", cvpt__position=4),
}


def run(pack: PackModel, x: Tensor, step: Step) -> tuple[ModelOutput, dict[str, Tensor]]:
    """Forward and backward of the sum over members."""
    output = pack(x, step)
    (output.logits.square().mean((1, 2)) + output.penalty).sum().backward()
    return output, {k: p.grad for k, p in pack.tensors.trainable().items() if p.grad is not None}


def at(configs: list[TrialConfig], members: list[int], mode: str) -> Step:
    """Evaluation, or members at their own epochs and steps (some still select at random)."""
    if mode == "eval":
        return Step.evaluation(len(members))
    chosen = [configs[m] for m in members]
    return training_step(chosen, [m % 3 for m in members], [100 + 7 * m for m in members])


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", ["registers", "cls_avg"])
@pytest.mark.parametrize("name", PACKS)
def test_members_equal_their_solo_runs(name: str, kind: str, mode: str) -> None:
    backbone, configs = tiny_backbone(kind), PACKS[name]
    everyone = list(range(len(configs)))
    x = images(backbone, members=len(configs), samples=2)
    pack = PackModel(backbone, configs, NUM_CLASSES)
    output, grads = run(pack, x, at(configs, everyone, mode))
    for m, config in enumerate(configs):
        solo = PackModel(backbone, [config], NUM_CLASSES)
        alone, alone_grads = run(solo, x[m : m + 1], at(configs, [m], mode))
        close(output.logits[m], alone.logits[0])
        close(output.penalty[m], alone.penalty[0])
        for key, spec in pack.tensors.specs[m].items():
            region = tuple(slice(0, n) for n in spec.shape)
            close(grads[key][m][region], alone_grads[key][0])
            assert torch.equal(solo.tensors.state(0)[key], pack.tensors.state(m)[key])
            padding = grads[key][m].clone()
            padding[region] = 0
            assert not padding.any(), key


def close(ours: Tensor, reference: Tensor) -> None:
    scale = max(float(reference.detach().abs().max()), 1e-3)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("backend", ["dense", "twin", "lse"])
@pytest.mark.parametrize("name", ["tcpa", "tcpa T", "vpt deep", "vpt shallow", "cvpt", "linear"])
def test_a_member_of_nans_changes_no_bit_of_the_others(name: str, backend: Backend) -> None:
    backbone, configs = tiny_backbone("registers", dtype=torch.float32), PACKS[name]
    x = images(backbone, members=len(configs))
    step = at(configs, list(range(len(configs))), "train")
    results = []
    for poison in (False, True):
        pack = PackModel(backbone, configs, NUM_CLASSES, backend=backend)
        if poison:
            for parameter in pack.tensors.trainable().values():
                parameter.data[1] = float("nan")
        results.append(run(pack, x, step))
    (clean, clean_grads), (dirty, dirty_grads) = results
    assert dirty.logits[1].isnan().all()
    for m in range(len(configs)):
        if m != 1:
            assert torch.equal(clean.logits[m], dirty.logits[m])
            assert torch.equal(clean.penalty[m], dirty.penalty[m])
            for key, grad in clean_grads.items():
                assert torch.equal(grad[m], dirty_grads[key][m]), key


@pytest.mark.parametrize("name", PACKS)
def test_states_round_trip_without_padding(name: str) -> None:
    backbone, configs = tiny_backbone(), PACKS[name]
    first = PackModel(backbone, configs, NUM_CLASSES)
    states = [first.tensors.state(m) for m in range(len(configs))]
    for m, (config, state) in enumerate(zip(configs, states, strict=True)):
        assert {k: tuple(v.shape) for k, v in state.items()} == {
            k: spec.shape for k, spec in first.tensors.specs[m].items()
        }
        fresh = init_member_state(backbone, config, NUM_CLASSES)
        assert fresh.keys() == state.keys()
        assert all(torch.equal(fresh[k], state[k]) for k in state)
        total = sum(v.numel() for v in state.values())
        assert first.tensors.num_trainable(m) == (total, total - (32 + 1) * NUM_CLASSES)
    second = PackModel(backbone, configs, NUM_CLASSES, states)
    x = images(backbone, members=len(configs))
    step = Step.evaluation(len(configs))
    assert torch.equal(first(x, step).logits, second(x, step).logits)


def test_tensors_are_drawn_by_name_and_seed() -> None:
    backbone = tiny_backbone()
    small, large = (
        init_member_state(backbone, trial(["tcpa"], tcpa__num_image_prompts=n), NUM_CLASSES)
        for n in (12, 20)
    )
    assert torch.equal(small["tcpa.cls_keys"], large["tcpa.cls_keys"])
    assert torch.equal(small["head.weight"], large["head.weight"])
    other = init_member_state(backbone, trial(["tcpa"], seed=1), NUM_CLASSES)
    assert not torch.equal(other["tcpa.cls_keys"], large["tcpa.cls_keys"])
    assert not torch.equal(large["tcpa.cls_keys"], large["tcpa.cls_prompts"][:, :, 0])
    assert float(large["tcpa.image_prompts"].abs().max()) > 0.9


@pytest.mark.parametrize(
    ("kind", "low", "high", "bias"),
    [("torch_default", 0.05, 0.11, None), ("vpt", 0.4, 0.9, -4.59512), ("trunc02", 0.01, 0.03, 0)],
)
def test_head_init(kind: str, low: float, high: float, bias: float | None) -> None:
    state = init_member_state(
        tiny_backbone(), trial(["linear"], train__head_init=kind), NUM_CLASSES
    )
    assert low < float(state["head.weight"].std()) < high
    if bias is None:
        assert state["head.bias"].any()
    else:
        torch.testing.assert_close(state["head.bias"], torch.full_like(state["head.bias"], bias))


def test_prompt_bounds() -> None:
    backbone = tiny_backbone()
    vpt = init_member_state(backbone, trial(["vpt"], vpt__num_prompts=50), NUM_CLASSES)
    assert 0.97 < float(vpt["vpt.prompts"].abs().max()) / (6 / (3 * 64 + 32)) ** 0.5 <= 1
    cvpt = init_member_state(backbone, trial(["cvpt"], cvpt__num_prompts=50), NUM_CLASSES)
    assert 0.97 < float(cvpt["cvpt.prompts"].abs().max()) / (6 / (52 * 32)) ** 0.5 <= 1
    zero = init_member_state(backbone, trial(["cvpt"], cvpt__init="zero"), NUM_CLASSES)
    assert not zero["cvpt.prompts"].any()


@pytest.mark.parametrize("kind", ["cls", "distilled", "no_cls"])
def test_features_then_head_is_the_forward_pass(kind: str) -> None:
    backbone = tiny_backbone(kind)
    configs = PACKS["vpt deep"]
    pack = PackModel(backbone, configs, NUM_CLASSES)
    x, step = images(backbone, members=3), at(configs, [0, 1, 2], "train")
    features, penalty = pack.forward_features(x, step)
    assert features.shape == (3, 3, backbone.layout.feature_dim)
    output = pack(x, step)
    assert torch.equal(pack.head(features), output.logits)
    assert torch.equal(penalty, output.penalty)
    assert not pack.features_are_frozen


def test_matching_losses_are_reported_by_block_and_member() -> None:
    backbone, configs = tiny_backbone(), PACKS["tcpa"]
    pack = PackModel(backbone, configs, NUM_CLASSES)
    output = pack(images(backbone, members=4), Step.evaluation(4))
    cls, image = output.stats["tcpa.match_cls"], output.stats["tcpa.match_image"]
    assert cls.shape == image.shape == (backbone.layout.depth, 4)
    settings = [c.method_settings["tcpa"] for c in configs]
    for m, s in enumerate(settings):
        weighted = s.lambda_cls * cls[:, m].sum() + s.lambda_image * image[:, m].sum()
        close(output.penalty[m], weighted)


def test_flops_of_the_plain_backbone_are_those_that_torch_counts() -> None:
    backbone = tiny_backbone(dtype=torch.float32)
    pack = PackModel(backbone, [trial(["linear"])], NUM_CLASSES)
    with FlopCounterMode(display=False) as counter:
        pack.forward_blocks(images(backbone, samples=1), EVAL)  # all tokens of the last block, too
    counted = counter.get_total_flops()
    attention = 4 * backbone.layout.depth * 17**2 * 32  # the CPU flash kernel is not counted
    assert counted <= pack.flops_per_image() <= counted + attention


def test_prompts_cost_flops() -> None:
    backbone = tiny_backbone()
    costs = {}
    for name in ("linear", "vpt shallow", "vpt deep", "tcpa", "cvpt"):
        pack = PackModel(backbone, PACKS[name], NUM_CLASSES)
        costs[name] = [pack.flops_per_image(m) for m in range(pack.num_members)]
    assert costs["linear"][0] == costs["cvpt"][0] < costs["vpt deep"][0] < costs["vpt deep"][1]
    assert costs["vpt shallow"][1] < costs["vpt shallow"][2] < costs["vpt shallow"][0]
    assert costs["tcpa"][0] < costs["tcpa"][1]


def test_trials_with_other_switches_do_not_share_a_pack() -> None:
    first, second = trial(["tcpa"]), trial(["tcpa"], tcpa__mask_mode="pre")
    assert pack_key(first) != pack_key(second)
    with pytest.raises(ConfigError, match="member 1 cannot share a pack with member 0"):
        PackModel(tiny_backbone(), [first, second], NUM_CLASSES)
    none = trial(["vpt"], vpt__num_prompts=0)
    assert pack_key(none) != pack_key(trial(["vpt"]))
    assert pack_key(trial(["tcpa"], seed=1, tcpa__top_k_cls=2)) == pack_key(first)


def test_methods_that_both_run_the_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match="'tcpa' and 'cvpt' cannot be chained"):
        PackModel(tiny_backbone(), [trial(["tcpa", "cvpt"])], NUM_CLASSES)


def test_a_state_of_another_trial_is_refused() -> None:
    backbone = tiny_backbone()
    state = init_member_state(backbone, trial(["vpt"], vpt__num_prompts=3), NUM_CLASSES)
    with pytest.raises(CheckpointError, match=r"'vpt.prompts': \(2, 3, 32\).*need .*\(2, 4, 32\)"):
        PackModel(backbone, [trial(["vpt"], vpt__num_prompts=4)], NUM_CLASSES, [state])


def test_members_without_prompts_share_their_features() -> None:
    backbone = tiny_backbone()
    pack = PackModel(backbone, PACKS["linear"], NUM_CLASSES)
    x = images(backbone)
    shared, _ = pack.forward_features(x, EVAL)
    alone, _ = PackModel(backbone, PACKS["linear"][:1], NUM_CLASSES).forward_features(x, EVAL)
    assert torch.equal(shared, alone)
    logits = pack.head(shared.expand(3, -1, -1))
    assert logits.shape == (3, 3, NUM_CLASSES)
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("shape", [(2, 3, 3, 32, 32), (1, 3, 3, 48, 48), (3, 3, 32, 32)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    pack = PackModel(tiny_backbone(), [trial(["vpt"])], NUM_CLASSES)
    with pytest.raises(ShapeError, match=r"images must have shape \(1, B, 3, 32, 32\), got"):
        pack(torch.zeros(shape, dtype=torch.float64), EVAL)


def test_dynamic_backbones_take_other_sizes() -> None:
    pack = PackModel(tiny_backbone("dynamic"), [trial(["tcpa"])], NUM_CLASSES)
    x = torch.zeros(1, 2, 3, 64, 32, dtype=torch.float64)
    assert pack(x, EVAL).logits.shape == (1, 2, NUM_CLASSES)
    assert pack.forward_blocks(x, EVAL).blocks[0].shape[2] == 1 + 8 * 4


def test_single_model_is_an_ordinary_module() -> None:
    model = build_model(
        {"methods": ["tcpa"], "tcpa.random_epochs": 1},
        num_classes=NUM_CLASSES,
        backbone=tiny_backbone(dtype=torch.float32),
    )
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 6
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    x = images(model.pack.backbone, samples=4)[0]
    before = {k: v.clone() for k, v in model.pack.backbone.state_dict().items()}
    losses = []
    for _ in range(8):
        logits, penalty = model.train().forward_with_penalty(x)
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(4)) + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert model.steps == 8
    after = model.pack.backbone.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not model.pack.backbone.training
    assert model.eval()(x).shape == (4, NUM_CLASSES)


def test_nothing_below_the_first_prompt_keeps_a_graph() -> None:
    backbone = tiny_backbone()
    seen = PackModel(backbone, [trial(["cvpt"])], NUM_CLASSES).forward_blocks(
        images(backbone), EVAL
    )
    assert not seen.tokens.requires_grad
    assert seen.blocks[0].requires_grad
    linear = PackModel(backbone, [trial(["linear"])], NUM_CLASSES)
    features, _ = linear.forward_features(images(backbone), EVAL)
    assert not features.requires_grad


def test_bf16_autocast_keeps_matching_and_head_in_float32() -> None:
    backbone = tiny_backbone(dtype=torch.float32)
    pack = PackModel(backbone, PACKS["tcpa"], NUM_CLASSES)
    x, step = images(backbone, members=4), Step.evaluation(4)
    exact = pack(x, step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = pack(x, step)
    assert half.logits.dtype == half.penalty.dtype == torch.float32
    torch.testing.assert_close(half.logits, exact.logits, rtol=0.1, atol=0.1)
    half.penalty.sum().backward()
    assert pack.tensors.trainable()["tcpa.cls_keys"].grad is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"tcpa.num_image_prompts": 18, "tcpa.top_k_image": 20},
            r"^tcpa.top_k_image must be <= tcpa.num_image_prompts, got 20 > 18; lower",
        ),
        (
            {"tcpa.num_cls_prompts": 2, "tcpa.top_k_cls": 3},
            r"^tcpa.top_k_cls must be <= tcpa.num_cls_prompts, got 3 > 2; lower",
        ),
        (
            {"tcpa.split_roles": False, "tcpa.top_k_image": 31},
            r"^tcpa.top_k_image must be <= tcpa.num_cls_prompts \+ tcpa.num_image_prompts, "
            "got 31 > 30",
        ),
    ],
)
def test_more_groups_than_the_pool_has(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrialConfig.from_flat({"methods": ["tcpa"], **settings})


def test_defaults_follow_the_pool_and_the_depth() -> None:
    tcpa = trial(["tcpa"], tcpa__num_cls_prompts=4).method_settings["tcpa"]
    assert (tcpa.top_k_cls, tcpa.top_k_image) == (2, 10)
    assert trial(["tcpa"], tcpa__num_cls_prompts=0).method_settings["tcpa"].top_k_image == 10
    assert trial(["vpt"], vpt__deep=False).method_settings["vpt"].prompt_dropout == 0.0
    assert trial(["vpt"]).method_settings["vpt"].prompt_dropout == 0.1
    given = trial(["vpt"], vpt__deep=False, vpt__prompt_dropout=0.3)
    assert TrialConfig.from_flat(given.flat()).method_settings["vpt"].prompt_dropout == 0.3


@pytest.mark.parametrize(
    ("epochs", "given", "random"), [(20, None, 2), (200, None, 10), (20, 7, 7)]
)
def test_random_epochs_follow_the_length_of_training(
    epochs: int, given: int | None, random: int
) -> None:
    config = trial(
        ["tcpa"],
        train__epochs=epochs,
        tcpa__random_epochs=given,
        tcpa__prompt_dropout=0.0,
        tcpa__top_k_cls=1,
    )
    backbone = tiny_backbone()
    pack = PackModel(backbone, [config], NUM_CLASSES)
    x = images(backbone)
    logits = {
        epoch: pack(x, training_step([config], [epoch], [1])).logits
        for epoch in (random - 1, random)
    }
    exact = pack(x, EVAL).logits
    assert torch.equal(logits[random], exact)
    assert not torch.equal(logits[random - 1], exact)


def test_val_that_is_trained_on_selects_nothing() -> None:
    for extra in ({}, {"train__selection": "last_epoch", "train__patience": 3}):
        with pytest.raises(
            ConfigError, match=r"train_on='train_and_val' leaves no val .*got train"
        ):
            trial(["linear"], data__train_on="train_and_val", **extra)
    trial(["linear"], data__train_on="train_and_val", train__selection="last_epoch")
