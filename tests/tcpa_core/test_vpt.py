"""VPT's projection, place in the sequence and pooled prompts (methods.md, 0.3 and 3)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tcpa_core.chain import pack_key
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import MemberState, Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import PackModel
from tests.tcpa_core import checks, oracle
from tests.tcpa_core.checks import close
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone, trial

EVAL = Step.evaluation(1)


def vpt(seed: int = 0, **settings: Any) -> TrialConfig:
    return trial(["vpt"], seed=seed, **{f"vpt__{k}": v for k, v in settings.items()})


def literal(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Tensor:
    return checks.loss_of(oracle.run(backbone, config, state, x, step).logits)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("registers", {"project_dim": 5}),
        ("cls_avg", {"project_dim": 5, "position": "end"}),
        ("distilled", {"position": "end"}),
        ("dynamic", {"position": "end"}),
        ("no_cls", {"pool_prompts": True}),
        ("cls_avg", {"pool_prompts": True, "position": "end"}),
    ],
)
def test_forward_and_gradients_equal_the_literal_reference(
    kind: str, settings: dict[str, Any], deep: bool, mode: str
) -> None:
    config = vpt(num_prompts=3, deep=deep, prompt_dropout=0.2, **settings)
    checks.equals_literal(kind, config, mode, literal)


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("position", ["after_prefix", "end"])
def test_members_equal_their_solo_runs(deep: bool, position: str) -> None:
    configs = [
        vpt(m, num_prompts=5 - 2 * m, project_dim=2 + m, deep=deep, position=position)
        for m in range(3)
    ]
    checks.members_equal_solo(configs, "cls_avg", "train")


def test_pooled_prompts_share_a_pack_with_equal_counts_only() -> None:
    few, many = vpt(num_prompts=2, pool_prompts=True), vpt(num_prompts=3, pool_prompts=True)
    assert pack_key(few) != pack_key(many)
    assert pack_key(few) == pack_key(vpt(1, num_prompts=2, pool_prompts=True))
    assert pack_key(vpt(num_prompts=2)) == pack_key(vpt(num_prompts=3))


def test_place_of_shallow_prompts_does_not_matter_but_for_the_sequence() -> None:
    backbone, x = tiny_backbone(), images(tiny_backbone())
    first, second = (
        PackModel(backbone, [vpt(deep=False, num_prompts=2, position=p)], NUM_CLASSES)
        for p in ("after_prefix", "end")
    )
    close(first(x, EVAL).logits, second(x, EVAL).logits)
    before, after = (pack.forward_blocks(x, EVAL).tokens for pack in (first, second))
    assert torch.equal(before[:, :, 1:3], after[:, :, -2:])


def test_pooling_prompts_changes_the_features() -> None:
    backbone, x = tiny_backbone("cls_avg"), images(tiny_backbone("cls_avg"))
    packs = [
        PackModel(backbone, [vpt(pool_prompts=pooled)], NUM_CLASSES) for pooled in (True, False)
    ]
    first, second = (pack(x, EVAL).logits for pack in packs)
    assert (first - second).abs().max() > 1e-3
    assert packs[0].flops_per_image() > packs[1].flops_per_image()


def test_start_and_counts_of_a_projection() -> None:
    state = init_member_state(tiny_backbone(), vpt(num_prompts=50, project_dim=8), NUM_CLASSES)
    assert 0.95 < float(state["vpt.prompts"].abs().max()) / (6 / (3 * 64 + 8)) ** 0.5 <= 1
    assert 0.8 < float(state["vpt.project_weight"].std()) / (2 / 32) ** 0.5 < 1.2
    assert 0.6 < float(state["vpt.project_bias"].abs().max()) * 8**0.5 <= 1
    assert checks.count_without_head(vpt(project_dim=100)) == 12 * 10 * 100 + 768 * 101


def test_pooling_needs_an_average() -> None:
    with pytest.raises(ConfigError, match=r"vpt.pool_prompts needs a backbone that averages"):
        PackModel(tiny_backbone("map_pool"), [vpt(pool_prompts=True)], NUM_CLASSES)


@pytest.mark.parametrize("settings", [{}, {"deep": False}, {"pool_prompts": True}])
def test_flops_are_those_that_torch_counts(settings: dict[str, Any]) -> None:
    assert checks.uncounted_flops(vpt(**settings)) == 0
