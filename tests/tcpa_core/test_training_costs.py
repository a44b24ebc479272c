"""Costs of a training step are those that torch counts, per image and per method."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tcpa_core.model.backbone import Backbone
from tcpa_core.model.pack_model import PackModel
from tcpa_core.training.costs import SAMPLES, training_costs
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone, trial


def costs(*methods: str, **settings: object):  # type: ignore[no-untyped-def]
    backbone = tiny_backbone()
    model = PackModel(backbone, [trial(methods, **settings)], NUM_CLASSES)
    x = images(backbone, samples=SAMPLES)
    return model, training_costs(model, x, cached=False)


def test_prompts_cost_less_than_two_forward_passes() -> None:
    """Two blocks: the tokens of the first need no gradient, of the last only one is computed."""
    model, found = costs("vpt", vpt__prompt_dropout=0.0)
    forward = model.flops_per_image()
    assert forward < found.flops < 2 * forward
    assert found.activation_bytes > 0


def test_training_the_backbone_costs_about_three() -> None:
    model, full = costs("full")
    assert 2.3 * model.flops_per_image() < full.flops < 3.1 * model.flops_per_image()
    _, prompts = costs("vpt")
    assert full.activation_bytes > prompts.activation_bytes


def test_more_prompts_cost_more() -> None:
    few, many = (costs("vpt", vpt__num_prompts=n)[1] for n in (2, 40))
    assert many.flops > few.flops
    assert many.activation_bytes > few.activation_bytes


def test_a_head_on_cached_features_costs_its_two_products() -> None:
    backbone = tiny_backbone()
    model = PackModel(backbone, [trial(["linear"])], NUM_CLASSES)
    width = backbone.layout.feature_dim
    features = images(backbone, samples=SAMPLES).flatten(2)[..., :width]
    found = training_costs(model, features, cached=True)
    assert found.flops == pytest.approx(2 * 2 * width * NUM_CLASSES)


@pytest.mark.parametrize("method", ["vpt", "lora"])
def test_copies_of_weights_in_bfloat16_are_not_counted(method: str) -> None:
    """They are kept for the backward pass once, for however many images."""
    counted = {}
    for width in (32, 64):
        vit = VisionTransformer(
            img_size=32, patch_size=16, embed_dim=width, depth=3, num_heads=2, num_classes=0
        )
        model = PackModel(Backbone(vit), [trial([method])], NUM_CLASSES)
        x = images(model.backbone, samples=SAMPLES).float()
        fp32 = training_costs(model, x, cached=False)
        with torch.autocast("cpu", torch.bfloat16):
            bf16 = training_costs(model, x, cached=False)
        counted[width] = bf16.activation_bytes / fp32.activation_bytes
    # Copies would take 2 * 12 * width^2 bytes a block, more than all that is kept of five tokens.
    assert all(share < 1 for share in counted.values()), counted
