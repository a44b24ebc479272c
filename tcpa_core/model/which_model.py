"""Which timm model a file's weights would fit: the advice where they do not fit the one named."""

import math
import re
from functools import cache

import timm
import torch
from torch import Tensor

from tcpa_core.model.layouts import Act
from tcpa_core.model.timm_names import MODULES, is_shape_only, published, shapes_of, tensor_shapes

_SIZES = {
    (192, 12): "Ti", (384, 12): "S", (512, 12): "M", (768, 12): "B", (1024, 24): "L",
    (1152, 27): "So400m", (1280, 32): "H", (1408, 40): "g", (1536, 40): "g", (1664, 48): "G",
}  # fmt: skip
"""Names of sizes by width and number of blocks."""

_WORDS = {
    192: "tiny", 384: "small", 512: "medium", 768: "base", 1024: "large", 1152: "so400m",
    1280: "huge", 1408: "gi", 1536: "gi", 1664: "gi",
}  # fmt: skip
"""What names of models of a width have in them: to build every model takes long."""
_HYBRID = re.compile(r"_r\d*_|_r\d+")
"""Names of models with a convolutional network before their blocks, which take long to build."""


def model_of_file(state: dict[str, Tensor], name: str, act: Act | None) -> str:
    """What to do with weights that do not fit the model that was named.

    Args:
        state: Tensors by timm's names.
        name: Of the model that they do not fit.
        act: Kind of GELU that they need; None: not known.

    Returns:
        Words to end a sentence with: what the file is, and the names to set instead.
    """
    patches = state.get("patch_embed.proj.weight")
    blocks = [key.split(".")[1] for key in state if key.startswith("blocks.")]
    depth = len(set(blocks))
    if patches is not None and patches.ndim == 5:
        return "its patches span several frames: a model of videos cannot be a backbone"
    if patches is None or patches.ndim != 4 or not depth:
        return (
            "its names are of no layout that is known (docs/backbones.md), and only plain vision "
            "transformers can be a backbone"
        )
    width, patch = patches.shape[0], patches.shape[-1]
    size = _SIZES.get((width, depth))
    title = (
        f"ViT-{size}/{patch}" if size else f"a ViT of width {width}, {depth} blocks, patch {patch}"
    )
    fitting = _fitting(state, patch, depth, act)
    if name.partition(".")[0] in fitting:
        return f"the file is {title}, as the model is; fetch or export it again"
    if not fitting:
        return f"the file is {title}, and no vision transformer of timm has just its tensors"
    return f"the file is {title}: set backbone.name={' or '.join(fitting[:3])}"


def _fitting(state: dict[str, Tensor], patch: int, depth: int, act: Act | None) -> list[str]:
    """Names of models with just these tensors, the likeliest first."""
    # timm's two families have layer scales under different names.
    as_eva = {re.sub(r"\.ls([12])\.gamma", r".gamma_\1", key): v for key, v in state.items()}
    found = _of_shapes(state, patch, depth) or _of_shapes(as_eva, patch, depth)
    return sorted(found, key=lambda name: _unlikely(name, state, act == "quick_gelu"))


def _of_shapes(state: dict[str, Tensor], patch: int, depth: int) -> list[str]:
    wanted = tensor_shapes(state)
    width = state["patch_embed.proj.weight"].shape[0]
    return [
        name
        for module in MODULES
        for name in timm.list_models(module=module)
        if "patch" not in name or f"patch{patch}_" in name
        if not _HYBRID.search(name) and _WORDS.get(width, "") in name
        if shapes_of(name) == wanted and _depth(name) == depth
    ]


def _unlikely(name: str, state: dict[str, Tensor], quick: bool) -> tuple[bool, ...]:
    positions = state.get("pos_embed")
    length = positions.shape[1] if positions is not None and positions.ndim == 3 else 0
    return (
        ("quickgelu" in name) != quick,
        abs(length - _length(name)) > 1,
        not published(name),
        not is_shape_only(name),
        len(name) > len("vit_base_patch16_clip_224"),
    )


@cache
def _depth(name: str) -> int:
    with torch.device("meta"):
        return len(timm.create_model(name, num_classes=0).blocks)


@cache
def _length(name: str) -> int:
    """Number of a model's position embeddings, or one more for a class token."""
    known = timm.get_pretrained_cfg(name)
    side = known.input_size[-1] if known else 0
    patch = name.partition("patch")[2].partition("_")[0]
    return math.floor(side / int(patch)) ** 2 + 1 if patch.isdigit() else 0
