"""How a network computes beside its weights: kind of GELU, eps of layer norms, number of heads.

They are constants of the program that trained the weights, and stand in no tensor. timm's models
have those of the weights that timm publishes; a file of another program may need others.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.layers import QuickGELU, create_act_layer
from timm.layers.activations import GELUTanh
from torch import nn

from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.model.layouts import CLIP, Act
from tcpa_core.model.timm_names import ViT
from tcpa_core.model.weights_file import WeightsFile

_ACTS: dict[str, Act] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
"""Names in descriptions of Hugging Face's transformers."""
_TITLES = {"gelu": "GELU", "gelu_tanh": "GELU by tanh", "quick_gelu": "quick GELU"}


@dataclass(frozen=True, slots=True)
class _Computing:
    """What of a network stands in no tensor; None: it is not known."""

    eps: float | None
    """Of layer norms."""
    act: Act | None
    num_heads: int | None


def compute_as_source(file: WeightsFile, vit: ViT, name: str) -> list[str]:
    """Let a model compute as the program whose weights it has, where timm's would not.

    Args:
        file: The weights' file.
        vit: The model.
        name: Of the model.

    Returns:
        What was changed, in a few words each.

    Raises:
        ConfigError: The weights have another number of heads, or timm has this very model with
            their kind of GELU under another name.
        WeightsError: The description beside the file names an activation that is no GELU.
    """
    source = _described(file)
    _refuse_other_heads(file, vit, name)
    # First what may be refused, so that a model is changed as a whole or not at all.
    said = [
        *_set_act(file, source.act, vit, name),
        *_set_eps(source.eps, vit),
        *_set_heads(source.num_heads, vit),
    ]
    if source.act is None and file.layout is CLIP:
        acts = sorted(_TITLES[act] for act in _acts(vit))
        said.append(f"{' and '.join(acts)} as {name} has it, which the file does not tell")
    return said


def _refuse_other_heads(file: WeightsFile, vit: ViT, name: str) -> None:
    found = vit.blocks[0].attn.num_heads
    if file.num_heads not in (None, found):
        raise ConfigError(
            f"backbone.name: {file.path.name} ({file.layout.title}) has {file.num_heads} heads, "
            f"{name!r} has {found}, and would compute something else with its weights; choose "
            "a model with as many heads."
        )


def _set_act(file: WeightsFile, act: Act | None, vit: ViT, name: str) -> list[str]:
    if act is None or _acts(vit) <= {act}:
        return []
    _refuse_better_name(file, name, act)
    for part in vit.modules():
        if _kind(getattr(part, "act", None)) is not None:
            part.act = create_act_layer(act)
    return [f"MLPs with {_TITLES[act]}"]


def _set_eps(eps: float | None, vit: ViT) -> list[str]:
    norms = [part for part in vit.modules() if isinstance(part, nn.LayerNorm)]
    if eps is None or all(norm.eps == eps for norm in norms):
        return []
    for norm in norms:
        norm.eps = eps
    return [f"layer norms with eps {eps:g}"]


def _set_heads(num_heads: int | None, vit: ViT) -> list[str]:
    if num_heads in (None, vit.blocks[0].attn.num_heads):
        return []
    for block in vit.blocks:
        attn: Any = block.attn
        attn.head_dim = attn.num_heads * attn.head_dim // num_heads
        attn.num_heads, attn.scale = num_heads, attn.head_dim**-0.5
    return [f"{num_heads} heads"]


def _acts(vit: ViT) -> set[Act]:
    """Kinds of GELU in a model."""
    kinds = (_kind(getattr(part, "act", None)) for part in vit.modules())
    return {kind for kind in kinds if kind is not None}


def described_computing(path: Path) -> str:
    """What a description of Hugging Face's transformers beside a weights file says of how the
    network computes, for its identity; "" where there is none."""
    document = _json(path.parent / "config.json")
    if "model_type" not in document:
        return ""
    document |= _inner(document)
    found = [document.get(key) for key in ("layer_norm_eps", "hidden_act", "num_attention_heads")]
    return "" if found == [None] * 3 else repr(found)


def _kind(act: object) -> Act | None:
    """Which GELU a layer is; None: no GELU."""
    if isinstance(act, QuickGELU):
        return "quick_gelu"
    if isinstance(act, GELUTanh):
        return "gelu_tanh"
    if isinstance(act, nn.GELU):
        return "gelu_tanh" if act.approximate == "tanh" else "gelu"
    return None


def _refuse_better_name(file: WeightsFile, name: str, act: Act) -> None:
    arch = name.partition(".")[0]
    other = (
        arch.replace("_clip_", "_clip_quickgelu_")
        if act == "quick_gelu" and "quickgelu" not in arch
        else arch.replace("_clip_quickgelu_", "_clip_")
    )
    if other != arch and timm.is_model(other):
        raise ConfigError(
            f"backbone.name: {file.path.name} ({file.layout.title}) was trained with "
            f"{_TITLES[act]}, {name!r} has another; set backbone.name={other}. Weights of another "
            "origin in these names: put their config.json beside them."
        )


def _described(file: WeightsFile) -> _Computing:
    """That of the file's layout, unless a description beside it differs."""
    layout = file.layout
    act = layout.act
    if layout.has_projection:
        model = _json(file.path.parent / "open_clip_config.json").get("model_cfg")
        if isinstance(model, dict):
            act = "quick_gelu" if model.get("quick_gelu") is True else "gelu"
    if not layout.title.startswith("HF "):
        return _Computing(layout.eps, act, None)
    document = _json(file.path.parent / "config.json")
    document |= _inner(document)
    eps, word = document.get("layer_norm_eps"), document.get("hidden_act")
    heads, width = document.get("num_attention_heads"), document.get("hidden_size")
    if isinstance(word, str) and act is not None:
        if word not in _ACTS:
            raise WeightsError(
                f"backbone.weights: config.json beside {file.path.name} says hidden_act={word!r}; "
                f"known: {', '.join(_ACTS)}."
            )
        act = _ACTS[word]
    has_heads = type(heads) is int and type(width) is int and heads > 0 and width % heads == 0
    return _Computing(
        eps if isinstance(eps, float) and 0 < eps < 1 else layout.eps,
        act,
        heads if has_heads else None,
    )


def _inner(document: dict[str, Any]) -> dict[str, Any]:
    """The part on pictures of a description of pictures and texts."""
    inner = document.get("vision_config")
    return inner if isinstance(inner, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
