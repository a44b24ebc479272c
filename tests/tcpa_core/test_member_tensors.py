"""What a trial's tensors are in a pack: stacked, padded with zeros, and given back as they came."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tcpa_core.errors import CheckpointError
from tcpa_core.methods.base import MemberState
from tcpa_core.model.head import Head
from tcpa_core.model.member_tensors import MemberTensors, init_member_state
from tests.tcpa_core.tiny import NUM_CLASSES, tiny_backbone, trial

SIZES = (1, 4, 2)
CONFIGS = [trial(["vpt"], seed=m, vpt__num_prompts=size) for m, size in enumerate(SIZES)]


def stacked() -> tuple[MemberTensors, list[MemberState]]:
    backbone = tiny_backbone()
    states = [init_member_state(backbone, config, NUM_CLASSES) for config in CONFIGS]
    return MemberTensors(backbone, CONFIGS, NUM_CLASSES, states), states


def test_members_get_back_what_they_brought() -> None:
    tensors, states = stacked()
    for m, state in enumerate(states):
        back = tensors.state(m)
        assert back.keys() == state.keys() == tensors.specs[m].keys()
        assert all(torch.equal(back[name], state[name]) for name in state)
        back["head.bias"].fill_(7.0)  # a copy: the pack keeps its own
        assert torch.equal(tensors.state(m)["head.bias"], state["head.bias"])


def test_what_stands_behind_a_members_size_is_zero() -> None:
    tensors, _ = stacked()
    prompts = tensors.stacked["vpt.prompts"]
    assert prompts.shape[:3] == (len(SIZES), 2, max(SIZES))
    for m, size in enumerate(SIZES):
        assert prompts[m, :, :size].all() and not prompts[m, :, size:].any()


def test_methods_get_their_tensors_and_the_head_the_rest() -> None:
    backbone = tiny_backbone()
    config = trial(["mlp"])
    state = init_member_state(backbone, config, NUM_CLASSES)
    tensors = MemberTensors(backbone, [config], NUM_CLASSES, [state])
    methods = nn.ModuleDict({"mlp": nn.Module()})
    rest = tensors.hand_to(methods)
    assert rest.keys() == {"head.weight", "head.bias"}
    held = {**dict(methods["mlp"].named_parameters()), **dict(methods["mlp"].named_buffers())}
    assert {f"mlp.{name}" for name in held} | rest.keys() == state.keys()
    assert {k for k, v in held.items() if isinstance(v, nn.Parameter)} == {
        k.removeprefix("mlp.") for k in tensors.trainable() if k not in rest
    }
    assert dict(methods["mlp"].named_buffers()), "running statistics are no parameters"


@pytest.mark.parametrize("change", ["missing", "foreign", "shape"])
def test_a_state_of_other_settings_is_refused(change: str) -> None:
    backbone, config = tiny_backbone(), CONFIGS[0]
    state = init_member_state(backbone, config, NUM_CLASSES)
    if change == "missing":
        del state["head.bias"]
    elif change == "foreign":
        state["vpt.other"] = torch.zeros(1)
    else:
        state["head.bias"] = torch.zeros(NUM_CLASSES + 1)
    with pytest.raises(CheckpointError, match=r"state of member 0 \(seed 0\) has tensors .*need"):
        MemberTensors(backbone, [config], NUM_CLASSES, [state])


def heads(kind: str) -> list[MemberState]:
    """Tensors of two trials that have a head alone."""
    backbone = tiny_backbone(kind)
    configs = [trial(["linear"], seed=seed) for seed in (1, 2)]
    return [init_member_state(backbone, config, NUM_CLASSES) for config in configs]


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("kind", ["cls", "distilled"])
def test_a_head_is_a_linear_layer_per_member(kind: str, members: int) -> None:
    states = heads(kind)[:members]
    head = Head({name: torch.stack([state[name] for state in states]) for name in states[0]})
    width = states[0]["head.weight"].shape[1] * (2 if kind == "distilled" else 1)
    x = torch.randn(members, 3, width, dtype=torch.float64, generator=torch.Generator())
    logits = head(x)
    for m, state in enumerate(states):
        parts = x[m].chunk(2, dim=-1) if kind == "distilled" else [x[m]]
        names = ("head", "head_dist")[: len(parts)]
        each = [
            F.linear(part, state[f"{name}.weight"], state[f"{name}.bias"])
            for part, name in zip(parts, names, strict=True)
        ]
        torch.testing.assert_close(logits[m], torch.stack(each).mean(0), rtol=1e-12, atol=1e-12)


def test_logits_are_not_rounded_by_autocast() -> None:
    (state, _) = heads("cls")
    head = Head({name: tensor[None].float() for name, tensor in state.items()})
    x = torch.randn(1, 3, state["head.weight"].shape[1], generator=torch.Generator())
    expected = head(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(x), expected)
        assert head(x.bfloat16()).dtype == torch.float32
