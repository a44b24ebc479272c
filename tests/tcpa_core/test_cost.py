"""What a training step costs, in figures that do not drift: operations, saved bytes, FLOP.

The baseline is the step as the published programs compute it (`benchmarks.literal`), for which one
of them also leaves gradients on for all frozen weights.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.counts import Counts, counts, saved_bytes
from benchmarks.step import CASES, CLASSES, VITS, Pair, unfrozen
from tcpa_core.methods.base import Step
from tcpa_core.model.attention import Backend
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.blocks import plain_block
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.pack_model import PackModel
from tcpa_core.settings import BackboneConfig
from tcpa_core.streams import Stream
from tests.tcpa_core.tiny import tiny_backbone

TCPA = "tcpa 18/18 K10"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    cfg = BackboneConfig(name=VITS["Ti"], weights="random", img_size=224)
    return load_backbone(cfg)


@pytest.fixture(scope="module")
def published(backbone: Backbone) -> Callable[[str], tuple[Pair, Counts]]:
    """A case with the cost of its published step, weight gradients included."""
    found: dict[str, tuple[Pair, Counts]] = {}

    def get(case: str) -> tuple[Pair, Counts]:
        if case not in found:
            pair = Pair(backbone, CASES[case], 1, 0.0)
            owned = [*backbone.parameters(), pair.images, *pair.state.values()]
            found[case] = pair, counts(unfrozen(pair), owned)
            for parameter in backbone.parameters():
                parameter.grad = None
        return found[case]

    return get


# Shares of the published step: operations, saved bytes, FLOP.
GATES: list[tuple[str, Backend, float, float, float]] = [
    (TCPA, "dense", 0.55, 0.40, 0.64),
    (TCPA, "twin", 0.42, 0.36, 0.64),
    (TCPA, "lse", 0.55, 0.33, 0.64),
    ("vpt 10", "twin", 0.69, 0.46, 0.66),
    ("vpt 200", "twin", 0.69, 0.28, 0.42),
    ("cvpt 10", "lse", 0.61, 0.53, 0.60),
]


@pytest.mark.parametrize(("case", "backend", "ops", "saved", "flops"), GATES)
def test_step_costs_at_most(
    published: Callable[[str], tuple[Pair, Counts]],
    case: str,
    backend: Backend,
    ops: float,
    saved: float,
    flops: float,
) -> None:
    pair, theirs = published(case)
    pair.model.backend = backend
    ours = pair.counts(pair.ours)
    assert ours.ops <= ops * theirs.ops
    assert ours.saved_bytes <= saved * theirs.saved_bytes
    assert ours.flops <= flops * theirs.flops


def test_a_frozen_block_keeps_nine_values_per_token_and_channel(backbone: Backbone) -> None:
    layout = backbone.layout
    shape = (1, 2, layout.num_prefix + layout.num_image, layout.embed_dim)
    tokens = torch.randn(shape, requires_grad=True)
    owned = [*backbone.parameters(), tokens]
    kept = saved_bytes(lambda: plain_block(backbone.blocks[0], tokens).sum(), owned)
    assert kept / tokens.element_size() <= 9.1 * tokens.numel()


def test_nothing_is_kept_below_the_first_prompt(backbone: Backbone) -> None:
    pair = Pair(backbone, CASES[TCPA], 1, 0.0)
    with torch.no_grad():
        tokens = backbone.embed(pair.images)
    assert not tokens.requires_grad
    for name, stacked in pair.model.tensors.trainable().items():
        stacked.requires_grad_("head" in name)
    owned = [*backbone.parameters(), pair.images]
    features = layout_size(backbone)
    assert saved_bytes(pair.ours, owned) <= 20 * features * 4


def layout_size(backbone: Backbone) -> int:
    return backbone.layout.feature_dim + CLASSES


@pytest.mark.parametrize("case", [TCPA, "vpt 10", "cvpt 10"])
@pytest.mark.parametrize("backend", ["dense", "twin", "lse"])
@pytest.mark.parametrize("kind", ["cls", "registers", "dynamic"])
def test_the_literal_step_is_matched_exactly(kind: str, case: str, backend: Backend) -> None:
    backbone = tiny_backbone(kind)
    pair = double(Pair(backbone, CASES[case], 3, 0.0), backend)
    assert pair.difference() < 1e-11


@pytest.mark.parametrize(
    ("change", "least"),
    [({"tcpa.mask_mode": "pre"}, 1e-2), ({"tcpa.detach_tokens": True}, 1e-3)],
    ids=["mask before softmax", "detached tokens"],
)
def test_what_is_not_exact_is_seen(change: dict[str, Any], least: float) -> None:
    backbone = tiny_backbone()
    pair = double(Pair(backbone, {**CASES[TCPA], **change}, 3, 0.0), "dense")
    assert pair.difference() > least


def double(pair: Pair, backend: Backend) -> Pair:
    """The same pair in float64."""
    state = {k: v.detach().double() for k, v in pair.state.items()}
    pair.images = pair.images.double()
    pair.state = {k: v.clone().requires_grad_() for k, v in state.items()}
    pair.model = PackModel(pair.backbone, [pair.config], CLASSES, [state], backend=backend)
    return pair


def test_a_pack_computes_shared_work_once() -> None:
    """Four members cost fewer operations than two solo steps."""
    backbone = tiny_backbone(dtype=torch.float32)
    pair = Pair(backbone, CASES[TCPA], 2, 0.0)
    configs = [pair.config.replace_paths({"seed": seed}) for seed in range(4)]
    packed, alone = (PackModel(backbone, c, CLASSES) for c in (configs, configs[:1]))

    def loss(model: PackModel) -> Tensor:
        members = model.num_members
        zeros = [0] * members
        streams = [Stream(config.seed) for config in model.configs]
        step = Step(training=True, epochs=zeros, steps=zeros, streams=streams)
        output = model(pair.images.expand(members, -1, -1, -1, -1), step)
        labels = pair.labels.repeat(members)
        return F.cross_entropy(output.logits.flatten(0, 1), labels) + output.penalty.sum()

    four, one = (counts(lambda m=m: loss(m), []).ops for m in (packed, alone))
    assert four <= 2 * one
