"""The pack's optimiser makes the same steps as torch's own, member by member."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tcpa_core.chain import pack_key
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import ParamSpec
from tcpa_core.settings import OptimConfig
from tcpa_core.training.optim import PackOptimizer, floor_at, lr_at
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


def _reference(config: OptimConfig, params: list[Any]) -> torch.optim.Optimizer:
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
        optimizer.schedule([[0.1]])
        optimizer.step()
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
    ours.schedule([[c.lr for c in configs]] * 5)
    for step in range(5):
        loss = sum(((p - step) ** 3).flatten(1).sum(1) for p in stacked.values())
        loss.sum().backward()
        for p in stacked.values():  # padding gets no gradient in a model
            p.grad[1, 2:] = 0
        ours.step()
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
    ours.schedule([[0.1, 0.1]] * 2)
    for p in stacked.values():
        p.grad = torch.ones_like(p)
    ours.step()
    saved = ours.member_of(ours.values[:, 1].clone(), 1)[1]
    assert saved["exp_avg/w"].shape == (2, 4)
    solo = {k: nn.Parameter(_crop(stacked, k, 1).clone()[None]) for k in stacked}
    again = PackOptimizer(solo, [config], [saved], [SPECS[1]], [1])
    for p in [*solo.values(), *stacked.values()]:
        p.grad = torch.ones_like(p)
    again.schedule([[0.1]])
    again.step()
    ours.step()
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
    ours.schedule([[0.1]] * 3)
    for _ in range(3):
        reference.zero_grad()
        for parameter in (stacked["w"], theirs):
            (parameter**3).sum().backward()
        ours.step()
        reference.step()
    torch.testing.assert_close(stacked["w"][0].detach(), theirs.detach())


def test_a_tensor_without_gradient_stays_as_it_is() -> None:
    config = OptimConfig(lr=0.1, weight_decay=0.5)
    names = ["a", "b", "c", "d"]
    specs = {name: SPECS[0]["w"] for name in names}
    params = {name: nn.Parameter(_members()[0]["w"][None].clone()) for name in names}
    ours = PackOptimizer(params, [config], [{}], [specs], [0])
    idle_steps: list[set[str]] = [{"b"}, {"a", "d"}, set(), {"b"}]
    ours.schedule([[0.1]] * len(idle_steps))
    for idle in idle_steps:
        for name, param in params.items():
            param.grad = None if name in idle else param.detach() ** 2
        before = {k: p.detach().clone() for k, p in params.items()}
        _, moments = ours.member_of(ours.values[:, 0].clone(), 0)
        ours.step()
        for name, param in params.items():
            assert torch.equal(param.detach(), before[name]) is (name in idle), name
        for key, value in ours.member_of(ours.values[:, 0], 0)[1].items():
            assert torch.equal(value, moments[key]) is (key.split("/")[1] in idle), key


class _Count(TorchDispatchMode):
    """Counts operations that are more than another view."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


VIEWS = {"view", "select", "slice", "unbind", "detach", "alias", "_unsafe_view"}


@pytest.mark.parametrize(("name", "most"), [("adamw", 12), ("sgd", 8)])
def test_a_step_takes_as_many_operations_for_many_tensors_as_for_one(name: str, most: int) -> None:
    config = OptimConfig.model_validate({"name": name, "lr": 0.1, "clip_norm": 0.5})
    for count in (1, 100):
        spec = SPECS[0]["b"]
        params = {str(i): nn.Parameter(torch.ones(2, 3)) for i in range(count)}
        specs = [dict.fromkeys(params, spec)] * 2
        ours = PackOptimizer(params, [config] * 2, [{}, {}], specs, [0, 0])
        ours.schedule([[0.1, 0.1]])
        for param in params.values():
            param.grad = torch.ones_like(param)
        with _Count() as operations:
            ours.step()
        clip = 7  # a norm, two for the joint one, three for the factor, one to apply it
        assert len(operations.found) <= most + clip, operations.found


def test_a_row_of_the_block_is_a_member() -> None:
    config = OptimConfig(lr=0.1)
    members = _members()
    stacked = _stack(members)
    ours = PackOptimizer(stacked, [config, config], [{}, {}], SPECS, [0, 0])
    ours.schedule([[0.1, 0.1]])
    for p in stacked.values():
        p.grad = torch.ones_like(p)
    ours.step()
    copies = ours.values.clone()
    for m in range(2):
        state, moments = ours.member_of(copies[:, m], m)
        assert {name: tuple(t.shape) for name, t in state.items()} == SHAPES[m]
        for name, tensor in state.items():
            assert torch.equal(tensor, _crop(stacked, name, m))
        assert moments.keys() == {f"{slot}/{name}" for slot in ours.slots for name in state}
        _, kept = ours.member_of(ours.values[:, m], m)
        assert all(torch.equal(kept[key], value) for key, value in moments.items())
    for name, param in stacked.items():
        start = ours.columns[name].start * param.element_size()
        assert param.data_ptr() == ours.values.data_ptr() + start, "parameters are the block itself"


POLY = {"schedule": "poly", "warmup_fraction": 0.0, "min_lr": 1e-4, "poly_power": 0.9}
"""As mmsegmentation's schedules of 160,000 steps."""


def _group_rate(base: float, step: int, num_steps: int) -> float:
    """mmcv's rate of a group of tensors whose own peak is `base`."""
    return float((base - 1e-4) * (1 - step / num_steps) ** 0.9 + 1e-4)


def test_poly_falls_to_its_own_end() -> None:
    config = OptimConfig(lr=1e-3, **POLY)
    for step in (0, 1, 79_999, 159_999):
        assert lr_at(config, step, 160_000) == pytest.approx(_group_rate(1e-3, step, 160_000))
    line = OptimConfig(lr=1.0, schedule="poly", poly_power=1.0, warmup_fraction=0.5)
    rates = [lr_at(line, step, 8) for step in range(8)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25])
    assert {floor_at(line, step, 8) for step in range(8)} == {0.0}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_head_has_a_rate_of_its_own_and_the_same_end(name: str) -> None:
    shared = {"name": name, "weight_decay": 0.1, **POLY}
    configs = [OptimConfig(lr=1e-3, head_lr=10.0, **shared), OptimConfig(lr=4e-3, **shared)]
    start = _members()[0]["w"]
    params = {key: nn.Parameter(torch.stack([start, start])) for key in ("head.weight", "vpt.p")}
    specs = [dict.fromkeys(params, SPECS[0]["w"])] * 2
    ours = PackOptimizer(params, configs, [{}, {}], specs, [0, 0])
    steps = range(6)
    ours.schedule(
        [[lr_at(c, step, 6) for c in configs] for step in steps],
        [[floor_at(c, step, 6) for c in configs] for step in steps],
    )
    alone = [{key: nn.Parameter(start.clone()) for key in params} for _ in configs]
    peaks = [{"head.weight": 1e-2, "vpt.p": 1e-3}, {"head.weight": 4e-3, "vpt.p": 4e-3}]
    theirs = [
        _reference(c, [{"params": [p]} for p in tensors.values()])
        for c, tensors in zip(configs, alone, strict=True)
    ]
    for step in steps:
        for param in params.values():
            param.grad = 3 * param.detach() ** 2
        ours.step()
        for tensors, rates, optimizer in zip(alone, peaks, theirs, strict=True):
            for (key, param), group in zip(tensors.items(), optimizer.param_groups, strict=True):
                group["lr"] = _group_rate(rates[key], step, 6)
                param.grad = 3 * param.detach() ** 2
            optimizer.step()
    for m, tensors in enumerate(alone):
        for key, param in tensors.items():
            torch.testing.assert_close(params[key][m].detach(), param.detach(), rtol=1e-6, atol=0)


def test_poly_ends_below_its_peak() -> None:
    with pytest.raises(ConfigError, match=r"optim.min_lr must be <= optim.lr, .* lr=0.0001 and"):
        trial(["vpt"], optim__schedule="poly", optim__lr=1e-4, optim__min_lr=1e-3)
    with pytest.raises(ConfigError, match=r"min_lr=0.001 with lr=0.005 and head_lr=0.1; lower"):
        trial(["vpt"], optim__schedule="poly", optim__lr=5e-3, optim__min_lr=1e-3,
              optim__head_lr=0.1)  # fmt: skip
    idle = trial(["vpt"], optim__min_lr=1.0, optim__poly_power=2.0)
    assert idle.effective() == trial(["vpt"]).effective()
