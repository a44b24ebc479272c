"""How a network computes beside its weights: the kind of GELU and the eps of its layer norms.

Both are constants of the program that trained the weights, and stand in no tensor. timm's models
have those of the weights that timm publishes; a file of another program may need others.
"""

import json
from pathlib import Path
from typing import Any

import timm
from timm.layers import QuickGELU, create_act_layer
from timm.layers.activations import GELUTanh
from torch import nn

from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.model.layouts import Act
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


def compute_as_source(file: WeightsFile, vit: ViT, name: str) -> list[str]:
    """Let a model compute as the program whose weights it has, where timm's would not.

    Args:
        file: The weights' file.
        vit: The model.
        name: Of the model.

    Returns:
        What was changed, in a few words each.

    Raises:
        ConfigError: timm has this very model with the weights' kind of GELU under another name.
        WeightsError: The description beside the file names an activation that is no GELU.
    """
    eps, act = _described(file)
    said = []
    norms = [part for part in vit.modules() if isinstance(part, nn.LayerNorm)]
    if eps is not None and any(norm.eps != eps for norm in norms):
        for norm in norms:
            norm.eps = eps
        said.append(f"layer norms with eps {eps:g}")
    mlps = [part for part in vit.modules() if _kind(getattr(part, "act", None)) is not None]
    kinds = {_kind(mlp.act) for mlp in mlps}
    if act is None and file.layout.title == "CLIP":
        said.append(
            f"{' and '.join(_TITLES[kind] for kind in kinds if kind)} as {name} has it, which the "
            "file does not tell"
        )
    if act is not None and kinds - {act}:
        _refuse_better_name(file, name, act)
        for mlp in mlps:
            mlp.act = create_act_layer(act)
        said.append(f"MLPs with {_TITLES[act]}")
    return said


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


def _described(file: WeightsFile) -> tuple[float | None, Act | None]:
    """eps and activation of a file: those of its layout, unless a description beside it differs."""
    eps, act = file.layout.eps, file.layout.act
    if file.layout.has_projection:
        model = _json(file.path.parent / "open_clip_config.json").get("model_cfg")
        if isinstance(model, dict) and isinstance(model.get("quick_gelu", False), bool):
            act = "quick_gelu" if model.get("quick_gelu") else "gelu"
    if not file.layout.title.startswith("HF "):
        return eps, act
    document = _json(file.path.parent / "config.json")
    inner = document.get("vision_config")
    document |= inner if isinstance(inner, dict) else {}
    found = document.get("layer_norm_eps")
    if isinstance(found, float) and 0 < found < 1:
        eps = found
    word = document.get("hidden_act")
    if isinstance(word, str) and act is not None:
        if word not in _ACTS:
            raise WeightsError(
                f"backbone.weights: config.json beside {file.path.name} says hidden_act={word!r}; "
                f"known: {', '.join(_ACTS)}."
            )
        act = _ACTS[word]
    return eps, act


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
