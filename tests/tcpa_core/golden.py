"""Golden vectors of the authors' code, turned into trials of this package."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import MemberState
from tcpa_core.model.backbone import Backbone
from tests.tcpa_core.stored import Choices, read

OUR_NAMES = {
    "prompts.cls": "tcpa.cls_prompts",
    "prompts.image": "tcpa.image_prompts",
    "keys.cls": "tcpa.cls_keys",
    "keys.image": "tcpa.image_keys",
    "head.weight": "head.weight",
    "head.bias": "head.bias",
}


def folder() -> Path:
    """Where the files are: TCPA_GOLDEN, or `golden` of the shared folder beside the repository."""
    shared = Path(os.environ.get("TCPA_SHARED", Path(__file__).parents[3] / "shared"))
    return Path(os.environ.get("TCPA_GOLDEN", shared / "golden"))


def file_names() -> list[str]:
    """All files, without their ending."""
    return sorted(p.stem for p in folder().glob("*.npz"))


@dataclass
class Golden:
    """One file: a backbone, a trial on it with its state, and the arrays it has to give."""

    arrays: dict[str, Tensor]
    backbone: Backbone
    config: TrialConfig
    state: MemberState
    cross_attention: dict[str, Tensor]
    """CVPT: weights stacked over the blocks, by our names."""
    choices: Choices
    """What the authors' program drew, where the file holds it."""

    @property
    def at_end(self) -> bool:
        """Whether prompts stand behind the image tokens."""
        settings = self.config.method_settings[self.config.methods[-1]]
        return getattr(settings, "position", None) == "end"

    @property
    def reference(self) -> dict[str, Tensor]:
        """The file's results."""
        return {k: v for k, v in self.arrays.items() if k.startswith("out.")}

    def gradients(self) -> dict[str, Tensor]:
        """Reference gradients by our names, in our shapes."""
        named = {k: v for k, v in self.arrays.items() if k.startswith("grad.")}
        return _rename({k.removeprefix("grad."): v for k, v in named.items()}, self.config)

    def loss(self, logits: Tensor) -> Tensor:
        """Cross entropy with hard or soft labels, batch mean."""
        if "y_soft" in self.arrays:
            return -(self.arrays["y_soft"] * logits.log_softmax(-1)).sum(-1).mean()
        return torch.nn.functional.cross_entropy(logits, self.arrays["y"])


def load(name: str, dtype: torch.dtype) -> Golden:
    """Read one file through the public classes."""
    with np.load(folder() / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    hparams = json.loads(str(arrays.pop("hparams")))
    tensors = {
        key: torch.from_numpy(value).to(dtype if value.dtype.kind == "f" else None)
        for key, value in arrays.items()
    }
    geometry = hparams["geometry"]
    is_mae = _is_mae(hparams)
    vit = VisionTransformer(
        global_pool="avg" if is_mae else "token",
        img_size=geometry["img_size"],
        patch_size=geometry["patch_size"],
        embed_dim=geometry["embed_dim"],
        depth=geometry["depth"],
        num_heads=geometry["num_heads"],
        mlp_ratio=geometry["mlp_ratio"],
        num_classes=0,
    )
    keys = [key for key in hparams["backbone_keys"] if not key.startswith("head.")]
    last_norm = "fc_norm." if is_mae else "norm."  # timm's name of a norm behind the mean
    vit.load_state_dict(
        {re.sub("^(fc_)?norm[.]", last_norm, key): tensors[key].float() for key in keys}
    )
    own = {key: tensors[key] for key in hparams["method_param_keys"]}
    settings = _settings(hparams, tensors, own)
    choices = read(tensors, hparams, TrialConfig.from_flat(settings).flat())
    config = TrialConfig.from_flat(settings | choices.settings)
    cross = _stack_cross_attention(tensors, geometry["depth"])
    named = {k: v for k, v in own.items() if not k.startswith("cross_attn")}
    heads = {k: tensors[k] for k in ("head.weight", "head.bias")}
    state = _complete(_rename(named | heads, config), config)
    if cross and config.method_settings["cvpt"].weights.endswith("learnable"):
        state |= cross
    return Golden(tensors, Backbone(vit).to(dtype), config, state, cross, choices)


def _is_mae(hparams: dict[str, Any]) -> bool:
    """Whether features are the mean over patches and prompts, then normalised."""
    method = hparams["method"].lower()
    if any(key.startswith("fc_norm.") for key in hparams["backbone_keys"]):
        return True
    if "moco" in method or "mae" in method:
        return "mae" in method
    pools = [str(v) for k, v in hparams.items() if "pool" in k or "classifier" in k]
    if any("mean" in pool.lower() or "average" in pool.lower() for pool in pools):
        return True
    return "mae" in f"{hparams['method']} {hparams.get('source', '')}".lower()


def _settings(
    hparams: dict[str, Any], tensors: dict[str, Tensor], own: dict[str, Tensor]
) -> dict[str, Any]:
    """Settings of the trial that a file stands for.

    Args:
        own: Tensors of the method among all tensors of the file.
    """
    method = hparams["method"].replace("²", "2").replace("^", "").lower()
    if method == "plain vit":
        return {"methods": ["linear"]}
    if "tcpa" in method:
        return _tcpa_settings(hparams)
    if "adaptformer" in method:
        return _adaptformer_settings(hparams, own)
    for word, name in (("e2vpt", "e2vpt"), ("gat", "gated")):
        if word in method:
            return _settings_by_shape(name, hparams, own)
    if method.startswith("cvpt"):
        return _cvpt_settings(hparams, tensors)
    if method.startswith("vfpt"):
        return _sequence_settings("vfpt", hparams, own) | _fourier_settings(hparams)
    if method.startswith("vpt"):
        return _sequence_settings("vpt", hparams, own)
    raise ValueError(f"no trial known for golden method {hparams['method']!r}")


def _sequence_settings(
    method: str, hparams: dict[str, Any], own: dict[str, Tensor]
) -> dict[str, Any]:
    place = str(hparams.get("prompt_position", "after CLS, before the image tokens"))
    layers, count = own["prompts"].shape[:2]
    return {
        "methods": [method],
        f"{method}.num_prompts": count,
        f"{method}.deep": hparams.get("deep", layers > 1),
        f"{method}.position": "after_prefix" if "before the image" in place else "end",
        f"{method}.pool_prompts": _is_mae(hparams),
    }


def _settings_by_shape(
    method: str, hparams: dict[str, Any], own: dict[str, Tensor]
) -> dict[str, Any]:
    """E2VPT and gated prompts: the tensors say what there is. Masks come from the code of the
    authors, whose segments are interleaved."""
    kinds = _by_kind(own)
    settings = {
        "methods": [method],
        f"{method}.num_prompts": kinds["prompts"].shape[-2] if "prompts" in kinds else 0,
        f"{method}.pool_prompts": _is_mae(hparams),
    }
    if method == "e2vpt":
        found = [kinds[k] for k in ("kv_prompts", "key_prompts") if k in kinds]
        settings["e2vpt.num_kv_prompts"] = found[0].shape[-2] if found else 0
        settings["e2vpt.share_kv"] = "value_prompts" not in kinds
        if "segment_mask" in kinds:
            trained = [key for key in hparams["trainable_keys"] if _kind(key).endswith("mask")]
            settings |= {
                "e2vpt.prune_epoch": 1,
                "e2vpt.token_prune": 50,
                "e2vpt.train_masks": bool(trained),
                "e2vpt.segments": "interleaved",
                "e2vpt.num_segments": kinds["segment_mask"].shape[-1],
            }
    return settings


def _adaptformer_settings(hparams: dict[str, Any], own: dict[str, Tensor]) -> dict[str, Any]:
    down = next(v for k, v in own.items() if "down" in k and k.endswith("weight"))
    fixed = [float(v.flatten()[0]) for k, v in own.items() if "scal" in k] + _scales(hparams)
    learns = any("scal" in key for key in hparams["trainable_keys"])
    return {
        "methods": ["adaptformer"],
        "adaptformer.bottleneck": down.shape[-2],
        "adaptformer.scale": "learnable" if learns else (fixed or [0.1])[0],
        "adaptformer.head_norm": any(key.endswith("running_mean") for key in own),
    }


def _scales(hparams: dict[str, Any]) -> list[float]:
    """Numbers under a key that speaks of a scale, also as text and further down."""
    found = []
    for key, value in hparams.items():
        if isinstance(value, dict):
            found += _scales(value)
        elif "scal" in key and re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", str(value)):
            found.append(float(value))
    return found


def _kind(key: str) -> str:
    """Our name of a tensor of E2VPT or gated prompts, by what its name in the file says."""
    low, parts = key.lower(), re.findall("[a-z]+", key.lower())
    if any(word in low for word in ("segment", "piece", "chunk", "zeta")):
        return "segment_mask"
    if "mask" in low or "rho" in parts:
        return "token_mask"
    if "gate" in low or "gamma" in low:
        return "gates"
    if "temp" in low or "tau" in low:
        return "temperatures"
    is_key = "key" in low or "k" in parts
    is_value = "value" in low or "v" in parts
    if is_key != is_value:
        return "key_prompts" if is_key else "value_prompts"
    return "kv_prompts" if is_key or "kv" in low or "vk" in low else "prompts"


def _by_kind(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by `_kind`; several of one kind are those of the blocks in order, the first block's
    prompts before the deep ones."""
    groups: dict[str, list[str]] = {}
    for key in tensors:
        groups.setdefault(_kind(key), []).append(key)
    out = {}
    for kind, keys in groups.items():
        keys.sort(key=lambda k: ("deep" in k.lower(), [int(n) for n in re.findall("[0-9]+", k)]))
        found = [tensors[key] for key in keys]
        if kind == "prompts" and len(found) > 1:
            out[kind] = torch.cat([t if t.ndim == 3 else t[None] for t in found])
        else:
            out[kind] = torch.stack(found) if len(found) > 1 else found[0]
    return out


def _fourier_settings(hparams: dict[str, Any]) -> dict[str, Any]:
    return {
        path: default if hparams.get(key) is None else hparams[key]
        for path, (key, default) in {
            "vfpt.fraction": ("fourier_percentage", 1.0),
            "vfpt.dims": ("fourier_dimension", "all"),
            "vfpt.location": ("fourier_location", "prepend"),
        }.items()
    }


def _cvpt_settings(hparams: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    learns = any(key.startswith("cross_attn") for key in hparams["trainable_keys"])
    return {
        "methods": ["cvpt"],
        "cvpt.num_prompts": tensors["prompts"].shape[-2],
        "cvpt.position": hparams["insert"],
        "cvpt.weights": "random_learnable" if learns else _frozen_kind(tensors),
    }


def _tcpa_settings(hparams: dict[str, Any]) -> dict[str, Any]:
    settings = {
        "methods": ["tcpa"],
        "tcpa.num_cls_prompts": hparams["N_c"],
        "tcpa.num_image_prompts": hparams["N_i"],
        "tcpa.prompt_length": hparams["len_c"],
        "tcpa.image_prompt_length": hparams["len_i"],
        "tcpa.split_roles": hparams["role_masking"],
        "tcpa.match_tokens": hparams["token_selection"],
    }
    if hparams["token_selection"]:
        settings |= {"tcpa.top_k_cls": hparams["K_c"], "tcpa.top_k_image": hparams["K_i"]}
        settings |= {
            f"tcpa.lambda_{role}": hparams["match_loss_weight_lambda"] for role in ("cls", "image")
        }
    if hparams.get("fourier", "vfpt" in hparams["method"].lower()):
        settings |= _fourier_settings(hparams) | {"methods": ["vfpt", "tcpa"]}
    return settings


def _frozen_kind(tensors: dict[str, Tensor]) -> str:
    own, copied = tensors["blocks.0.attn.proj.weight"], tensors["cross_attn.0.proj.weight"]
    return "shared_frozen" if torch.equal(own, copied) else "random_frozen"


def _stack_cross_attention(tensors: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    if "cross_attn.0.q.weight" not in tensors:
        return {}
    stacked = {}
    for kind in ("weight", "bias"):
        stacked[f"cvpt.qkv_{kind}"] = torch.stack(
            [
                torch.cat([tensors[f"cross_attn.{i}.{p}.{kind}"] for p in "qkv"])
                for i in range(depth)
            ]
        )
        stacked[f"cvpt.proj_{kind}"] = torch.stack(
            [tensors[f"cross_attn.{i}.proj.{kind}"] for i in range(depth)]
        )
    return stacked


def _rename(tensors: dict[str, Tensor], config: TrialConfig) -> dict[str, Tensor]:
    """The file's names to ours."""
    method = config.methods[-1]
    cross = {k: v for k, v in tensors.items() if k.startswith("cross_attn")}
    renamed = {
        OUR_NAMES.get(key, f"{method}.{key}"): value
        for key, value in tensors.items()
        if key not in cross
    }
    if method in ("e2vpt", "gated"):
        return _reshape(method, tensors)
    if method == "adaptformer":
        learns = config.method_settings["adaptformer"].scale == "learnable"
        return _stack_bottlenecks(tensors, learns)
    if method in ("vpt", "vfpt") and not config.method_settings[method].deep:
        renamed[f"{method}.prompts"] = renamed[f"{method}.prompts"][0]
    if cross:
        renamed |= _stack_cross_attention(cross, len(tensors["prompts"]))
    return renamed


def _reshape(method: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of E2VPT and gated prompts in our shapes; what is not the head is the method's."""
    out = {key: value for key, value in tensors.items() if key in OUR_NAMES}
    own = {key: value for key, value in tensors.items() if key not in OUR_NAMES}
    for name, value in _by_kind(own).items():
        kind = f"{method}.{name}"
        if kind in ("gated.gates", "gated.temperatures", "e2vpt.token_mask"):
            value = value.flatten()
        elif kind == "gated.prompts":
            value = value.flatten(0, -2)
        elif value.ndim == 5:  # [L, 1, H, K, E]
            value = value[:, 0]
        out[kind] = value
    if "gated.gates" in out:  # the last block has none
        out["gated.gates"] = out["gated.gates"][: len(out["gated.temperatures"]) - 1]
    return out


def _complete(state: MemberState, config: TrialConfig) -> MemberState:
    """Add what the authors' state does not have: when trained masks become fixed."""
    if config.methods == ("e2vpt",) and config.method_settings["e2vpt"].train_masks:
        state |= {"e2vpt.is_cut": torch.zeros(1)}
    return state


def _stack_bottlenecks(tensors: dict[str, Tensor], learns: bool) -> dict[str, Tensor]:
    """Layers of AdaptFormer's blocks, one file entry per block or all in one, by our names."""
    out = {key: value for key, value in tensors.items() if key in OUR_NAMES}
    for layer in ("down", "up"):
        for kind in ("weight", "bias"):
            found = {k: v for k, v in tensors.items() if layer in k and k.endswith(kind)}
            by_block = sorted(found, key=lambda key: [int(n) for n in re.findall("[0-9]+", key)])
            first = [found[key] for key in by_block]
            stacked = torch.stack(first) if len(first) > 1 else first[0]
            out[f"adaptformer.{layer}_{kind}"] = stacked
    for part in ("running_mean", "running_var"):
        out |= {f"adaptformer.{part}": v for k, v in tensors.items() if k.endswith(part)}
    by_block = sorted(
        (k for k in tensors if "scal" in k),
        key=lambda key: [int(n) for n in re.findall("[0-9]+", key)],
    )
    if by_block and learns:
        out["adaptformer.scale"] = torch.cat([tensors[key].reshape(-1) for key in by_block])
    return out
