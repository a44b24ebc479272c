"""VFPT, alone and under TCPA: the transform, its settings and its facts (methods.md, 4 and 16)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import MemberState, Pass, Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import PackModel
from tcpa_core.model.single_model import build_model
from tests.tcpa_core import checks, oracle
from tests.tcpa_core.checks import close
from tests.tcpa_core.tiny import KINDS, NUM_CLASSES, images, tiny_backbone, training_step, trial

EVAL = Step.evaluation(1)
POOLS: dict[str, Any] = {
    "tcpa__num_cls_prompts": 3,
    "tcpa__num_image_prompts": 4,
    "tcpa__top_k_cls": 2,
    "tcpa__top_k_image": 2,
    "tcpa__prompt_length": 2,
    "tcpa__image_prompt_length": 1,
    "tcpa__random_epochs": 0,
}


def vfpt(size: int = 5, fraction: float | None = None, **settings: Any) -> TrialConfig:
    named = {f"vfpt__{key}": value for key, value in settings.items() if key != "seed"}
    paths = {"vfpt__num_prompts": size, "vfpt__fraction": fraction, **named}
    return trial(["vfpt"], seed=settings.get("seed", 0), **paths)


def pair(**settings: Any) -> TrialConfig:
    return trial(["vfpt", "tcpa"], **{**POOLS, **settings})


TRIALS = {
    "half": vfpt(),
    "whole": vfpt(4, 1.0, prompt_dropout=0.2),
    "one": vfpt(1, 1.0),
    "hidden": vfpt(5, 0.7, dims="hidden"),
    "sequence": vfpt(5, 0.7, dims="sequence"),
    "append": vfpt(5, 0.6, location="append"),
    "former": vfpt(3, 1.0, layers="former"),
    "later": vfpt(3, 1.0, layers="later"),
    "mixed": vfpt(3, 1.0, layers="mixed"),
    "shallow": vfpt(5, 0.5, deep=False, prompt_dropout=0.2),
    "shallow at the end": vfpt(3, 1.0, deep=False, position="end"),
    "projected": vfpt(4, 0.5, project_dim=6),
    "tcpa": pair(),
    "tcpa pools apart": pair(tcpa__fourier_scope="per_pool"),
    "tcpa part": pair(vfpt__fraction=0.4, vfpt__location="append", tcpa__mask_mode="pre"),
}


def literal(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Tensor:
    return checks.loss_of(oracle.run(backbone, config, state, x, step).logits)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", ["cls", "registers", "distilled", "layer_scale"])
@pytest.mark.parametrize("name", TRIALS)
def test_forward_and_gradients_equal_the_literal_reference(name: str, kind: str, mode: str) -> None:
    checks.equals_literal(kind, TRIALS[name], mode, literal)


@pytest.mark.parametrize("kind", ["no_cls", "cls_avg", "map_pool", "dynamic"])
@pytest.mark.parametrize("name", ["half", "shallow", "tcpa"])
def test_every_backbone(name: str, kind: str) -> None:
    config = TRIALS[name]
    if kind == "no_cls" and name == "tcpa":
        config = pair(tcpa__num_cls_prompts=0)
    checks.equals_literal(kind, config, "train", literal)


PACKS = {
    "vfpt": [vfpt(2, 0.5, seed=1), vfpt(7, 1.0, seed=2), vfpt(4, 0.0, seed=3)],
    "shallow": [vfpt(n, 0.6, deep=False, prompt_dropout=0.1 * n, seed=n) for n in (1, 5, 3)],
    "hidden": [vfpt(2, 0.5, dims="hidden", seed=1), vfpt(5, 1.0, dims="hidden", seed=2)],
    "random": [vfpt(n, 0.5, location="random", seed=n) for n in (3, 6, 2)],
    "projected": [vfpt(n, project_dim=2 * n, seed=n) for n in (4, 2)],
    **{
        scope: [
            pair(
                seed=m,
                tcpa__fourier_scope=scope,
                tcpa__num_cls_prompts=2 + m,
                tcpa__num_image_prompts=6 - m,
                tcpa__prompt_length=1 + m,
                tcpa__image_prompt_length=3 - m,
                tcpa__prompt_dropout=0.1 * m,
                vfpt__fraction=1 - 0.3 * m,
            )
            for m in range(3)
        ]
        for scope in ("joint", "per_pool")
    },
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", PACKS)
def test_members_equal_their_solo_runs(name: str, mode: str) -> None:
    checks.members_equal_solo(PACKS[name], "registers", mode)


@pytest.mark.parametrize("dims", ["all", "hidden", "sequence"])
def test_the_transform_is_exact_and_leaves_the_padding_alone(dims: str) -> None:
    configs = [vfpt(n, f, dims=dims) for n, f in ((7, 1.0), (10, 0.5), (3, 0.99), (1, 1.0))]
    method: Any = PackModel(tiny_backbone(), configs, NUM_CLASSES).methods["vfpt"]
    prompts = torch.zeros(4, 2, 10, 33, dtype=torch.float64)
    sizes = [7, 10, 3, 1]
    generator = torch.Generator().manual_seed(0)
    for m, size in enumerate(sizes):
        prompts[m, :, :size].uniform_(-1, 1, generator=generator)
    changed = method.on_prompts(prompts, sizes, 0, EVAL)
    for m, (config, size) in enumerate(zip(configs, sizes, strict=True)):
        expected = oracle.fourier(config, prompts[m, :, :size], 0, 2)
        torch.testing.assert_close(changed[m, :, :size], expected, rtol=0, atol=1e-12)
        assert not changed[m, :, size:].any()


def test_rows_are_mirrored_in_pairs() -> None:
    method: Any = PackModel(tiny_backbone(), [vfpt(6, 1.0)], NUM_CLASSES).methods["vfpt"]
    rows = method.on_prompts(method.prompts[:, 0], [6], 0, EVAL)[0]
    channels = -torch.arange(rows.shape[1]) % rows.shape[1]
    for k in range(6):
        close(rows[k], rows[-k % 6][channels])


def test_no_fraction_is_vpt_to_the_bit() -> None:
    backbone = tiny_backbone()
    ours = build_model(vfpt(5, 0.1), num_classes=NUM_CLASSES, backbone=backbone)
    state = {k.replace("vfpt.", "vpt."): v for k, v in ours.pack.tensors.state(0).items()}
    plain = trial(["vpt"], vpt__num_prompts=5)
    vpt = build_model(plain, num_classes=NUM_CLASSES, backbone=backbone, state=state)
    x = images(backbone)[0]
    assert torch.equal(ours.eval()(x), vpt.eval()(x))


def test_whole_transform_does_not_see_the_scale_of_the_prompts() -> None:
    backbone, config = tiny_backbone(), vfpt(4, 1.0)
    state = init_member_state(backbone, config, NUM_CLASSES)
    grown = {**state, "vfpt.prompts": 50 * state["vfpt.prompts"]}
    first, second = (
        PackModel(backbone, [config], NUM_CLASSES, [s])(images(backbone), EVAL).logits
        for s in (state, grown)
    )
    close(first, second, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_prompts_are_the_backbone_and_head_to_the_bit(kind: str) -> None:
    checks.is_backbone_and_head(vfpt(0), kind)
    empty = pair(tcpa__num_cls_prompts=0, tcpa__num_image_prompts=0)
    checks.is_backbone_and_head(empty, kind)


def test_random_rows_are_transformed_alone_and_rest_in_evaluation() -> None:
    backbone, config = tiny_backbone(), vfpt(6, 0.5, location="random", prompt_dropout=0.0)
    pack = PackModel(backbone, [config], NUM_CLASSES)
    method: Any = pack.methods["vfpt"]
    raw = method.prompts[:, 0].detach()
    alone = torch.fft.fft(raw).real
    seen = set()
    for i in range(8):
        rows = method.on_prompts(raw, [6], 0, training_step([config], [0], [i]))
        moved = (rows - raw).abs().sum(-1)[0] > 1e-9
        assert int(moved.sum()) == 3
        torch.testing.assert_close(rows[0, moved], alone[0, moved])
        seen.add(tuple(moved.tolist()))
    assert len(seen) > 2
    x = images(backbone)
    assert torch.equal(pack(x, EVAL).logits, pack(x, EVAL).logits)
    other = method.on_prompts(raw, [6], 1, EVAL)
    assert not torch.equal(method.on_prompts(raw, [6], 0, EVAL), other), "each block its own rows"


def test_prompts_of_a_step_are_prepared_once_unless_they_are_dropped() -> None:
    backbone = tiny_backbone()
    for config in (vfpt(prompt_dropout=0.0), pair(tcpa__prompt_dropout=0.0)):
        pack = PackModel(backbone, [config], NUM_CLASSES)
        method: Any = pack.methods[config.methods[-1]]
        state = method.begin(
            Pass(step=training_step([config], [0], [0]), rows=pack.backbone.rows_read, backend=None)
        )
        tokens = backbone.embed(images(backbone)[0])[None]
        method.on_block(0, backbone.blocks[0], tokens, state)
        assert [keys.k_MBHPE.shape[1] for keys in state.projected] == [1] * backbone.layout.depth


def test_under_autocast_the_transform_stays_in_float32() -> None:
    backbone = tiny_backbone(dtype=torch.float32)
    method: Any = PackModel(backbone, [vfpt(5, 1.0)], NUM_CLASSES).methods["vfpt"]
    raw = method.prompts[:, 0].detach()
    exact = method.on_prompts(raw, [5], 0, EVAL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method.on_prompts(raw, [5], 0, EVAL)
        from_half = method.on_prompts(raw.bfloat16(), [5], 0, EVAL)
    assert torch.equal(inside, exact)
    assert from_half.dtype == torch.float32


def test_a_matrix_made_for_inference_can_be_trained_with() -> None:
    backbone = tiny_backbone()
    pack = PackModel(backbone, [vfpt(5, 1.0)], NUM_CLASSES)
    with torch.inference_mode():
        pack(images(backbone), EVAL)
    pack(images(backbone), EVAL).logits.sum().backward()
    grad = pack.tensors.trainable()["vfpt.prompts"].grad
    assert grad is not None and grad.any()


def test_under_tcpa_all_prompts_are_transformed_and_order_matters() -> None:
    backbone, x = tiny_backbone(), images(tiny_backbone())
    config = pair()
    state = init_member_state(backbone, config, NUM_CLASSES)
    assert set(state) == set(init_member_state(backbone, trial(["tcpa"], **POOLS), NUM_CLASSES))

    def logits(config: TrialConfig, state: MemberState = state) -> Tensor:
        return PackModel(backbone, [config], NUM_CLASSES, [state])(x, EVAL).logits

    ours = logits(config)
    assert torch.equal(ours, logits(pair(vfpt__fraction=1.0)))
    assert torch.equal(ours, logits(trial(["tcpa", "vfpt"], **POOLS)))
    for other in (
        trial(["tcpa"], **POOLS),
        pair(vfpt__fraction=0.5),
        pair(tcpa__fourier_scope="per_pool"),
    ):
        assert (logits(other) - ours).abs().max() > 1e-3
    order = [1, 0, 2]
    shuffled = dict(state)
    for part in ("prompts", "keys"):
        shuffled[f"tcpa.cls_{part}"] = state[f"tcpa.cls_{part}"][:, order]
    assert (logits(config, shuffled) - ours).abs().max() > 1e-3


def test_counts_are_those_of_vpt() -> None:
    assert checks.count_without_head(vfpt(10)) == 92_160
    assert checks.count_without_head(vfpt(10, deep=False)) == 7_680
    paper = trial(["vfpt", "tcpa"])
    assert checks.count_without_head(paper) == 552_960


def test_settings_that_contradict() -> None:
    with pytest.raises(ConfigError, match="^vfpt.dims must be 'all' or 'hidden' with"):
        vfpt(location="random", dims="sequence")
    with pytest.raises(ConfigError, match="'tcpa' takes the place of prompts .* vfpt.deep=False"):
        PackModel(tiny_backbone(), [pair(vfpt__deep=False)], NUM_CLASSES)
    with pytest.raises(ConfigError, match="'vpt' and 'vfpt' cannot be chained"):
        PackModel(tiny_backbone(), [trial(["vpt", "vfpt"])], NUM_CLASSES)


@pytest.mark.parametrize("config", [TRIALS["half"], TRIALS["tcpa"]])
def test_flops_are_those_that_torch_counts(config: TrialConfig) -> None:
    assert checks.uncounted_flops(config) == 0
