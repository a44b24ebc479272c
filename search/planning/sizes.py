"""How large backbones are and what a trial keeps in memory, told from shapes alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tcpa_core.config import TrialConfig
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig
from tcpa_core.training.estimate import Memory, memory

USUAL = 224
"""Side of the images, in pixels, that papers of prompt tuning use."""
LARGE = 2
"""A model whose own images cost this many times as much as usual ones is worth a word."""
MOST = 4
"""Chains of methods whose memory is told for a backbone; a step without numbers takes seconds."""


def describe_backbone(config: BackboneConfig, backbone: Backbone) -> str:
    """Parameters, weights' size, tokens and FLOPs of a backbone in a sentence."""
    layout = backbone.layout
    count = sum(p.numel() for p in backbone.vit.parameters())
    tokens = f"{layout.num_image:,} tokens"
    tokens += f" + {layout.num_prefix} prefix" if layout.num_prefix else ""
    text = (
        f"{config.full_name}: {count / 1e6:,.1f} M parameters ({size_text(4 * count)} in fp32), "
        f"{layout.depth} blocks of width {layout.embed_dim}; {backbone.img_size} px: {tokens}, "
        f"{_flops(backbone.flops_per_image())} an image forward"
    )
    return text + _hint_of_size(config, backbone)


def _hint_of_size(config: BackboneConfig, backbone: Backbone) -> str:
    """That a model's own images are large ones, as DINOv2's of 518 px, where nobody chose them."""
    patch = max(backbone.layout.patch_size)
    side = USUAL - USUAL % patch
    if config.img_size is not None or backbone.img_size <= side:
        return ""
    smaller = load_backbone(config.model_copy(update={"img_size": side}), device="meta")
    ratio = backbone.flops_per_image() / smaller.flops_per_image()
    if ratio < LARGE:
        return ""
    return (
        f" (its own image size; backbone.img_size={side} has {smaller.layout.num_image} tokens and "
        f"takes {ratio:.1f} times less)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSize:
    """What a chain of methods trains on a backbone, and what one trial of it keeps in memory."""

    methods: tuple[str, ...]
    backbone: str
    backbone_parameters: int
    trainable: tuple[int, int]
    """Fewest and most parameters that its trials train, head included."""
    batch_size: int
    """Of the trial with the largest batches, which `memory` is of."""
    memory: Mapping[str, Memory]
    """By precision; {}: not estimated."""
    is_estimated: bool = True
    """False: for want of time; else shapes do not tell."""

    @property
    def percent(self) -> float:
        """The most parameters in per cent of the backbone's."""
        return 100 * self.trainable[1] / self.backbone_parameters

    def bytes_in(self, precision: str) -> float | None:
        """Memory of a trial; None: not known, or the precision is not used."""
        found = self.memory.get(precision)
        return None if found is None else found.total(self.batch_size)

    def __str__(self) -> str:
        name = f"{'+'.join(self.methods)} on {self.backbone}, batches of {self.batch_size}"
        if not self.memory:
            return f"{name}: not to be told from shapes; 'tcpa plan --probe' trains a few steps"
        places = {"bf16": "on a GPU (bf16)", "fp32": "in fp32"}
        told = [f"{size_text(self.bytes_in(p) or 0.0)} {places[p]}" for p in self.memory]
        first = next(iter(self.memory.values()))
        return (
            f"{name}: about {' or '.join(told)} for a trial; of it the backbone "
            f"{size_text(first.weights)}, an image of a batch {size_text(first.per_image)}"
        )


def method_sizes(
    configs: Sequence[TrialConfig], trained: Sequence[int], num_classes: int
) -> list[MethodSize]:
    """The size of each backbone and chain of methods, told from shapes alone.

    Args:
        configs: Trials of a space; of each kind the one with the largest batches is told.
        trained: Parameters that each of them trains.
        num_classes: Of the data set; of several the most.
    """
    kinds: dict[tuple[BackboneConfig, tuple[str, ...]], TrialConfig] = {}
    for config in sorted(configs, key=lambda one: one.train.batch_size):
        kinds[config.backbone, config.methods] = config
    counts: dict[tuple[BackboneConfig, tuple[str, ...]], list[int]] = {}
    for config, count in zip(configs, trained, strict=True):
        counts.setdefault((config.backbone, config.methods), []).append(count)
    sizes = []
    for number, (kind, config) in enumerate(kinds.items()):
        backbone = load_backbone(config.backbone, device="meta")
        is_estimated = number < MOST
        sizes.append(
            MethodSize(
                methods=config.methods,
                backbone=config.backbone.full_name,
                backbone_parameters=sum(p.numel() for p in backbone.vit.parameters()),
                trainable=(min(counts[kind]), max(counts[kind])),
                batch_size=config.train.batch_size,
                memory=_memory_of(config, num_classes) if is_estimated else {},
                is_estimated=is_estimated,
            )
        )
    return sizes


def describe_memory(sizes: Sequence[MethodSize]) -> list[str]:
    """What one trial keeps in memory, a sentence for each backbone and chain of methods."""
    lines = [str(one) for one in sizes if one.is_estimated]
    rest = len(sizes) - len(lines)
    return [*lines, f"{rest} more chains of methods are not estimated"] if rest > 0 else lines


def _memory_of(config: TrialConfig, num_classes: int) -> dict[str, Memory]:
    used = [p for p in ("bf16", "fp32") if config.train.precision in ("auto", p)]
    found = {p: memory(config, num_classes, bf16=p == "bf16") for p in used}
    return {precision: one for precision, one in found.items() if one is not None}


def size_text(count: float) -> str:
    """Bytes as people read them: "1.5 GB", "30.4 MB", "4 kB"."""
    if count < 1e5:
        return f"{count / 1e3:,.0f} kB"
    return _rounded(count / 1e9, "GB") if count >= 1e9 else _rounded(count / 1e6, "MB")


def _flops(count: float) -> str:
    """A product and its sum are two."""
    if count < 1e8:
        return _rounded(count / 1e6, "MFLOPs")
    return _rounded(count / 1e12, "TFLOPs") if count >= 1e12 else _rounded(count / 1e9, "GFLOPs")


def _rounded(value: float, unit: str) -> str:
    return f"{value:,.{0 if value >= 100 else 1}f} {unit}"
