"""A trained LoRA as an adapter that PEFT reads, for timm's own model of the backbone."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tcpa_core.exports.base import Form, Logits, Written
from tcpa_core.exports.plain import arguments, why_not_plain, with_head
from tcpa_core.methods.lora import products
from tcpa_core.model.head import HEADS
from tcpa_core.training.trained import TrainedModel

ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
USAGE = """\
import timm, torch
from peft import PeftModel

base = timm.create_model({name!r}, num_classes={classes}{more})
# with the weights that this adapter was trained on ({weights}), where they are no timm default:
# base.load_state_dict(WEIGHTS, strict=False)
model = PeftModel.from_pretrained(base, "DIR").eval()
# images: float32 [n, 3, height, width], preprocessed as config.json says
logits = model(images)
"""


def _why_not(model: TrainedModel) -> str | None:
    if model.config.methods != ("lora",):
        return f"PEFT reads LoRA, and the trial's methods are {list(model.config.methods)}"
    if not products(model.pack.backbone, model.config, dict(model.source.tensors)):
        return "lora.rank is 0, so that there is no adapter"
    return why_not_plain(model)


def _write(model: TrainedModel, folder: Path) -> Written:
    backbone, state = model.pack.backbone, dict(model.source.tensors)
    tensors, ranks = {}, {}
    for name, (down, up) in products(backbone, model.config, state).items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = down.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = up.contiguous()
        ranks[name] = len(down)
    heads = HEADS[: backbone.layout.num_readouts]
    for head in heads:
        for part in ("weight", "bias"):
            tensors[f"{PREFIX}{head}.{part}"] = state[f"{head}.{part}"].contiguous()
    save_file(tensors, folder / ADAPTER, metadata={"format": "pt"})
    name, told = arguments(model)
    # The scale is in B already, so that every alpha is the rank.
    config = {
        "peft_type": "LORA",
        "auto_mapping": None,
        "base_model_name_or_path": f"timm/{model.config.backbone.full_name}",
        "inference_mode": True,
        "r": model.config.method_settings["lora"].rank,
        "lora_alpha": model.config.method_settings["lora"].rank,
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "target_modules": list(ranks),
        "modules_to_save": list(heads),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }
    (folder / CONFIG).write_text(f"{json.dumps(config, indent=2)}\n", encoding="utf-8")
    more = "".join(f", {key}={value!r}" for key, value in told.items())
    usage = USAGE.format(
        name=name, classes=len(model.class_names), more=more, weights=backbone.fingerprint
    )
    return Written(config={}, usage=usage, library="peft", has_backbone=False)


def _read(model: TrainedModel, folder: Path) -> Logits:
    peft: Any = import_module("peft")
    zeros = {name: torch.zeros_like(t) for name, t in model.source.tensors.items()}
    network = peft.PeftModel.from_pretrained(with_head(model.pack.backbone, zeros), str(folder))
    network.eval()

    def logits(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = network(images)
        return found

    return logits


FORM = Form(why_not=_why_not, write=_write, read=_read, tolerance=1e-4, packages=("peft",))
