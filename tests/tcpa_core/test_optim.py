"""The pack's optimiser makes the same steps as torch's own, member by member."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tcpa_core.chain import pack_key
from tcpa_core.methods.base import ParamSpec
from tcpa_core.settings import OptimConfig
from tcpa_core.training.optim import PackOptimizer, lr_at
from tests.tcpa_core.tiny import trial

SHAPES = [{"w": (3, 4), "b": (3,)}, {"w": (2, 4), "b": (2,)}]
"""Two members of different size; the second is padded."""

SPECS = [
    {name: ParamSpec(shape, lambda tensor, generator: None) for name, shape in shapes.items()}
    for shapes in SHAPES
]


def _members(dtype: torch.dtype = torch.float64) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {k: torch.randn(shape, generator=generator, dtype=dtype) for k, shape in shapes.items()}
        for shapes in SHAPES
    ]


def _stack(members: list[dict[str, torch.Tensor]]) -> dict[str, nn.Parameter]:
    stacked = {}
    for name in members[0]:
        out = torch.zeros(len(members), *SHAPES[0][name], dtype=members[0][name].dtype)
        for m, member in enumerate(members):
            out[m][tuple(slice(0, n) for n in member[name].shape)] = member[name]
        stacked[name] = nn.Parameter(out)
    return stacked


def _crop(stacked: dict[str, nn.Parameter], name: str, m: int) -> torch.Tensor:
    return stacked[name].detach()[m][tuple(slice(0, n) for n in SHAPES[m][name])]


def _reference(config: OptimConfig, params: list[nn.Parameter]) -> torch.optim.Optimizer:
    if config.name == "adamw":
        return torch.optim.AdamW(params, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        params, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum
    )


def test_without_decay_vpts_adamw_is_sgd() -> None:
    quirk = OptimConfig(name="adamw", weight_decay=0.0, adamw_wd0="sgd", lr=0.1)
    assert [quirk.rule, replace_decay(quirk, 0.1).rule] == ["sgd", "adamw"]
    first, second = trial(["linear"]), trial(["linear"], optim__weight_decay=0.0)
    assert pack_key(first) == pack_key(second)
    assert pack_key(first) != pack_key(second.replace_paths({"optim.adamw_wd0": "sgd"}))
    members, after = _members()[:1], []
    for config in (quirk, OptimConfig(name="sgd", weight_decay=0.0, lr=0.1)):
        param = nn.Parameter(members[0]["w"][None].clone())
        optimizer = PackOptimizer({"w": param}, [config], [{}], SPECS[:1], [0])
        param.grad = torch.ones_like(param)
        optimizer.step([0.1])
        after.append(param.detach())
    assert torch.equal(*after)


def replace_decay(config: OptimConfig, weight_decay: float) -> OptimConfig:
    return config.model_copy(update={"weight_decay": weight_decay})


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_members_follow_torch(name: str) -> None:
    configs = [
        OptimConfig(name=name, lr=0.1, weight_decay=0.5, clip_norm=0.7),
        OptimConfig(name=name, lr=0.02, weight_decay=0.0, momentum=0.5),
    ]
    members = _members()
    stacked = _stack(members)
    ours = PackOptimizer(stacked, configs, [{}, {}], SPECS, [0, 0])
    alone = [{k: nn.Parameter(v.clone()) for k, v in m.items()} for m in members]
    theirs = [_reference(c, list(p.values())) for c, p in zip(configs, alone, strict=True)]
    for step in range(5):
        ours.zero_grad()
        loss = sum(((p - step) ** 3).flatten(1).sum(1) for p in stacked.values())
        loss.sum().backward()
        for p in stacked.values():  # padding gets no gradient in a model
            p.grad[1, 2:] = 0
        ours.step([c.lr for c in configs])
        for config, params, optimizer in zip(configs, alone, theirs, strict=True):
            optimizer.zero_grad()
            sum(((p - step) ** 3).sum() for p in params.values()).backward()
            if config.clip_norm:
                nn.utils.clip_grad_norm_(params.values(), config.clip_norm)
            optimizer.step()
    for m, params in enumerate(alone):
        for key, param in params.items():
            torch.testing.assert_close(_crop(stacked, key, m), param.detach(), rtol=1e-6, atol=0)
    assert stacked["w"].detach()[1, 2:].abs().sum() == 0, "padding must stay zero"


def test_moments_survive_a_change_of_neighbours() -> None:
    config = OptimConfig(lr=0.1)
    members = _members()
    stacked = _stack(members)
    ours = PackOptimizer(stacked, [config, config], [{}, {}], SPECS, [0, 0])
    for p in stacked.values():
        p.grad = torch.ones_like(p)
    ours.step([0.1, 0.1])
    saved = ours.moments(1)
    assert saved["exp_avg/w"].shape == (2, 4)
    solo = {k: nn.Parameter(_crop(stacked, k, 1).clone()[None]) for k in stacked}
    again = PackOptimizer(solo, [config], [saved], [SPECS[1]], [1])
    for p in [*solo.values(), *stacked.values()]:
        p.grad = torch.ones_like(p)
    again.step([0.1])
    ours.step([0.1, 0.1])
    for key, param in solo.items():
        assert torch.equal(param.detach()[0], _crop(stacked, key, 1))


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    config = OptimConfig(lr=2.0, warmup_fraction=0.2)
    rates = [lr_at(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[19] == rates[20] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 79 / 80)))
    constant = OptimConfig(lr=2.0, warmup_fraction=0.0, schedule="constant")
    assert {lr_at(constant, step, 10) for step in range(10)} == {2.0}


def test_a_tensor_has_its_own_rate_and_decay() -> None:
    config = OptimConfig(name="adamw", lr=0.1, weight_decay=0.5)
    spec = replace(SPECS[0]["w"], lr_scale=10.0, decay=False)
    start = _members()[0]["w"]
    stacked = {"w": nn.Parameter(start[None].clone())}
    theirs = nn.Parameter(start.clone())
    reference = torch.optim.AdamW([theirs], lr=1.0, weight_decay=0.0)
    ours = PackOptimizer(stacked, [config], [{}], [{"w": spec}], [0])
    for _ in range(3):
        for parameter, optimizer in ((stacked["w"], ours), (theirs, reference)):
            optimizer.zero_grad()
            (parameter**3).sum().backward()
        ours.step([0.1])
        reference.step()
    torch.testing.assert_close(stacked["w"][0].detach(), theirs.detach())
