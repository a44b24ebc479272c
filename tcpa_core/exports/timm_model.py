"""A trained trial as weights of a timm model, which `timm.create_model` loads by itself."""

import math
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from tcpa_core.errors import ConfigError
from tcpa_core.exports.base import Form, Logits, Written
from tcpa_core.exports.plain import arguments, merged, why_not_plain, with_head
from tcpa_core.model.transform import Transform
from tcpa_core.training.trained import TrainedModel
from tcpa_core.training.trained_state import MODEL

USAGE = """\
import timm, torch
from PIL import Image

model = timm.create_model("local-dir:DIR", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.no_grad():
    label = model(transform(Image.open("picture.jpg").convert("RGB"))[None]).argmax(-1).item()
print(model.pretrained_cfg["label_names"][label])
"""
DEEP = "timm's transform clips 16-bit grey pictures, and expects RGB: convert them first."
ALIASED = (
    "timm's transform averages the pixels of pictures that become smaller, which the trial did not "
    "(data.antialias=false): its predictions differ."
)


def _write(model: TrainedModel, folder: Path) -> Written:
    network = with_head(merged(model), model.source.tensors)
    state = {name: t.detach().contiguous() for name, t in network.state_dict().items()}
    name, told = arguments(model)
    save_file(state, folder / MODEL, metadata={"format": "pt"})
    config = {
        "architecture": name,
        "num_classes": len(model.class_names),
        "num_features": model.pack.backbone.layout.embed_dim,
        "label_names": list(model.class_names),
        "model_args": told,
        "pretrained_cfg": _preprocessing(model.transform),
    }
    notes = (DEEP,) if model.transform.rule.antialias else (DEEP, ALIASED)
    return Written(config=config, usage=USAGE, library="timm", notes=notes)


def _preprocessing(transform: Transform) -> dict[str, Any]:
    """What timm's own transform is made of."""
    rule, side = transform.rule, transform.img_size
    squash = rule.resize == "squash"
    share = 1.0 if squash else side / rule.side
    if math.floor(side / share) != rule.side:  # timm's rounding; it must give the very side
        share = math.nextafter(share, 0.0)
    return {
        "input_size": [3, side, side],
        "fixed_input_size": True,
        "interpolation": rule.interpolation,
        "crop_pct": share,
        "crop_mode": "squash" if squash else "center",
        "mean": list(transform.mean),
        "std": list(transform.std),
        "num_classes": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }


def _read(model: TrainedModel, folder: Path) -> Logits:
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except RuntimeError as err:
        raise ConfigError(
            f"--format timm: timm's {arguments(model)[0]!r} is not built as this backbone is "
            f"({str(err).splitlines()[0]}); --format tcpa, torch.export and onnx do not need it."
        ) from err

    def logits(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = network(images)
        return found

    return logits


FORM = Form(why_not=why_not_plain, write=_write, read=_read, tolerance=1e-4)
