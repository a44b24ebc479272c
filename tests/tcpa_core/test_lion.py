"""LION (re-implementation): the fixed point, its gradient, pruning (methods.md, 10 and 16)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import MemberState, Pass, Step
from tcpa_core.methods.lion import _contract
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import PackModel
from tests.tcpa_core import checks
from tests.tcpa_core.checks import close
from tests.tcpa_core.tiny import KINDS, NUM_CLASSES, images, tiny_backbone, trial

EVAL = Step.evaluation(1)
EXACT = {"tolerance": 1e-14, "max_steps": 200}


def lion(seed: int = 0, **settings: Any) -> TrialConfig:
    return trial(["lion"], seed=seed, **{f"lion__{k}": v for k, v in settings.items()})


def literal(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Tensor:
    """The fixed point by many plain steps in full width; autograd goes through all of them."""
    vit = backbone.vit
    own = {k.removeprefix("lion."): v for k, v in state.items() if k.startswith("lion.")}
    one_step = config.method_settings["lion"].gradient == "one_step"

    def layer(side: int, u: Tensor) -> Tensor:
        w1, w2 = (
            own[name][side] / max(1.0, torch.linalg.matrix_norm(own[name][side], 2).item())
            for name in ("state_weight", "up_weight")
        )

        def function(z: Tensor) -> Tensor:
            inside = z @ w1.T + u @ own["input_weight"][side].T + own["input_bias"][side]
            hidden = inside * (1 + torch.erf(inside / 2**0.5)) / 2
            return own["scale"][side] * (hidden @ w2.T + own["up_bias"][side])

        z = torch.zeros_like(u)
        for _ in range(100):
            z = function(z)
        return function(z.detach()) if one_step else z

    tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(x))))
    tokens = tokens + layer(0, tokens)
    for block in vit.blocks:
        tokens = block(tokens)
    tokens = vit.norm(tokens)
    is_distilled = backbone.layout.has_dist
    features = [tokens[:, 0], tokens[:, 1]] if is_distilled else [vit.forward_head(tokens, True)]
    logits = [
        (f + layer(1, f)) @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        for f, name in zip(features, ("head", "head_dist"), strict=False)
    ]
    return checks.loss_of(torch.stack(logits).mean(0))


@pytest.mark.parametrize("gradient", ["implicit", "one_step"])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_gradients_equal_the_literal_reference(kind: str, gradient: str) -> None:
    checks.equals_literal(kind, lion(bottleneck=4, gradient=gradient, **EXACT), "train", literal)


def test_both_gradients_differ() -> None:
    grads = []
    for gradient in ("implicit", "one_step"):
        pack = PackModel(tiny_backbone(), [lion(bottleneck=4, gradient=gradient)], NUM_CLASSES)
        checks.shake(pack)
        pack(images(pack.backbone), EVAL).logits.square().sum().backward()
        grads.append(pack.tensors.trainable()["lion.state_weight"].grad)
    assert (grads[0] - grads[1]).abs().max() > 1e-3 * grads[0].abs().max()


@pytest.mark.parametrize("gradient", ["implicit", "one_step"])
@pytest.mark.parametrize("kind", ["registers", "distilled"])
def test_members_equal_their_solo_runs(kind: str, gradient: str) -> None:
    configs = [lion(m, bottleneck=2 + 3 * m, prune=0.3 * m, gradient=gradient) for m in range(3)]
    checks.members_equal_solo(configs, kind, "train")


def test_a_sample_is_solved_alone() -> None:
    backbone = tiny_backbone()
    pack = PackModel(backbone, [lion(bottleneck=4, tolerance=0.1)], NUM_CLASSES)
    checks.shake(pack)
    x = images(backbone, samples=4)
    x[:, 0] *= 10
    whole = pack(x, EVAL).logits
    alone = torch.cat([pack(x[:, i : i + 1], EVAL).logits for i in range(4)], dim=1)
    close(whole, alone, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_without_layers_it_is_the_backbone_and_head_to_the_bit(kind: str) -> None:
    checks.is_backbone_and_head(lion(bottleneck=0), kind)


def test_chains_are_refused() -> None:
    """Not because of a hook that both have: there is none."""
    with pytest.raises(ConfigError, match="'lion' is not defined together with 'tcpa'"):
        PackModel(tiny_backbone(), [trial(["lion", "tcpa"])], NUM_CLASSES)


def test_it_starts_as_the_linear_probe() -> None:
    backbone, x = tiny_backbone(), images(tiny_backbone())
    state = init_member_state(backbone, lion(), NUM_CLASSES)
    head = {k: v for k, v in state.items() if k.startswith("head")}
    plain = PackModel(backbone, [trial(["linear"])], NUM_CLASSES, [head])(x, EVAL)
    ours = PackModel(backbone, [lion()], NUM_CLASSES, [state])(x, EVAL)
    assert torch.equal(ours.logits, plain.logits)
    assert not ours.stats["lion.input_residual"].any()


def test_count() -> None:
    assert checks.count_without_head(lion()) == 298_112


def test_solver_stops_at_its_tolerance_or_its_cap() -> None:
    residuals = {}
    for name, settings in {
        "loose": {"tolerance": 0.3},
        "default": {},
        "capped": {"tolerance": 0.0, "max_steps": 2},
    }.items():
        pack = PackModel(tiny_backbone(), [lion(bottleneck=8, **settings)], NUM_CLASSES)
        checks.shake(pack)
        stats = pack(images(pack.backbone), EVAL).stats
        residuals[name] = float(stats["lion.input_residual"].max())
    assert residuals["default"] <= 1e-3 < residuals["capped"]
    assert residuals["loose"] <= 0.3


def test_large_weights_stay_a_contraction() -> None:
    pack = PackModel(tiny_backbone(), [lion(bottleneck=8)], NUM_CLASSES)
    method: Any = pack.methods["lion"]
    for parameter in (method.state_weight, method.up_weight, method.scale):
        parameter.data.normal_(0.0, 5.0, generator=torch.Generator().manual_seed(0))
    pack.after_step()
    assert method.scale.abs().max() == 0.9
    _, layers = method.begin(Pass(step=EVAL, rows=pack.backbone.rows_read, backend=None))
    for layer in layers:
        norms = torch.linalg.matrix_norm(layer.state_weight, 2)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        assert torch.linalg.matrix_norm(layer.up_weight, 2).max() <= 0.9 + 1e-9
    output = pack(images(pack.backbone), EVAL)
    assert output.logits.isfinite().all()


@pytest.mark.parametrize("gap", [0.5, 1e-3, 1e-6])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_spectral_norm_is_that_of_a_decomposition(scale: float, gap: float) -> None:
    """Also where the second singular value is close, and one of two matrices has none above 1."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2, 3, 6, 10, generator=generator, dtype=torch.float64)
    left, values, right = torch.linalg.svd(draws, full_matrices=False)
    values = values / values[..., :1]
    values[..., 1] = 1 - gap
    matrices = left @ (scale * values[..., None] * right)
    weights = [matrices[0].requires_grad_(), (0.1 * matrices[1]).detach().requires_grad_()]
    found = _contract(*weights)
    expected = [w / torch.linalg.matrix_norm(w, 2, keepdim=True).clamp_min(1.0) for w in weights]
    slopes = [
        torch.autograd.grad(sum((x**3).sum() for x in result), weights)
        for result in (found, expected)
    ]
    for ours, theirs in (*zip(found, expected, strict=True), *zip(*slopes, strict=True)):
        close(ours, theirs.detach(), 1e-9)


def test_pruning_keeps_the_gradient_of_the_most_important_weights() -> None:
    grads = {}
    for prune in (0.0, 0.5):
        pack = PackModel(tiny_backbone(), [lion(bottleneck=4, prune=prune)], NUM_CLASSES)
        checks.shake(pack)
        pack(images(pack.backbone), EVAL).logits.square().sum().backward()
        grads[prune] = {
            k: p.grad for k, p in pack.tensors.trainable().items() if p.grad is not None
        }
        weights = {k: p.detach() for k, p in pack.tensors.trainable().items()}
    for key in ("lion.state_weight", "lion.input_weight", "lion.up_weight"):
        full, half = grads[0.0][key], grads[0.5][key]
        kept = half != 0
        assert int(kept.sum()) == full.numel() // 2
        close(half[kept], full[kept])
        scores = (weights[key] * full).abs()
        assert scores[kept].min() >= scores[~kept].max()
    close(grads[0.5]["lion.scale"], grads[0.0]["lion.scale"])


def test_a_member_of_nans_leaves_the_others_alone() -> None:
    backbone, configs = tiny_backbone(), [lion(0, bottleneck=3), lion(1, bottleneck=3)]
    logits = []
    for poison in (False, True):
        pack = PackModel(backbone, configs, NUM_CLASSES)
        if poison:
            for parameter in pack.tensors.trainable().values():
                parameter.data[1] = float("nan")
        logits.append(pack(images(backbone, members=2), Step.evaluation(2)).logits[0])
    assert torch.equal(logits[0], logits[1])


def test_under_autocast_the_solver_stays_in_float32() -> None:
    backbone = tiny_backbone(dtype=torch.float32)
    pack = PackModel(backbone, [lion(bottleneck=4)], NUM_CLASSES)
    checks.shake(pack)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = pack(images(backbone), EVAL)
    assert float(output.stats["lion.input_residual"].max()) <= 1e-3
    output.logits.sum().backward()
    grad = pack.tensors.trainable()["lion.state_weight"].grad
    assert grad is not None and grad.isfinite().all() and grad.any()


@pytest.mark.parametrize("gradient", ["implicit", "one_step"])
def test_flops_are_those_that_torch_counts_of_one_step(gradient: str) -> None:
    assert checks.uncounted_flops(lion(max_steps=1, gradient=gradient)) == 0
