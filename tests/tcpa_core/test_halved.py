"""A network with its matrices in bfloat16, and what is worked out once for all blocks."""

import pytest
import torch
from torch import Tensor, nn

from tcpa_core.errors import ConfigError
from tcpa_core.methods._matching import _Compared, products
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.blocks import PromptProjections, keys_values, normalised
from tcpa_core.model.pack_model import PackModel
from tests.tcpa_core import checks
from tests.tcpa_core.test_methods_contract import CHAINS, data, layout_settings, small
from tests.tcpa_core.tiny import KINDS, NUM_CLASSES, images, tiny_backbone, training_step

from tcpa_core.model.member_tensors import init_member_state  # isort: skip


def matrices(backbone: Backbone) -> list[nn.Parameter]:
    layers = [m for m in backbone.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return [weight for layer in layers for weight in layer.parameters()]


@pytest.mark.parametrize("kind", KINDS)
def test_only_matrices_are_rounded_and_all_else_is_shared(kind: str) -> None:
    backbone = tiny_backbone(kind, dtype=torch.float32)
    half = backbone.halved()
    assert half is backbone.halved() is half.full.halved()
    assert half.full is backbone is backbone.full
    rounded = {id(weight) for weight in matrices(half)}
    kept = dict(backbone.named_parameters())
    assert kept.keys() == dict(half.named_parameters()).keys()
    for name, weight in half.named_parameters():
        assert not weight.requires_grad
        if id(weight) in rounded:
            assert torch.equal(weight, kept[name].to(torch.bfloat16))
            assert kept[name].dtype == torch.float32
        else:
            assert weight is kept[name]
    assert rounded and half.dtype == torch.float32


@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
@pytest.mark.parametrize("kind", ["cls", "layer_scale"])
def test_under_autocast_a_halved_network_gives_the_same_logits(chain: list[str], kind: str) -> None:
    backbone = tiny_backbone(kind, dtype=torch.float32)
    config = small(chain, **layout_settings(chain, kind))
    try:
        states = [init_member_state(backbone, config, NUM_CLASSES, data(backbone))]
    except ConfigError:
        return  # this backbone cannot carry it
    found = []
    for network in (backbone, backbone.halved()):
        pack = PackModel(network, [config], NUM_CLASSES, states)
        checks.shake(pack)
        with torch.autocast("cpu", torch.bfloat16):
            output = pack(images(backbone), training_step([config], [0], [0]))
        (output.logits.square().mean() + output.penalty.sum()).backward()
        grads = {k: v.grad for k, v in pack.tensors.trainable().items() if v.grad is not None}
        found.append((output, grads))
    (exact, grads), (half, half_grads) = found
    assert torch.equal(exact.logits, half.logits)
    assert torch.equal(exact.penalty, half.penalty)
    assert grads.keys() == half_grads.keys()
    for name, grad in grads.items():  # what queries, keys and values send back is added in bfloat16
        scale = float(grad.abs().max())
        torch.testing.assert_close(half_grads[name], grad, rtol=0, atol=0.03 * scale, msg=name)


@pytest.mark.parametrize("kind", ["cls", "layer_scale"])
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_prompts_of_all_blocks_are_projected_as_by_each_block(kind: str, norm: str) -> None:
    backbone = tiny_backbone(kind)
    if norm == "rms":
        for block in backbone.blocks:
            block.norm1 = nn.RMSNorm(backbone.layout.embed_dim, dtype=torch.float64)
    depth, width = backbone.layout.depth, backbone.layout.embed_dim
    prompts = torch.randn(depth, 2, 3, 5, width, dtype=torch.float64, requires_grad=True)
    together = PromptProjections(backbone.blocks)(prompts, None)
    for block, own, found in zip(backbone.blocks, prompts, together, strict=True):
        k, v = keys_values(block, normalised(block, own.flatten(0, 1)))
        torch.testing.assert_close(found.k_MBHPE.flatten(0, 1), k, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.v_MBHPE.flatten(0, 1), v, rtol=0, atol=1e-12)
        (expected,) = torch.autograd.grad((k * v).sum(), own, retain_graph=True)
        (grad,) = torch.autograd.grad(
            (found.k_MBHPE * found.v_MBHPE).sum(), prompts, retain_graph=True
        )
        index = int(grad.flatten(1).abs().sum(1).argmax())
        torch.testing.assert_close(grad[index], expected, rtol=0, atol=1e-11)


def compared(tokens: Tensor, keys: Tensor, chosen: Tensor, blind: bool) -> Tensor:
    passed, sums, squares = _Compared.apply(tokens, keys, products(tokens, keys), chosen)
    loss = (sums / squares.clamp_min(1e-24).sqrt()).square().sum()
    return loss if blind else loss + (passed**3).sum()


@pytest.mark.parametrize("blind", [False, True], ids=["tokens go on", "tokens end here"])
def test_what_tokens_and_keys_get_is_the_gradient_of_the_formula(blind: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    keys = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    chosen = torch.rand(2, 3, 4, 5, generator=generator) < 0.5
    cosines = (tokens.unsqueeze(-2) * keys[:, None, None]).sum(-1) * chosen
    literal = (cosines.sum(-1) / tokens.norm(dim=-1)).square().sum()
    literal = literal if blind else literal + (tokens**3).sum()
    ours = torch.autograd.grad(compared(tokens, keys, chosen, blind), (tokens, keys))
    for grad, expected in zip(ours, torch.autograd.grad(literal, (tokens, keys)), strict=True):
        torch.testing.assert_close(grad, expected, rtol=0, atol=1e-11)


def test_a_token_of_zeros_gives_no_nan() -> None:
    tokens = torch.zeros(1, 1, 2, 4, dtype=torch.float64, requires_grad=True)
    keys = torch.ones(1, 3, 4, dtype=torch.float64, requires_grad=True)
    chosen = torch.ones(1, 1, 2, 3, dtype=torch.bool)
    for grad in torch.autograd.grad(compared(tokens, keys, chosen, False), (tokens, keys)):
        assert grad.isfinite().all()
