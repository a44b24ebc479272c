"""One training step of each method against the way the published programs compute it.

Both sides hold the same frozen weights and the same prompts, and their losses and gradients are
compared in the same run. `python -m benchmarks.step --help` lists sizes; without arguments it
measures what the README states. `--task segment` shows what the decoder of a segmentation takes
beside the backbone, for one member and for a pack.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import literal, segment_step
from benchmarks.counts import Counts, counts
from benchmarks.harness import CLOCKS, Row, as_worker, interleave, ratios, write
from benchmarks.segment_step import HEADS
from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import PackModel
from tcpa_core.settings import BackboneConfig
from tcpa_core.streams import Stream

CLASSES = 100
VITS = {
    "Ti": "vit_tiny_patch16_224",
    "S": "vit_small_patch16_224",
    "B": "vit_base_patch16_224",
    "L": "vit_large_patch16_224",
}
Settings = dict[str, Any]
CASES: dict[str, Settings] = {
    "tcpa 18/18 K10": {
        "methods": ["tcpa"],
        "tcpa.num_cls_prompts": 18,
        "tcpa.num_image_prompts": 18,
        "tcpa.top_k_cls": 10,
        "tcpa.top_k_image": 10,
        "tcpa.random_epochs": 0,
    },
    **{f"vpt {p}": {"methods": ["vpt"], "vpt.num_prompts": p} for p in (1, 10, 50, 100, 200)},
    **{f"cvpt {p}": {"methods": ["cvpt"], "cvpt.num_prompts": p} for p in (1, 10, 50, 200)},
}


class Pair:
    """One method on one backbone and batch, as a literal step and as ours."""

    def __init__(self, backbone: Backbone, case: Settings, batch: int, dropout: float) -> None:
        (self.method,) = case["methods"]
        flat = {**case, f"{self.method}.prompt_dropout": dropout, "train.epochs": 100}
        self.config = TrialConfig.from_flat(flat)
        self.backbone = backbone
        device = backbone.device
        start = init_member_state(backbone, self.config, CLASSES)
        self.state = {k: v.to(device).requires_grad_() for k, v in start.items()}
        self.model = PackModel(backbone, [self.config], CLASSES, [start]).to(device)
        side = backbone.img_size
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(batch, 3, side, side, generator=generator).to(device)
        self.labels = torch.randint(0, CLASSES, (batch,), generator=generator).to(device)
        self.step = Step(training=True, epochs=(0,), steps=(0,), streams=(Stream(0),))

    def literal(self) -> Tensor:
        """Loss as the published program computes it."""
        settings = self.config.method_settings[self.method]
        forward = literal.METHODS[self.method]
        logits, penalty = forward(self.backbone, settings, self.state, self.images)
        return F.cross_entropy(logits.float(), self.labels) + penalty

    def ours(self) -> Tensor:
        """Loss of the pack of one."""
        output = self.model(self.images[None], self.step)
        return F.cross_entropy(output.logits[0].float(), self.labels) + output.penalty[0]

    def train(self, loss: Callable[[], Tensor]) -> Callable[[], None]:
        """Forward and backward, with gradients dropped first."""

        def run() -> None:
            for tensor in (*self.state.values(), *self.model.tensors.trainable().values()):
                tensor.grad = None
            loss().backward()

        return run

    def counts(self, loss: Callable[[], Tensor]) -> Counts:
        """Operations, saved bytes and FLOP of one step."""
        return counts(loss, [*self.backbone.parameters(), self.images, *self.state.values()])

    def difference(self) -> float:
        """Largest relative difference of loss and gradients between the two."""
        self.train(lambda: self.literal() + self.ours())()
        losses = [self.literal().item(), self.ours().item()]
        worst = abs(losses[0] - losses[1]) / abs(losses[0])
        stacked = self.model.tensors.trainable()
        for name, tensor in self.state.items():
            assert tensor.grad is not None
            found = stacked[name].grad
            assert found is not None
            scale = float(tensor.grad.abs().max())
            worst = max(worst, float((tensor.grad - found[0]).abs().max()) / max(scale, 1e-6))
        return worst


def unfrozen(pair: Pair) -> Callable[[], Tensor]:
    """The literal step with gradients for the backbone's weights, as one program leaves them."""

    def loss() -> Tensor:
        pair.backbone.requires_grad_(True)
        try:
            return pair.literal()
        finally:
            pair.backbone.requires_grad_(False)

    return loss


def compare(
    vit: str, batch: int, names: Sequence[str], options: argparse.Namespace
) -> tuple[list[Row], dict[str, Any]]:
    """Rows of all cases on one backbone and batch, and their exact counts."""
    cfg = BackboneConfig(name=VITS[vit], weights="random", img_size=options.img_size)
    backbone = load_backbone(cfg, device=options.device)
    rows, exact = [], {}
    for name in names:
        pair = Pair(backbone, CASES[name], batch, options.dropout)
        group = f"{name}, ViT-{vit}, batch {batch}"
        variants = {"literal": pair.train(pair.literal), "ours": pair.train(pair.ours)}
        with _autocast(options):
            off = None if options.dropout or options.bf16 else pair.difference()
            saved, ours = pair.counts(pair.literal), pair.counts(pair.ours)
            times = interleave(variants, rounds=options.rounds, clock=options.clock)
        exact[group] = {
            "ops": ours.ops / saved.ops,
            "saved_bytes": ours.saved_bytes / saved.saved_bytes,
            "flops": ours.flops / saved.flops,
            "relative_difference": off,
        }
        notes = f"saved {exact[group]['saved_bytes']:.2f}, FLOP {exact[group]['flops']:.2f}"
        notes += f", ops {exact[group]['ops']:.2f}" + ("" if off is None else f", off {off:.0e}")
        rows += [r for r in ratios(group, times, "literal", notes) if r.variant == "ours"]
        print(f"{group}: {rows[-1].ratio:.3f} ({notes})", flush=True)
    return rows, exact


def _autocast(options: argparse.Namespace) -> torch.autocast:
    return torch.autocast(options.device, torch.bfloat16, enabled=options.bf16)


def main() -> None:
    """Measure and write results/step*.json, .md and .png."""
    as_worker()
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--task", choices=("classify", "segment"), default="classify")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS, help="segment only")
    parser.add_argument(
        "--members", nargs="+", type=int, default=[1, 4], help="segment only: packs of so many"
    )
    parser.add_argument("--vits", nargs="+", choices=VITS, default=["Ti", "B"])
    parser.add_argument("--batches", nargs="+", type=int, default=[8])
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=CASES,
        default=["tcpa 18/18 K10", "vpt 10", "vpt 200", "cvpt 10"],
    )
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0, help="on prompts, both sides")
    parser.add_argument("--bf16", action="store_true", help="autocast on both sides")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--name", default="step", help="of the result files")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.task == "segment":
        name = "step_segment" if options.name == "step" else options.name
        with _autocast(options):
            rows = segment_step.compare(options.vits, VITS, options)
        extra = {"clock": options.clock, "img_size": options.img_size, "bf16": options.bf16}
        write(name, rows, title="Training step of a segmentation: its head, and packs", extra=extra)
        return
    rows = []
    exact: dict[str, Any] = {}
    for vit in options.vits:
        for batch in options.batches:
            found, numbers = compare(vit, batch, options.cases, options)
            rows += found
            exact |= numbers
    extra = {
        "clock": options.clock,
        "img_size": options.img_size,
        "dropout": options.dropout,
        "bf16": options.bf16,
    }
    write(options.name, rows, title="Training step: ours / literal", extra=extra | {"exact": exact})


if __name__ == "__main__":
    main()
