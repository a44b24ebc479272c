"""How large backbones are and what a trial keeps in memory, told from shapes alone."""

from collections.abc import Sequence

from tcpa_core.config import TrialConfig
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig
from tcpa_core.training.estimate import memory

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
        f"{config.full_name}: {count / 1e6:,.1f} M parameters ({_bytes(4 * count)} in fp32), "
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


def describe_memory(configs: Sequence[TrialConfig], num_classes: int) -> list[str]:
    """What one trial keeps in memory, a sentence for each backbone and chain of methods.

    Args:
        configs: Trials of a space; of each kind the one with the largest batches is told.
        num_classes: Of the data set; of several the most.
    """
    kinds: dict[tuple[BackboneConfig, tuple[str, ...]], TrialConfig] = {}
    for config in sorted(configs, key=lambda one: one.train.batch_size):
        kinds[config.backbone, config.methods] = config
    lines = [_memory_of(config, num_classes) for config in list(kinds.values())[:MOST]]
    rest = len(kinds) - MOST
    return [*lines, f"{rest} more chains of methods are not estimated"] if rest > 0 else lines


def _memory_of(config: TrialConfig, num_classes: int) -> str:
    size, precision = config.train.batch_size, config.train.precision
    found = {
        where: memory(config, num_classes, bf16=precision_there == "bf16")
        for where, precision_there in {"on a GPU (bf16)": "bf16", "in fp32": "fp32"}.items()
        if precision in ("auto", precision_there)
    }
    name = f"{'+'.join(config.methods)} on {config.backbone.full_name}, batches of {size}"
    told = [f"{_bytes(of.total(size))} {where}" for where, of in found.items() if of is not None]
    if not told:
        return f"{name}: not to be told from shapes; 'tcpa plan --probe' trains a few steps"
    first = next(of for of in found.values() if of is not None)
    return (
        f"{name}: about {' or '.join(told)} for a trial; of it the backbone "
        f"{_bytes(first.weights)}, an image of a batch {_bytes(first.per_image)}"
    )


def _bytes(count: float) -> str:
    return _rounded(count / 1e9, "GB") if count >= 1e9 else _rounded(count / 1e6, "MB")


def _flops(count: float) -> str:
    """A product and its sum are two."""
    return _rounded(count / 1e12, "TFLOPs") if count >= 1e12 else _rounded(count / 1e9, "GFLOPs")


def _rounded(value: float, unit: str) -> str:
    return f"{value:,.{0 if value >= 100 else 1}f} {unit}"
