"""A weights file as tensors under timm's names, whatever program wrote it.

Nothing is resized or filled in here: `tcpa_core.model.fit_weights` compares names and shapes with
the model. What a file says of its origin (layout, metadata) is kept for
`tcpa_core.model.preprocessing`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from timm.models import eva, vision_transformer
from timm.models.eva import Eva
from torch import Tensor

from tcpa_core.errors import WeightsError
from tcpa_core.model.jax_tensors import from_jax, unstacked
from tcpa_core.model.layouts import (
    CLIP,
    EVA_LAYOUTS,
    FINE_TUNED,
    FOREIGN,
    JAX,
    JAX_TOWERS,
    LAYOUTS,
    NO_ENCODER,
    PLAIN,
    Foreign,
    Layout,
)
from tcpa_core.model.read_tensors import State, Tensors, read_tensors, some
from tcpa_core.model.timm_names import ViT

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".tar")
"""Endings of weights files."""
_FORMATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Number formats of weights; those of quantised weights need scales."""
_TEACHERS = ("teacher", "student")
"""Parts of networks that are trained on themselves, as by DINO, iBOT and DINOv2."""
_SECOND = re.compile(
    r"(?:^|[._])(?:student|momentum|ema|target|key|decoder|predictor|text)(?=[._])|encoder_k\."
)
"""Prefixes of networks that stand beside the one to read."""
_TEXTS = (
    "positional_embedding", "text", "text_encoder", "text_model", "text_projection",
    "token_embedding", "transformer", "ln_final", "attn_mask", "txt",
)  # fmt: skip
"""Parts that read texts."""
_AROUND = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module"
    r"|_forward_module)\."
)
"""What torch's parallel and compiled modules put into names."""
_MASK = "attn.qkv.bias_mask"
"""DINOv3's note of which biases are none, which may be NaN; those are written as 0."""
_COUNTERS = (".num_batches_tracked", ".position_ids")
"""Whole numbers that no weight is made of."""
_CHUNK = re.compile(r"^blocks\.\d+\.(\d+)\.(?=norm|attn|ls|mlp)")
"""DINOv2 trains its blocks in chunks, in each of which they keep their numbers."""


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
    changes: tuple[str, ...] = ()
    """What was renamed and left out, in a few words each."""
    num_heads: int | None = None
    """Of the network, where the file tells."""


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
    found = read_tensors(path)
    state = {_AROUND.sub("", k): v for k, v in found.state.items()}
    _refuse_twice(len(found.state) - len(state), path)
    _refuse(FOREIGN, state, path)
    layout, prefix = _layout_of(state, vit, path)
    total = len(state)
    state, dropped = _encoder(state, layout, prefix)
    _refuse_twice(total - len(state) - len(dropped), path)
    _refuse_no_numbers(state, path)
    _refuse_coded(state, path)
    num_heads = _num_heads(state, layout)
    # timm's conversions index and reshape what they expect to find; in a foreign file that fails in
    # any of these ways.
    try:
        state = _named(state, layout, vit)
    except (
        AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
    ) as err:  # fmt: skip
        raise WeightsError(
            f"backbone.weights: {path.name} has no layout that fits {name!r} "
            f"({type(err).__name__}: {err}); first names: {some(state)}."
        ) from err
    is_distilled = bool({*found.wrapper, *prefix.split(".")} & {*_TEACHERS})
    return WeightsFile(
        path,
        state,
        layout,
        "imagenet" if is_distilled else layout.norm_stats,
        any("pre_logits" in key for key in found.state),
        found.metadata,
        _changes(found, layout, prefix, dropped),
        num_heads,
    )


def _layout_of(state: State, vit: ViT, path: Path) -> tuple[Layout, str]:
    """The layout of a file, and what stands before the encoder's names."""
    names = "\n".join(state)
    for layout in EVA_LAYOUTS if isinstance(vit, Eva) else LAYOUTS:
        prefixes = re.findall(rf"^((?:.*[./])?){layout.anchor}$", names, re.MULTILINE)
        if prefixes and _fits(layout, names):
            # timm's own models of this kind were not fine-tuned by MAE's program.
            is_own = layout is FINE_TUNED and "fc_norm.weight" in vit.state_dict()
            return PLAIN if is_own else layout, _one_of(prefixes, path)
    for kind in NO_ENCODER:
        if state and all(re.search(kind.mark, key) for key in state):
            raise _holds(kind, next(iter(state)), path)
    return PLAIN, ""  # timm knows more layouts, and what is missing is said with names


def _fits(layout: Layout, names: str) -> bool:
    has_marks = all(re.search(mark, names, re.MULTILINE) for mark in layout.marks)
    return has_marks and not any(re.search(mark, names, re.MULTILINE) for mark in layout.lacks)


def _one_of(prefixes: list[str], path: Path) -> str:
    """The encoder to read of several."""
    first = [one for one in prefixes if not _SECOND.search(one)]
    if len(prefixes) == 1 or len(first) == 1:
        return (first or prefixes)[0]
    raise WeightsError(
        f"backbone.weights: {path.name} holds {len(prefixes)} encoders, under {some(prefixes)}; "
        "save the tensors of one of them as a file of its own."
    )


def _encoder(state: State, layout: Layout, prefix: str) -> tuple[State, list[str]]:
    """The encoder's tensors without their prefix, its classifier, and the names of the others."""
    kept, dropped = {}, []
    heads = _heads(state, layout, prefix)
    for name, value in state.items():
        inner = name.removeprefix(prefix)
        if name in heads:
            kept[heads[name]] = value
        elif inner.endswith((_MASK, *_COUNTERS)) or _is_counter(value):
            dropped.append(name)
        elif name.startswith(prefix) and not inner.startswith(layout.unused or "\0"):
            kept[inner] = value
        else:
            dropped.append(name)
    whole = {_CHUNK.sub(r"blocks.\1.", name): value for name, value in kept.items()}
    return whole if len(whole) == len(kept) else kept, dropped


def _is_counter(value: Tensor) -> bool:
    """Whether it is one whole number, as averages of weights count their steps."""
    return value.ndim == 0 and not (value.is_floating_point() or value.is_complex())


def _heads(state: State, layout: Layout, prefix: str) -> dict[str, str]:
    """Names of classifiers beside the encoder, and timm's for them."""
    parts = prefix.split(".")[:-1]
    outer = {"".join(f"{part}." for part in parts[:n]) for n in range(max(len(parts), 1))}
    found: dict[str, str] = {}
    for theirs, ours in layout.heads.items():
        for before in outer:
            weight, bias = f"{before}{theirs}weight", f"{before}{theirs}bias"
            if weight in state and bias in state and state[weight].ndim == 2:
                found |= {weight: f"{ours}weight", bias: f"{ours}bias"}
    return found


def _num_heads(state: State, layout: Layout) -> int | None:
    """The number of heads that a file tells or its program has; None: timm's for the width."""
    if layout in (JAX, JAX_TOWERS):  # (in, heads, width of a head)
        kernels = [v for k, v in state.items() if k.endswith("/query/kernel") and v.ndim > 2]
        return kernels[0].shape[-2] if kernels else None
    patches = state.get("patch_embed.proj.weight")
    return None if patches is None or not patches.ndim else layout.num_heads.get(len(patches))


def _named(state: State, layout: Layout, vit: ViT) -> State:
    """Tensors under timm's names, in its orders."""
    is_jax = layout in (JAX, JAX_TOWERS)
    if is_jax:
        state = unstacked(state)
    if layout.rules:
        state = _joined(_renamed(state, layout, is_jax))
    if is_jax:
        return state
    return (
        _from_eva(state, layout, vit) if isinstance(vit, Eva) else _from_torch(state, layout, vit)
    )


def _renamed(state: State, layout: Layout, is_jax: bool) -> State:
    found = dict(_by_rules(state, layout, is_jax))
    if len(found) < len(state):
        raise ValueError("two of its names stand for one of timm's")
    return found


def _by_rules(state: State, layout: Layout, is_jax: bool) -> Iterable[tuple[str, Tensor]]:
    for theirs, value in state.items():
        ours = theirs
        for pattern, template in layout.rules:
            match = re.fullmatch(pattern, theirs)
            if match:
                ours = match.expand(template)
                break
        if is_jax:
            yield re.sub(r"\.(?:kernel|scale)$", ".weight", ours), from_jax(theirs, value)
        elif ours == "patch_embed.proj.weight" and value.ndim == 2:
            raise ValueError("patches are read by a matrix, as NaFlex models do")
        elif ours in ("cls_token", "pos_embed"):
            yield ours, value[(None,) * max(3 - value.ndim, 0)]
        else:
            yield ours, value


def _joined(state: State) -> State:
    """Projections that timm keeps as one matrix: queries first, then keys, then values."""
    found = dict(state)
    for name in [name for name in state if ".attn.query." in name]:
        parts = [name.replace("query", part) for part in ("query", "key", "value")]
        if all(part in found for part in parts):
            joined = torch.cat([found.pop(part) for part in parts])
            found[name.replace("query", "qkv")] = joined
    for leaf in ("weight", "bias"):
        # Of a pool that reads the tokens by one query of its own.
        parts = [f"attn_pool.{part}.{leaf}" for part in ("key", "value")]
        if all(part in found for part in parts):
            found[f"attn_pool.kv.{leaf}"] = torch.cat([found.pop(part) for part in parts])
        if f"attn_pool.qkv.{leaf}" in found:
            joined = found.pop(f"attn_pool.qkv.{leaf}")
            width = len(joined) // 3
            found[f"attn_pool.q.{leaf}"] = joined[:width]
            found[f"attn_pool.kv.{leaf}"] = joined[width:]
    return found


def _from_torch(state: State, layout: Layout, vit: ViT) -> State:
    """Bring names to timm's by timm's own conversions, with every shape left as it is.

    timm resizes patches and positions to the model it is given: it is given one without positions,
    whose patches are the file's own.
    """
    if any(key.startswith("radio_model.") for key in state):
        raise ValueError("RADIO's own files have positions of another kind; take timm's")
    if layout.anchor == CLIP.anchor:  # timm knows CLIP by its prefix
        state = {f"visual.{key}": value for key, value in state.items()}
    target = _target(state, vit)
    return dict(vision_transformer.checkpoint_filter_fn(state, target, adapt_layer_scale=True))


def _from_eva(state: State, layout: Layout, vit: Eva) -> State:
    """As above, for timm's Eva family."""
    if layout.anchor == CLIP.anchor:
        state = {f"visual.{key}": value for key, value in state.items()}
    state = _without_zero_biases(state, vit)
    return dict(eva.checkpoint_filter_fn(state, _target(state, vit)))


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


def _target(state: State, vit: ViT) -> Any:
    kernels = [v for v in state.values() if v.ndim == 4]
    patches = kernels[0] if len(kernels) == 1 else vit.patch_embed.proj.weight
    return SimpleNamespace(
        pos_embed=None,
        patch_embed=SimpleNamespace(proj=SimpleNamespace(weight=patches)),
        head=vit.head,
        get_parameter=vit.get_parameter,
    )


def _changes(
    found: Tensors, layout: Layout, prefix: str, dropped: Iterable[str]
) -> tuple[str, ...]:
    """What was done to a file's names, for people."""
    said = []
    if found.beside:
        said.append(f"{found.wrapper[-1]!r} read, not {some(found.beside)}")
    if layout is not PLAIN:
        said.append(f"{layout.title} names")
    if prefix:
        said.append(f"prefix {prefix!r} taken off")
    parts = dict.fromkeys(_part(name, prefix) for name in dropped)
    if parts:
        listed = list(parts)
        said.append(f"dropped {', '.join(listed[:4])}{', ...' if len(listed) > 4 else ''}")
    return tuple(said)


def _part(name: str, prefix: str) -> str:
    """What a tensor that is not used belongs to."""
    common = re.match(r"(?:.*[./])?", os.path.commonprefix([name, prefix]))
    inner = name[common.end() if common else 0 :].removeprefix("embeddings.")
    first = re.split(r"[./]", inner)[0]
    if first in _TEXTS:
        return "text tower"
    return re.sub(r"^decoder_\w+", "decoder", first)


def _refuse(kinds: Iterable[Foreign], state: State, path: Path) -> None:
    """Say what a file holds that is no vision transformer."""
    names = "\n".join(state)
    for kind in kinds:
        mark = re.search(rf"^.*(?:{kind.mark}).*$", names, re.MULTILINE)
        if mark and not (kind.lacks and re.search(kind.lacks, names, re.MULTILINE)):
            raise _holds(kind, mark[0], path)


def _holds(kind: Foreign, name: str, path: Path) -> WeightsError:
    return WeightsError(
        f"backbone.weights: {path.name} holds {kind.title} ({name}); {kind.advice}."
    )


def _refuse_twice(count: int, path: Path) -> None:
    if count:
        raise WeightsError(
            f"backbone.weights: {path.name} has {count} tensors twice, with and without prefixes "
            "such as 'module.'; save one network only."
        )


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
