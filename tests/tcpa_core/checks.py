"""Checks that the test files of several methods share."""

from collections.abc import Callable, Sequence

import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import FitData, MemberState, Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state, member_specs
from tcpa_core.model.pack_model import ModelOutput, PackModel
from tcpa_core.model.single_model import build_model
from tcpa_core.streams import Stream
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone, training_step

Literal = Callable[[Backbone, TrialConfig, MemberState, Tensor, Step], Tensor]
"""Slow reference: the loss of one trial on images (B, 3, height, width), see `loss_of`."""


def step_of(configs: Sequence[TrialConfig], mode: str) -> Step:
    """Evaluation ("eval"), or training with every member at its own epoch and step."""
    if mode == "eval":
        return Step.evaluation(len(configs))
    places = [config.seed % 7 for config in configs]
    return training_step(configs, places, [10 + p for p in places])


def loss_of(logits: Tensor, side: Sequence[tuple[float, Tensor]] = ()) -> Tensor:
    """A scalar of the logits (..., B, C) of all branches, different for each element."""
    weights = torch.linspace(0.5, 1.5, logits[..., :, :].numel(), dtype=logits.dtype)
    parts = [logits, *(share * other for share, other in side)]
    return sum(((i + 1) * weights.view_as(p) * p.sin()).sum() for i, p in enumerate(parts))  # type: ignore[return-value]


def close(ours: Tensor, reference: Tensor, limit: float = 1e-11) -> None:
    """Relative to the largest reference value, with a floor of 1e-3."""
    scale = max(float(reference.detach().abs().max()), 1e-3) if reference.numel() else 1.0
    torch.testing.assert_close(ours, reference, rtol=0, atol=limit * scale)


def fit_data(backbone: Backbone, count: int = 24) -> FitData:
    """Random training images, for methods that look at them first."""
    x = images(backbone, samples=count, seed=5)[0]
    labels = torch.arange(count) % NUM_CLASSES
    return FitData(labels=labels, batch=lambda indices: x[indices], stream=Stream(0))


def fitted(backbone: Backbone, config: TrialConfig) -> MemberState:
    """A trial's tensors at its start."""
    return init_member_state(backbone, config, NUM_CLASSES, fit_data(backbone))


def equals_literal(
    kind: str, config: TrialConfig, mode: str, literal: Literal, samples: int = 2
) -> None:
    """Loss and every gradient equal those of a slow reference."""
    backbone, step = tiny_backbone(kind), step_of([config], mode)
    x = images(backbone, samples=samples)
    pack = PackModel(backbone, [config], NUM_CLASSES, [fitted(backbone, config)])
    shake(pack)
    state = {k: v.requires_grad_() for k, v in pack.tensors.state(0).items()}
    trained = {k: v for k, v in state.items() if k in pack.tensors.trainable()}
    reference = literal(backbone, config, state, x[0], step)
    grads = torch.autograd.grad(reference, list(trained.values()), materialize_grads=True)
    output = pack(x, step)
    loss = loss_of(output.logits[0], [(share, side[0]) for share, side in output.side_logits])
    loss.backward()
    close(loss, reference)
    for key, expected in zip(trained, grads, strict=True):
        grad = pack.tensors.trainable()[key].grad
        close(torch.zeros_like(expected) if grad is None else grad[0], expected)
    assert all(parameter.grad is None for parameter in backbone.parameters())


def shake(pack: PackModel) -> None:
    """Move all trained tensors away from where they start, padding excepted."""
    for key, parameter in pack.tensors.trainable().items():
        generator = torch.Generator().manual_seed(len(key))
        for m in range(pack.num_members):
            region = (m, *(slice(0, n) for n in pack.tensors.specs[m][key].shape))
            size = parameter.data[region].shape
            noise = torch.randn(size, generator=generator, dtype=torch.float64)
            parameter.data[region] += 0.1 * noise.to(parameter.dtype)
    pack.after_step()


def members_equal_solo(
    configs: Sequence[TrialConfig], kind: str, mode: str, samples: int = 2
) -> None:
    """Logits, penalties and gradients of a pack's members are those they have alone."""
    backbone = tiny_backbone(kind)
    x = images(backbone, members=len(configs), samples=samples)
    pack = PackModel(backbone, configs, NUM_CLASSES, [fitted(backbone, c) for c in configs])
    shake(pack)
    output, grads = _run(pack, x, step_of(configs, mode))
    for m, config in enumerate(configs):
        solo = PackModel(backbone, [config], NUM_CLASSES, [pack.tensors.state(m)])
        alone, alone_grads = _run(solo, x[m : m + 1], step_of([config], mode))
        close(output.logits[m], alone.logits[0], 1e-12)
        close(output.penalty[m], alone.penalty[0], 1e-12)
        for key, spec in pack.tensors.specs[m].items():
            if key in grads:
                region = tuple(slice(0, n) for n in spec.shape)
                close(grads[key][m][region], alone_grads[key][0], 1e-11)
                padding = grads[key][m].clone()
                padding[region] = 0
                assert not padding.any(), key


def _run(pack: PackModel, x: Tensor, step: Step) -> tuple[ModelOutput, dict[str, Tensor]]:
    output = pack(x, step)
    parts = [(1.0, output.logits), *output.side_logits]
    total = sum(share * logits.square().mean((1, 2)) for share, logits in parts) + output.penalty
    total.sum().backward()
    return output, {k: p.grad for k, p in pack.tensors.trainable().items() if p.grad is not None}


def is_backbone_and_head(config: TrialConfig, kind: str) -> None:
    """Logits are the frozen backbone's to the bit, and features can be cached."""
    backbone = tiny_backbone(kind, dtype=torch.float32)
    model = build_model(config, num_classes=NUM_CLASSES, backbone=backbone).eval()
    x = images(backbone, samples=3)[0]
    state, vit = model.pack.tensors.state(0), backbone.vit
    assert all(name.startswith("head") for name in state)
    vit.reset_classifier(NUM_CLASSES)
    vit.head.load_state_dict({"weight": state["head.weight"], "bias": state["head.bias"]})
    if backbone.layout.has_dist:
        dist = {"weight": state["head_dist.weight"], "bias": state["head_dist.bias"]}
        vit.head_dist.load_state_dict(dist)
    assert torch.equal(model(x), vit(x))
    assert model.pack.features_are_frozen


def uncounted_flops(config: TrialConfig, kind: str = "cls_avg") -> float:
    """What torch counts per image in evaluation, less what the model says.

    Taken from the growth with the batch, so that what all samples share drops out; the pool is an
    average, so that all tokens of the last block are computed.
    """
    backbone, counted = tiny_backbone(kind, dtype=torch.float32), []
    pack = PackModel(backbone, [config], NUM_CLASSES, backend="dense")
    for samples in (1, 4):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            pack(images(backbone, samples=samples), Step.evaluation(1))
        counted.append(counter.get_total_flops())
    return (counted[1] - counted[0]) / 3 - pack.flops_per_image()


def count_without_head(config: TrialConfig) -> int:
    """Trainable parameters on a ViT-B/16 without its head."""
    with torch.device("meta"):
        backbone = Backbone(timm.create_model("vit_base_patch16_224", num_classes=0))
    return sum(
        torch.Size(spec.shape).numel()
        for name, spec in member_specs(backbone, config, 100).items()
        if spec.trainable and not name.startswith("head")
    )


class Listener(TorchFunctionMode):
    """Keeps the attention of every fused kernel, with its mask."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is F.scaled_dot_product_attention:
            q, k = args[:2]
            scores = q @ k.mT * q.shape[-1] ** -0.5
            mask = (kwargs or {}).get("attn_mask")
            if mask is not None:
                is_bias = mask.is_floating_point()
                scores = scores + mask if is_bias else scores.masked_fill(~mask, float("-inf"))
            self.maps.append(scores.softmax(-1))
        return func(*args, **(kwargs or {}))
