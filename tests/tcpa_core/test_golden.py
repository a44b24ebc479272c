"""The authors' numbers, through the public classes."""

import pytest
import torch
from torch import Tensor

from tcpa_core.model.attention import Backend
from tcpa_core.model.pack_model import PackModel
from tests.tcpa_core import golden, oracle

NAMES = golden.file_names()
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4}
BACKENDS: tuple[Backend, ...] = ("dense", "twin", "lse")


def assert_near(ours: Tensor, reference: Tensor, what: str, floor: float = 1e-6) -> None:
    """Relative to the largest reference value, or the floor."""
    limit = LIMITS[ours.dtype] * max(float(reference.abs().max()), floor)
    error = float((ours.detach() - reference).abs().max())
    assert error <= limit, f"{what}: off by {error:.2e}, allowed {limit:.2e}"


def build(case: golden.Golden, backend: Backend) -> PackModel:
    """The file's trial as a pack of one."""
    classes = len(case.state["head.bias"])
    pack = PackModel(case.backbone, [case.config], classes, [case.state], backend=backend)
    if case.cross_attention and case.config.method_settings["cvpt"].weights == "random_frozen":
        for name, value in case.cross_attention.items():
            getattr(pack.methods["cvpt"], name.removeprefix("cvpt.")).copy_(value[None])
    return pack


def backends_of(name: str) -> tuple[Backend, ...]:
    """Backends that make a difference to the file's method."""
    if "tcpa" in name:
        return BACKENDS
    return ("dense", "twin") if "vpt_deep" in name or "vfpt_deep" in name else ("dense",)


CASES = [(name, backend) for name in NAMES for backend in backends_of(name)]
need_files = pytest.mark.skipif(not NAMES, reason="no folder with golden vectors")


@need_files
@pytest.mark.parametrize("dtype", LIMITS, ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_results_and_gradients_are_the_authors(
    name: str, backend: Backend, dtype: torch.dtype
) -> None:
    case = golden.load(name, dtype)
    pack = build(case, backend)
    with case.choices.fed():
        output = pack(case.arrays["x"][None], case.choices.step)
    ce = case.loss(output.logits[0])
    (ce + output.penalty[0]).backward()
    assert_near(output.logits[0], case.arrays["out.logits"], "logits")
    assert_near(ce, case.arrays["out.ce_loss"], "ce_loss")
    assert_near(ce + output.penalty[0], case.arrays["out.total_loss"], "total_loss")
    expected = case.gradients()
    assert expected.keys() == pack.tensors.trainable().keys()
    for key, reference in expected.items():
        grad = pack.tensors.trainable()[key].grad
        assert grad is not None, key
        floor = 1e-6
        if key == "e2vpt.token_mask" and dtype == torch.float32:
            # The first norm undoes a prompt's scale: in float32 rounding is all that is left.
            floor = float(expected["e2vpt.segment_mask"].abs().max())
        assert_near(grad[0], reference, f"gradient of {key}", floor)


@need_files
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_tokens_after_every_block_are_the_authors(name: str, backend: Backend) -> None:
    case = golden.load(name, torch.float64)
    with case.choices.fed():
        seen = build(case, backend).forward_blocks(case.arrays["x"][None], case.choices.step)
    num_image = case.backbone.layout.num_image
    for i, block in enumerate(seen.blocks):
        tokens, extra = block[0], block.shape[2] - 1 - num_image
        start = 1 + num_image if case.at_end else 1
        if extra and "out.prompt_after_block" in case.arrays:
            prompts = tokens[:, start : start + extra]
            assert_near(prompts, case.arrays["out.prompt_after_block"][i], f"prompts {i}")
        images = torch.cat([tokens[:, 1:start], tokens[:, start + extra :]], dim=1)
        assert_near(tokens[:, 0], case.arrays["out.cls_after_block"][i], f"class token {i}")
        assert_near(images, case.arrays["out.image_after_block"][i], f"image tokens {i}")
    assert_near(seen.output.logits[0], case.arrays["out.logits"], "logits")


@need_files
@pytest.mark.parametrize("name", [n for n in NAMES if "tcpa" in n])
def test_tcpa_selection_masks_and_losses_are_the_authors(name: str) -> None:
    case = golden.load(name, torch.float64)
    pack = build(case, "lse")
    with case.choices.fed():
        stats = pack.forward_blocks(case.arrays["x"][None], case.choices.step).output.stats
    visible = stats["tcpa.visible"][:, 0]
    ones = torch.ones_like(visible[..., :1])
    image_ones = ones.expand(*visible.shape[:3], visible.shape[2] - 1)
    mask = torch.cat([ones, visible, image_ones], dim=-1)
    assert torch.equal(mask, case.arrays["out.attention_mask"].bool())
    if not case.config.method_settings["tcpa"].match_tokens:
        assert "out.topk_cls" not in case.arrays
        return
    cls_groups = stats["tcpa.groups_cls"][:, 0, :, 0].sort(-1).values
    image_groups = stats["tcpa.groups_image"][:, 0].sort(-1).values
    assert torch.equal(cls_groups, case.arrays["out.topk_cls"].sort(-1).values)
    assert torch.equal(image_groups, case.arrays["out.topk_image"].sort(-1).values)
    for role in ("cls", "image"):
        losses = stats[f"tcpa.match_{role}"][:, 0]
        assert_near(losses, case.arrays[f"out.match_{role}_per_layer"], f"match_{role}")
    total = stats["tcpa.match_cls"].sum() + stats["tcpa.match_image"].sum()
    assert_near(total, case.arrays["out.match_loss"], "match_loss")


@need_files
@pytest.mark.parametrize("name", NAMES)
def test_the_literal_reference_gives_the_authors_numbers(name: str) -> None:
    """The oracle of the other tests; deep prompts' own outputs exist only there."""
    case = golden.load(name, torch.float64)
    if case.config.methods[-1] not in oracle.RUN_BLOCKS:
        pytest.skip(f"{case.config.methods[-1]} has its literal reference in its own test file")
    state = case.state | case.cross_attention
    with case.choices.fed():
        result = oracle.run(case.backbone, case.config, state, case.arrays["x"], case.choices.step)
    assert_near(result.logits, case.arrays["out.logits"], "logits")
    assert_near(
        case.loss(result.logits) + result.penalty, case.arrays["out.total_loss"], "total_loss"
    )
    tokens = torch.stack(result.blocks)
    assert_near(tokens[:, :, 0], case.arrays["out.cls_after_block"], "class token")
    assert_near(tokens[:, :, 1:], case.arrays["out.image_after_block"], "image tokens")
    if "out.prompt_after_block" in case.arrays:
        prompts = torch.stack(result.prompts)
        assert_near(prompts, case.arrays["out.prompt_after_block"], "prompts")
