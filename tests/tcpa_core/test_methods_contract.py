"""What every method has to keep, on every kind of backbone; a new method file is swept up here."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tcpa_core import plugins
from tcpa_core.chain import method_class, pack_capacity
from tcpa_core.config import METHODS, TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.inspection import _attention as spelled_out
from tcpa_core.methods.base import BlockAttention, FitData, Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import PackModel
from tcpa_core.streams import Stream
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint
from tests.tcpa_core import checks
from tests.tcpa_core.tiny import (
    FAMILIES,
    NUM_CLASSES,
    images,
    tiny_backbone,
    training_step,
    trial,
)

CHAINS = [[name] for name in plugins.names(METHODS)]
CHAINS += [[base, "tcpa"] for base in ("vpt", "vfpt", "vp", "damvp", "autovp")]
BACKBONES = ("cls", "no_cls", "registers", "distilled", *FAMILIES)
EVAL = Step.evaluation(1)

SMALL: dict[str, dict[str, Any]] = {
    "tcpa": {"tcpa__num_cls_prompts": 4, "tcpa__num_image_prompts": 6},
    "e2vpt": {"e2vpt__num_segments": 8},
    "adaptformer": {"adaptformer__bottleneck": 4},
    "sa2vp": {"sa2vp__inner_dim": 4},
    "lion": {"lion__bottleneck": 4},
    "damvp": {"damvp__max_clusters": 3},
}
"""Settings that keep a case small."""

ZERO: dict[str, dict[str, Any]] = {
    "adapter": {"adapter__bottleneck": 0},
    "adaptformer": {"adaptformer__bottleneck": 0},
    "autovp": {"autovp__img_scale": 1.75},
    "bias": {},  # starts from the backbone's own values
    "cvpt": {"cvpt__num_prompts": 0},
    "damvp": {"damvp__prompt_size": 0},
    "e2vpt": {"e2vpt__num_prompts": 0, "e2vpt__num_kv_prompts": 0},
    "full": {},
    "gated": {"gated__num_prompts": 0},
    "linear": {},
    "lion": {"lion__bottleneck": 0},
    "lora": {"lora__rank": 0},
    "mlp": {"mlp__num_layers": 1},
    "partial": {"partial__num_blocks": 0},
    "sa2vp": {"sa2vp__inner_dim": 0},
    "sidetune": {"sidetune__channels": 0},
    "ssf": {"ssf__init_std": 0.0},
    "tcpa": {"tcpa__num_cls_prompts": 0, "tcpa__num_image_prompts": 0},
    "vfpt": {"vfpt__num_prompts": 0},
    "vp": {"vp__prompt_size": 0},
    "vpt": {"vpt__num_prompts": 0},
}
"""What leaves the backbone as it is."""

ROUNDING = {"ssf": "it has no capacity to take away, so its own path runs, for fewer tokens"}
"""Methods that equal the backbone to rounding only, and why."""

DEAD: dict[str, dict[str, str]] = {
    "lora": {"_down": "the factor up starts at 0"},
    "adapter": {"down": "the projection up starts at 0"},
    "adaptformer": {"down": "the projection up starts at 0"},
    "lion": {"": "s starts at 0, so z* does not depend on the rest"},
}
"""Tensors (by part of their name) without a gradient at the start, and why."""


def small(chain: list[str], **settings: Any) -> TrialConfig:
    merged: dict[str, Any] = {}
    for name in chain:
        merged |= SMALL.get(name, {})
    return trial(chain, **{**merged, **settings})


def layout_settings(chain: list[str], kind: str) -> dict[str, Any]:
    """TCPA has no CLS pool where no token has that role."""
    return {"tcpa__num_cls_prompts": 0} if "tcpa" in chain and kind == "no_cls" else {}


def data(backbone: Backbone, count: int = 12) -> FitData:
    x = images(backbone, samples=count, seed=5)[0]
    return FitData(labels=torch.arange(count) % NUM_CLASSES, batch=lambda i: x[i], stream=Stream(0))


REFUSED = {("ssf", "eva02"): "needs an MLP of two linear layers, got SwiGLU"}
"""Methods that a kind of backbone cannot carry, and what is said."""


def carries(chain: list[str], kind: str) -> bool:
    """Whether a kind of backbone carries a chain; else it says why not."""
    reasons = [REFUSED[name, kind] for name in chain if (name, kind) in REFUSED]
    if reasons:
        with pytest.raises(ConfigError, match=reasons[0]):
            build(tiny_backbone(kind), [small(chain)])
    return not reasons


def build(backbone: Backbone, configs: list[TrialConfig]) -> PackModel:
    states = [init_member_state(backbone, c, NUM_CLASSES, data(backbone)) for c in configs]
    return PackModel(backbone, configs, NUM_CLASSES, states)


def test_every_method_has_an_entry() -> None:
    assert set(plugins.names(METHODS)) == set(ZERO), "say what zero capacity means in ZERO"


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("name", sorted(ZERO))
def test_zero_capacity_is_the_frozen_backbone(name: str, kind: str) -> None:
    if not carries([name], kind):
        return
    backbone = tiny_backbone(kind)
    model = build(backbone, [trial([name], **ZERO[name])])
    plain = PackModel(backbone, [trial(["linear"])], NUM_CLASSES)
    x = images(backbone)
    ours, theirs = model(x, EVAL).logits, plain(x, EVAL).logits
    if name in ROUNDING:
        close(ours, theirs)
    else:
        assert torch.equal(ours, theirs), f"off by {(ours - theirs).abs().max()}"


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
def test_a_step_trains_what_it_says(chain: list[str], kind: str) -> None:
    """Frozen weights stay, every trained tensor gets a finite gradient, or is named as dead."""
    if not carries(chain, kind):
        return
    backbone = tiny_backbone(kind)
    before = {name: p.clone() for name, p in backbone.named_parameters()}
    model = build(backbone, [small(chain, **layout_settings(chain, kind))])
    x = images(backbone)
    output = model(x, training_step(model.configs, [0], [0]))
    loss = output.logits.square().mean() + output.penalty.sum()
    loss = loss + sum(share * logits.square().mean() for share, logits in output.side_logits)
    loss.backward()
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
    for name, tensor in model.tensors.trainable().items():
        reasons = [r for m in chain for part, r in DEAD.get(m, {}).items() if part in name]
        if tensor.grad is None or not tensor.grad.any():
            assert reasons, f"{name} gets no gradient"
        else:
            assert torch.isfinite(tensor.grad).all(), name


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
def test_saved_and_loaded_it_gives_equal_logits(chain: list[str], kind: str, tmp_path: Any) -> None:
    if not carries(chain, kind):
        return
    backbone = tiny_backbone(kind)
    config = small(chain, **layout_settings(chain, kind))
    model = build(backbone, [config])
    x = images(backbone)
    first = model(x, EVAL).logits
    assert torch.equal(first, model(x, EVAL).logits), "two evaluations differ"
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, model.tensors.state(0), {})
    state, _ = load_checkpoint(path)
    assert torch.equal(PackModel(backbone, [config], NUM_CLASSES, [state])(x, EVAL).logits, first)


@pytest.mark.parametrize("kind", ["cls", *FAMILIES])
@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
def test_a_member_computes_what_it_would_alone(chain: list[str], kind: str) -> None:
    if not carries(chain, kind):
        return
    backbone = tiny_backbone(kind)
    configs = [small(chain, seed=seed) for seed in range(2)]
    if pack_capacity(configs[0]) == 1:
        with pytest.raises(ConfigError, match="a pack holds 1 member"):
            build(backbone, configs)
        return
    pack = build(backbone, configs)
    x = images(backbone, members=2)
    packed = pack(x, training_step(configs, [0, 0], [3, 3]))
    for m, config in enumerate(configs):
        alone = build(backbone, [config])(x[m : m + 1], training_step([config], [0], [3]))
        close(packed.logits[m], alone.logits[0])
        close(packed.penalty[m], alone.penalty[0])


SHOWN = [(chain, {}) for chain in CHAINS]
SHOWN += [
    (["cvpt"], {"cvpt__position": position, "cvpt__weights": "random_frozen"})
    for position in range(1, 6)
]
SHOWN += [
    (["vpt"], {"vpt__deep": False}),
    (["vpt"], {"vpt__deep": False, "vpt__position": "end"}),
    (["vpt"], {"vpt__pool_prompts": True}),
    (["gated"], {"gated__pool_prompts": True}),
    (["e2vpt"], {"e2vpt__share_kv": False, "e2vpt__num_prompts": 0}),
    (["lora"], {"lora__targets": "q,k,v,o,fc1,fc2"}),
    (["tcpa"], {"tcpa__mask_mode": "pre", "tcpa__prompt_length": 2}),
    (["tcpa"], {"tcpa__match_tokens": False}),
    (["tcpa"], {"tcpa__split_roles": False}),
]


@pytest.mark.parametrize("kind", ["no_cls", "layer_scale", *FAMILIES])
@pytest.mark.parametrize(("chain", "settings"), SHOWN, ids=str)
def test_the_attention_that_figures_show_is_computed(
    chain: list[str], settings: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block's attention, as the method tells it, is that of a fused kernel of the pass."""
    if "pool_prompts" in str(settings) and kind in ("layer_scale", "pe"):
        return  # refused where nothing is averaged
    if kind == "eva02" and ("fc1" in str(settings) or not carries(chain, kind)):
        return  # refused where the MLP is gated
    backbone = tiny_backbone(kind)
    config = small(chain, **layout_settings(chain, kind), **settings)
    reasons = [method_class(name).hides_attention(config) for name in chain]
    if any(reasons):
        return  # figures say so
    states = [init_member_state(backbone, config, NUM_CLASSES, data(backbone))]
    pack = PackModel(backbone, [config], NUM_CLASSES, states, backend="twin")
    checks.shake(pack)
    monkeypatch.setattr("tcpa_core.model.attention._is_small", lambda *_: False)
    with torch.no_grad(), checks.Listener() as heard:
        seen = pack.forward_attention(images(backbone))
    assert len(seen.blocks) == backbone.layout.depth
    for told in seen.blocks:
        ours = spelled_out(told).weights_BHSU
        assert any(_equal(ours, theirs, told) for theirs in heard.maps)


def _equal(ours: Tensor, theirs: Tensor, told: BlockAttention) -> bool:
    if told.prompts is not None and theirs.shape[-1] > ours.shape[-1]:
        # a prompt that a token does not use is replaced by a twin behind all prompts
        count = told.prompts.k_MBHPE.shape[-2]
        theirs, twins = theirs[..., :-count], theirs[..., -count:]
        theirs = torch.cat([theirs[..., :-count], theirs[..., -count:] + twins], dim=-1)
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
def test_its_costs_are_known(chain: list[str]) -> None:
    model = build(tiny_backbone(), [small(chain)])
    total, without_head = model.tensors.num_trainable(0)
    assert 0 <= without_head <= total
    assert (without_head > 0) == (chain != ["linear"])
    assert model.flops_per_image() > 0


def close(ours: Tensor, theirs: Tensor) -> None:
    scale = max(float(theirs.detach().abs().max()), 1e-3)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11 * scale)
