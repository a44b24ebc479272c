"""Reading a weights file into tensors under timm's names, whatever program wrote it.

Nothing is resized or filled in here: `tcpa_core.model.fit_weights` compares names and shapes with
the model. What a file says of its origin (layout, metadata) is kept for
`tcpa_core.model.preprocessing`.
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models import eva, vision_transformer
from timm.models.eva import Eva
from torch import Tensor

from tcpa_core.errors import WeightsError
from tcpa_core.model.timm_names import ViT

State = dict[str, Tensor]

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".tar")
"""Endings of weights files."""
_FORMATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Number formats of weights; those of quantised weights need scales."""
_WRAPPERS = ("model", "state_dict", "teacher", "student", "encoder")
"""Keys under which torch files keep the tensors."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a program writes its files."""

    title: str
    marks: tuple[str, ...] = ()
    """Beginnings of tensor names that tell it from others; every one must be there."""
    prefix: str = ""
    """What stands before the encoder's names."""
    unused: tuple[str, ...] = ()
    """Beginnings of names of parts that are no encoder and have no use after the training."""
    norm_stats: str | None = None
    """Mean and std that the program trains with, as `backbone.norm_stats`; None: it varies."""


JAX = Layout("JAX", marks=("embedding/kernel",), norm_stats="inception")
CLIP = Layout("CLIP", marks=("visual.conv1.",))
DEIT_III = Layout("DeiT III", ("blocks.0.gamma_1",), norm_stats="imagenet")
PLAIN = Layout("plain")

LAYOUTS = (
    JAX,
    CLIP,
    Layout("MAE", ("decoder_embed.",), unused=("decoder_", "mask_token"), norm_stats="imagenet"),
    Layout(
        "MoCo v3",
        ("base_encoder.patch_embed.",),
        "base_encoder.",
        ("momentum_encoder.", "predictor.", "base_encoder.head."),
        "imagenet",
    ),
    Layout(
        "DINO",
        ("backbone.patch_embed.", "head.last_layer."),
        "backbone.",
        ("head.mlp.", "head.last_layer."),
        "imagenet",
    ),
    Layout(
        "DINOv2",
        ("backbone.patch_embed.", "dino_head."),
        "backbone.",
        ("dino_head.", "ibot_head."),
        "imagenet",
    ),
    Layout("backbone", ("backbone.patch_embed.",), "backbone."),
    Layout("distilled DeiT", ("dist_token",), norm_stats="imagenet"),
    Layout("DINOv3", ("storage_tokens",), unused=("mask_token", "rope_embed.", "local_cls_norm.")),
    DEIT_III,
    PLAIN,
)
"""The first whose marks are all there."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """Tensors by timm's names, in the file's own number format, and what the file says of them."""

    path: Path
    state: State
    layout: Layout
    norm_stats: str | None
    """Mean and std that the layout implies, as `backbone.norm_stats`."""
    has_hidden_layer: bool
    """A layer stood between features and classifier, which reads no features then."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Of a .safetensors file."""


def read_weights(path: Path, vit: ViT, name: str) -> WeightsFile:
    """Read .safetensors, .npz, or a torch file without running its code.

    Args:
        vit: The model that the weights are for; may be on the meta device.
        name: Of the model, for messages.

    Raises:
        WeightsError: The file cannot be read, is of a layout that cannot be brought to timm's
            names, or holds values that are no numbers.
    """
    # The layout is told by names, also of parts that are dropped then. Damage is looked for before
    # names are changed, so that messages name what stands in the file.
    state, wrapper, metadata = _read(path)
    state = {k.removeprefix("module."): v for k, v in state.items()}  # of DistributedDataParallel
    layout = next(one for one in LAYOUTS if _has(state, one.marks))
    if layout is DEIT_III and isinstance(vit, Eva):  # whose layer scales have the same names
        layout = PLAIN
    state = {k: v for k, v in state.items() if not k.startswith(layout.unused or "\0")}
    _refuse_no_numbers(state, path)
    has_hidden_layer = any("pre_logits" in key for key in state)
    state = {k.removeprefix(layout.prefix): v for k, v in state.items()}
    # timm's conversions index and reshape what they expect to find; in a foreign file that fails in
    # any of these ways.
    try:
        state = _from_jax(state) if layout is JAX else _from_torch(state, vit)
    except (
        AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
    ) as err:  # fmt: skip
        raise WeightsError(
            f"backbone.weights: {path.name} has no layout that fits {name!r} "
            f"({type(err).__name__}: {err}); first names: {some(state)}."
        ) from err
    _refuse_coded(state, path)
    is_distilled = wrapper in ("teacher", "student")  # of itself: DINO, iBOT, DINOv2
    norm_stats = "imagenet" if is_distilled else layout.norm_stats
    return WeightsFile(path, state, layout, norm_stats, has_hidden_layer, metadata)


def some(names: object) -> str:
    """The first three of some names, sorted."""
    listed = sorted(names)  # type: ignore[call-overload]
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "") if listed else "none"


def _has(state: State, marks: tuple[str, ...]) -> bool:
    return all(any(key.startswith(mark) for key in state) for mark in marks)


def _read(path: Path) -> tuple[State, str, dict[str, str]]:
    """Tensors as they stand in the file, the key that they stood under, and metadata."""
    try:
        if zipfile.is_zipfile(path):  # before anything unpacks it
            _refuse_bomb(path)
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return load_file(path), "", file.metadata() or {}
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                # Integers are counters of steps, no weights.
                state = {k: torch.from_numpy(v) for k, v in arrays.items() if v.dtype.kind == "f"}
                return state, "", {}
        # Tensors only: a pickle may run any program.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        wrapper = ""
        for key in _WRAPPERS:
            if isinstance(loaded.get(key), Mapping):
                loaded, wrapper = loaded[key], key
        tensors = {k: _plain(v) for k, v in loaded.items() if isinstance(v, Tensor)}
        if not all(isinstance(key, str) for key in tensors):
            raise TypeError("names of tensors are text")
        if not tensors and loaded:
            raise WeightsError(
                f"backbone.weights: {path.name} has no tensors but under its keys {some(loaded)}; "
                f"they are read where they stand alone or under {', '.join(_WRAPPERS)}."
            )
        return tensors, wrapper, {}
    except WeightsError:
        raise
    except Exception as err:  # what parsers raise on foreign bytes is of every kind
        raise WeightsError(
            f"backbone.weights: {path.name} cannot be read as weights ({type(err).__name__}); "
            "give a whole .safetensors, .pth (tensors only) or .npz file."
        ) from err


def _refuse_bomb(path: Path) -> None:
    """Weights hardly shrink: an archive that grows a hundredfold is meant to fill the memory."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > 100 * path.stat().st_size:
        raise ValueError(f"{unpacked} bytes packed into {path.stat().st_size}")


def _plain(tensor: Tensor) -> Tensor:
    """The tensor, if its numbers stand in the file: not sparse, and not a few shown as many."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ValueError(f"a {tensor.layout} tensor on {tensor.device}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"shape {tuple(tensor.shape)} of fewer numbers")
    return tensor


def _refuse_no_numbers(state: State, path: Path) -> None:
    """Name the tensors that hold NaN or infinity, or will in float32."""
    bad = [k for k, v in state.items() if v.is_floating_point() and not v.float().isfinite().all()]
    if bad:
        count = int((~state[bad[0]].float().isfinite()).sum())
        raise WeightsError(
            f"backbone.weights: {path.name} holds NaN or infinite values in {len(bad)} of "
            f"{len(state)} tensors ({some(bad)}; {count} of {state[bad[0]].numel()} values in "
            f"{bad[0]}); fetch or export the file again."
        )


def _refuse_coded(state: State, path: Path) -> None:
    """Name the tensors whose numbers are codes, as those of quantised weights."""
    coded = sorted(k for k, v in state.items() if v.dtype not in _FORMATS)
    if coded:
        kind = str(state[coded[0]].dtype).removeprefix("torch.")
        raise WeightsError(
            f"backbone.weights: {path.name} holds {len(coded)} of {len(state)} tensors as {kind} "
            f"({some(coded)}), which say nothing without their scales; export them as float32, "
            "float64, float16 or bfloat16."
        )


def _from_torch(state: State, vit: ViT) -> State:
    """Bring names to timm's by timm's own conversions, with every shape left as it is.

    timm resizes patches and positions to the model it is given: it is given one without positions,
    whose patches are the file's own.
    """
    if _has(state, ("radio_model.",)):
        raise ValueError("RADIO's own files have positions of another kind; take timm's")
    kernels = [v for v in state.values() if v.ndim == 4]
    patches = kernels[0] if len(kernels) == 1 else vit.patch_embed.proj.weight
    target: Any = SimpleNamespace(
        pos_embed=None,
        patch_embed=SimpleNamespace(proj=SimpleNamespace(weight=patches)),
        head=vit.head,
        get_parameter=vit.get_parameter,
    )
    if isinstance(vit, Eva):
        return dict(eva.checkpoint_filter_fn(_without_zero_biases(state, vit), target))
    convert = vision_transformer.checkpoint_filter_fn
    return dict(convert(dict(state), target, adapt_layer_scale=True))


def _without_zero_biases(state: State, vit: Eva) -> State:
    """DINOv3's own files, whose projections have biases, for models that have none: the biases of
    the distilled sizes are all 0, and timm has these sizes in both forms.

    Raises:
        ValueError: They are not 0.
    """
    biases = {k for k in state if k.endswith("attn.qkv.bias")}
    if "storage_tokens" not in state or vit.blocks[0].attn.q_bias is not None:
        return dict(state)
    if any(state[key].any() for key in biases):
        raise ValueError("its projections have biases that are not 0; choose the ..._qkvb model")
    return {k: v for k, v in state.items() if k not in biases}


_BLOCK = r"Transformer/encoderblock_(\d+)"
_ATTENTION = rf"{_BLOCK}/MultiHeadDotProductAttention_\d"
_JAX_NAMES = {
    "embedding": "patch_embed.proj",
    "Transformer/encoder_norm": "norm",
    "head": "head",
    rf"{_BLOCK}/LayerNorm_0": r"blocks.\1.norm1",
    rf"{_BLOCK}/LayerNorm_[12]": r"blocks.\1.norm2",
    rf"{_BLOCK}/MlpBlock_\d/Dense_0": r"blocks.\1.mlp.fc1",
    rf"{_BLOCK}/MlpBlock_\d/Dense_1": r"blocks.\1.mlp.fc2",
    rf"{_ATTENTION}/(query|key|value)": r"blocks.\1.attn.\2",
    rf"{_ATTENTION}/out": r"blocks.\1.attn.proj",
}
"""Modules of the official JAX files, and timm's."""
_JAX_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_JAX_TOKENS = {
    "cls": "cls_token",
    "pos_embedding": "pos_embed",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
}


def _from_jax(state: State) -> State:
    """Official JAX names and axis orders to timm's; names that are not known stay as they are."""
    found: State = {}
    for name, value in _unstacked(state).items():
        if not name.startswith("pre_logits/"):
            found[_from_jax_name(name)] = _from_jax_order(name, value)
    # timm keeps the three projections as one matrix, queries first.
    for name in [name for name in found if ".attn.query." in name]:
        parts = [name.replace("query", part) for part in ("query", "key", "value")]
        if all(part in found for part in parts):
            joined = torch.cat([found.pop(part) for part in parts])
            found[name.replace("query", "qkv")] = joined
    return found


def _unstacked(state: State) -> State:
    """Blocks one by one, where the file keeps those of a name in one array."""
    stacked = "Transformer/encoderblock/"
    found = {k: v for k, v in state.items() if not k.startswith(stacked)}
    for name, values in state.items():
        if name.startswith(stacked):
            rest = name.removeprefix(stacked)
            found |= {f"Transformer/encoderblock_{i}/{rest}": v for i, v in enumerate(values)}
    return found


def _from_jax_name(name: str) -> str:
    if name in _JAX_TOKENS:
        return _JAX_TOKENS[name]
    place, _, leaf = name.rpartition("/")
    for pattern, ours in _JAX_NAMES.items():
        match = re.fullmatch(pattern, place)
        if match and leaf in _JAX_LEAVES:
            return f"{match.expand(ours)}.{_JAX_LEAVES[leaf]}"
    return name


def _from_jax_order(name: str, value: Tensor) -> Tensor:
    """Inputs first to outputs first, and heads side by side."""
    place, _, leaf = name.rpartition("/")
    if leaf == "bias":
        return value.flatten()
    if leaf != "kernel":
        return value
    if value.ndim == 4:  # (height, width, in, out) of the patch embedding
        return value.permute(3, 2, 0, 1).contiguous()
    # Attention kernels keep heads apart: (in, H, E) of the projections, (H, E, out) of the output.
    flat = value.flatten(0, -2) if place.endswith("/out") else value.flatten(1)
    return flat.T.contiguous()
