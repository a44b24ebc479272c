"""What a decoder takes of a training step beside the backbone, for one member and for several."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.harness import Row, interleave, ratios
from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.map_head import MapHead
from tcpa_core.model.pack_model import PackModel
from tcpa_core.settings import BackboneConfig
from tcpa_core.streams import Stream
from tcpa_core.training.loss import num_labelled, segmentation_loss

CLASSES = 11
HEADS = ("linear", "setr_pup", "upernet")
METHOD = {"methods": ["vpt"], "vpt.num_prompts": 10, "vpt.prompt_dropout": 0.0}


@dataclass(slots=True)
class Decoder:
    """A pack that segments, and what its head is given in a step."""

    model: PackModel
    head: MapHead
    maps: Tensor
    """(M, B, K, H, W, D), see `MapHead.forward`."""

    def step(self, images: Tensor, masks: Tensor) -> Callable[[], None]:
        """A whole training step but for the optimiser: forward, loss, backward."""
        at = _step(self.model.num_members)

        def run() -> None:
            for tensor in self.model.tensors.trainable().values():
                tensor.grad = None
            out = self.model(images, at)
            segmentation_loss(out, masks, num_labelled(masks)).sum().backward()

        return run

    def alone(self) -> Callable[[], None]:
        """The head alone, forward and backward to the maps that it reads."""
        at = _step(self.model.num_members)

        def run() -> None:
            for tensor in self.model.tensors.trainable().values():
                tensor.grad = None
            logits, sides = self.head(self.maps.detach().requires_grad_(), self.head.blocks, at)
            sum(one.float().sum() for one in (logits, *(side for _, side in sides))).backward()

        return run


def _step(members: int) -> Step:
    streams = [Stream(m) for m in range(members)]
    zeros = (0,) * members
    return Step(training=True, epochs=zeros, steps=zeros, streams=streams)


def decoder_of(backbone: Backbone, head: str, members: int, images: Tensor) -> Decoder:
    """A pack with a head, and what it is given for some images."""
    flat = {"task.name": "segment", "segment.head": head, **METHOD}
    configs = [TrialConfig.from_flat({**flat, "seed": m}) for m in range(members)]
    model = PackModel(backbone, configs, CLASSES).to(backbone.device)
    (found,) = (one for one in model.modules() if isinstance(one, MapHead))
    seen: list[Tensor] = []
    handle = found.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(images, _step(members))
    handle.remove()
    return Decoder(model, found, seen[0].detach())


def compare(vits: Sequence[str], names: dict[str, str], options: argparse.Namespace) -> list[Row]:
    """The head's share of a step, and a pack's step beside that of one member, for every head."""
    rows: list[Row] = []
    for vit in vits:
        cfg = BackboneConfig(name=names[vit], weights="random", img_size=options.img_size)
        backbone = load_backbone(cfg, device=options.device)
        for batch in options.batches:
            for head in options.heads:
                rows += _rows(backbone, head, f"{head}, ViT-{vit}, batch {batch}", batch, options)
    return rows


def _rows(
    backbone: Backbone, head: str, group: str, batch: int, options: argparse.Namespace
) -> list[Row]:
    generator, side = torch.Generator().manual_seed(0), backbone.img_size
    variants: dict[str, Callable[[], None]] = {}
    for members in options.members:
        images = torch.randn(members, batch, 3, side, side, generator=generator)
        masks = torch.randint(0, CLASSES, (members, batch, side, side), generator=generator)
        images, masks = images.to(backbone.device), masks.to(backbone.device)
        decoder = decoder_of(backbone, head, members, images)
        variants[f"step of {members}"] = decoder.step(images, masks)
        variants[f"head of {members}"] = decoder.alone()
    times = interleave(variants, rounds=options.rounds, clock=options.clock)
    rows = []
    first = f"step of {options.members[0]}"
    for members in options.members:
        whole, alone = f"step of {members}", f"head of {members}"
        share = {whole: times[whole], alone: times[alone]}
        rows += [row for row in ratios(group, share, whole) if row.variant == alone]
        if whole != first:
            pair = {first: times[first], whole: times[whole]}
            rows += [row for row in ratios(group, pair, first) if row.variant == whole]
    for row in rows:
        print(f"{row.group}: {row.variant} / {row.baseline} {row.ratio:.3f}", flush=True)
    return rows
