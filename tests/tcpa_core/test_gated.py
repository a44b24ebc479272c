"""Gated prompt tuning: gates, temperatures, pooling (methods.md, 9 and 16)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import MemberState, Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import PackModel
from tcpa_core.model.single_model import build_model
from tcpa_core.training.optim import PackOptimizer
from tests.tcpa_core import checks, oracle
from tests.tcpa_core.checks import close
from tests.tcpa_core.tiny import KINDS, NUM_CLASSES, images, tiny_backbone, trial

EVAL = Step.evaluation(1)


def gated(seed: int = 0, **settings: Any) -> TrialConfig:
    return trial(["gated"], seed=seed, **{f"gated__{k}": v for k, v in settings.items()})


def literal(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Tensor:
    """Prompts are tokens; attention is spelled out head by head."""
    settings, vit = config.method_settings["gated"], backbone.vit
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(x))))
    prefix, size = backbone.layout.num_prefix, settings.num_prompts
    rate = settings.prompt_dropout
    p = oracle._drop(state["gated.prompts"], rate, len(x), step, "gated.prompt_dropout", 0)
    z = torch.cat([x[:, :prefix], p, x[:, prefix:]], dim=1)
    for layer, block in enumerate(vit.blocks):
        entered = z[:, prefix : prefix + size]
        z = z + block.ls1(
            _attention(block.attn, block.norm1(z), state["gated.temperatures"][layer])
        )
        z = z + block.ls2(block.mlp(block.norm2(z)))
        if layer < len(vit.blocks) - 1:
            g = 1 / (1 + torch.exp(-state["gated.gates"][layer]))
            mixed = g * z[:, prefix : prefix + size] + (1 - g) * entered
            z = torch.cat([z[:, :prefix], mixed, z[:, prefix + size :]], dim=1)
    if not settings.pool_prompts:
        z = torch.cat([z[:, :prefix], z[:, prefix + size :]], dim=1)
    z = vit.norm(z)
    if settings.pool_prompts:
        features = [vit.fc_norm(z[:, prefix:].mean(1))]
    else:
        is_distilled = backbone.layout.has_dist
        features = [z[:, 0], z[:, 1]] if is_distilled else [vit.forward_head(z, True)]
    logits = [
        f @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        for f, name in zip(features, ("head", "head_dist"), strict=False)
    ]
    return checks.loss_of(torch.stack(logits).mean(0))


def _attention(attn: Any, z: Tensor, temperature: Tensor) -> Tensor:
    q, k, v = (t.unflatten(-1, (attn.num_heads, -1)) for t in attn.qkv(z).chunk(3, dim=-1))
    q, k, mixed = attn.q_norm(q), attn.k_norm(k), []
    for h in range(attn.num_heads):
        scores = q[:, :, h] @ k[:, :, h].transpose(1, 2) / q.shape[-1] ** 0.5 / temperature
        mixed.append(scores.softmax(-1) @ v[:, :, h])
    return attn.proj(attn.norm(torch.cat(mixed, dim=-1)))


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_gradients_equal_the_literal_reference(kind: str, mode: str) -> None:
    checks.equals_literal(kind, gated(num_prompts=3, gate_init=0.3), mode, literal)


@pytest.mark.parametrize("kind", ["no_cls", "cls_avg"])
def test_pooled_prompts(kind: str) -> None:
    checks.equals_literal(kind, gated(num_prompts=3, pool_prompts=True), "train", literal)


PACKS = {
    "read": [gated(m, num_prompts=1 + 2 * m, gate_init=m - 1.0) for m in range(3)],
    "pooled": [gated(m, num_prompts=3, gate_init=m, pool_prompts=True) for m in range(3)],
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", PACKS)
def test_members_equal_their_solo_runs(name: str, mode: str) -> None:
    checks.members_equal_solo(PACKS[name], "cls_avg", mode)


@pytest.mark.parametrize("kind", KINDS)
def test_no_prompts_are_the_backbone_and_head_to_the_bit(kind: str) -> None:
    checks.is_backbone_and_head(gated(num_prompts=0), kind)


def test_open_gates_are_shallow_vpt() -> None:
    backbone = tiny_backbone()
    ours = build_model(
        gated(num_prompts=3, gate_init=-100), num_classes=NUM_CLASSES, backbone=backbone
    )
    state = {k.replace("gated.", "vpt."): v for k, v in ours.pack.tensors.state(0).items()}
    del state["vpt.gates"], state["vpt.temperatures"]
    plain = trial(["vpt"], vpt__num_prompts=3, vpt__deep=False)
    vpt = build_model(plain, num_classes=NUM_CLASSES, backbone=backbone, state=state)
    x = images(backbone)[0]
    close(ours.eval()(x), vpt.eval()(x))


def test_closed_gates_insert_the_same_prompts_in_every_block() -> None:
    backbone = tiny_backbone()
    ours = build_model(
        gated(num_prompts=3, gate_init=100), num_classes=NUM_CLASSES, backbone=backbone
    )
    state = ours.pack.tensors.state(0)
    prompts = state.pop("gated.prompts").expand(backbone.layout.depth, -1, -1)
    heads = {k: v for k, v in state.items() if k.startswith("head")}
    vpt = build_model(
        trial(["vpt"], vpt__num_prompts=3),
        num_classes=NUM_CLASSES,
        backbone=backbone,
        state=heads | {"vpt.prompts": prompts},
    )
    x = images(backbone)[0]
    close(ours.eval()(x), vpt.eval()(x))


def test_start_and_count() -> None:
    state = init_member_state(tiny_backbone(), gated(gate_init=5.0), NUM_CLASSES)
    assert state["gated.gates"].tolist() == [-5.0]
    assert state["gated.temperatures"].tolist() == [1.0, 1.0]
    assert checks.count_without_head(gated(num_prompts=100)) == 100 * 768 + 2 * 12 - 1


def test_temperatures_stay_in_range_and_scalars_do_not_decay() -> None:
    pack = PackModel(tiny_backbone(), [gated()], NUM_CLASSES)
    method: Any = pack.methods["gated"]
    method.temperatures.data[0] = torch.tensor([-3.0, 30.0])
    with torch.no_grad():
        pack(images(tiny_backbone()), EVAL)
    assert method.temperatures[0].tolist() == [0.01, 10.0]
    config = trial(["gated"], optim__weight_decay=0.5)
    optimizer = PackOptimizer(
        pack.tensors.trainable(), [config.optim], [{}], [pack.tensors.specs[0]], [0]
    )
    before = {k: v.detach().clone() for k, v in pack.tensors.trainable().items()}
    for parameter in pack.tensors.trainable().values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.schedule([[0.1]])
    optimizer.step()
    for key, parameter in pack.tensors.trainable().items():
        stays = key in ("gated.gates", "gated.temperatures")
        assert torch.equal(parameter.detach(), before[key]) is stays, key


def test_pooling_what_is_not_averaged() -> None:
    message = r"gated.pool_prompts needs a backbone that averages .* got pool 'token'"
    with pytest.raises(ConfigError, match=message):
        PackModel(tiny_backbone(), [gated(pool_prompts=True)], NUM_CLASSES)


def test_flops_are_those_that_torch_counts() -> None:
    assert checks.uncounted_flops(gated()) == 0
