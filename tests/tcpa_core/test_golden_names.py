"""Golden files of methods that the shared folder has none of, by the naming of its README."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tcpa_core.methods.base import Step
from tcpa_core.model.pack_model import PackModel
from tests.tcpa_core import golden

L, D, H, E, S, P, K, CLASSES = 2, 32, 4, 8, 17, 3, 2, 5
GEOMETRY = {"img_size": 32, "patch_size": 8, "embed_dim": D, "depth": L, "num_heads": H,
            "mlp_ratio": 2}  # fmt: skip


def draw(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) - 0.5


def adapters(pattern: str, **more: Tensor) -> dict[str, Tensor]:
    """A bottleneck of three in every block."""
    shapes = {"down": (3, D), "up": (D, 3)}
    found = {
        pattern.format(i=i, layer=layer) + f".{kind}": draw(
            *(shape if kind == "weight" else shape[:1])
        )
        for i in range(L)
        for layer, shape in shapes.items()
        for kind in ("weight", "bias")
    }
    return found | more


def cross() -> dict[str, Tensor]:
    """Cross attention of every block."""
    return {
        f"cross_attn.{i}.{part}.{kind}": draw(*((D, D) if kind == "weight" else (D,)))
        for i in range(L)
        for part in ("q", "k", "v", "proj")
        for kind in ("weight", "bias")
    }


POOLS = {
    "prompts.cls": draw(L, 4, 2, D),
    "keys.cls": draw(L, 4, D),
    "prompts.image": draw(L, 6, 1, D),
    "keys.image": draw(L, 6, D),
}
TCPA = {"N_c": 4, "N_i": 6, "len_c": 2, "len_i": 1, "K_c": 2, "K_i": 3, "fourier": True,
        "match_loss_weight_lambda": 0.1, "role_masking": True, "token_selection": True}  # fmt: skip
MASKS = {"token_mask": torch.ones(P), "segment_mask": torch.ones(P, 16)}
KV = draw(L, H, K, E)

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Tensor], dict[str, Any]]] = {
    "vfpt_tcpa": (
        "VFPT+TCPA (role + token)", TCPA, POOLS,
        {"methods": ["vfpt", "tcpa"], "vfpt.fraction": 1.0, "tcpa.lambda_image": 0.1},
    ),
    "vfpt_r_tcpa": (
        "VFPT+R-TCPA (role only)",
        TCPA | {"token_selection": False, "match_loss_weight_lambda": None},
        {k: v for k, v in POOLS.items() if k.startswith("prompts")},
        {"methods": ["vfpt", "tcpa"], "tcpa.match_tokens": False, "tcpa.split_roles": True},
    ),
    "vpt_deep_end": (
        "VPT-deep (prompts at the end)",
        {"deep": True, "prompt_length": P, "prompt_position": "after the image tokens"},
        {"prompts": draw(L, P, D)}, {"vpt.position": "end", "vpt.num_prompts": P},
    ),
    "vpt_shallow_end": (
        "VPT-shallow", {"deep": False, "prompt_length": P, "prompt_position": "end"},
        {"prompts": draw(1, P, D)}, {"vpt.position": "end", "vpt.deep": False},
    ),
    **{
        f"cvpt_insert{position}": (
            "CVPT", {"insert": position, "prompt_length": P}, {"prompts": draw(L, P, D)} | cross(),
            {"cvpt.position": position, "cvpt.weights": "random_frozen"},
        )
        for position in (2, 4, 5)
    },
    "cvpt_insert3_learnable": (
        "CVPT", {"insert": 3, "prompt_length": P, "trains": "cross_attn"},
        {"prompts": draw(L, P, D)} | cross(), {"cvpt.weights": "random_learnable"},
    ),
    "e2vpt": (
        "E2VPT", {}, {"prompts": draw(L, P, D), "kv_prompts": KV},
        {"e2vpt.num_kv_prompts": K, "e2vpt.share_kv": True, "e2vpt.num_prompts": P},
    ),
    "e2vpt_own": (
        "E²VPT", {}, {"prompts": draw(L, P, D), "kv_prompts.key": KV, "kv_prompts.value": KV + 1},
        {"e2vpt.num_kv_prompts": K, "e2vpt.share_kv": False},
    ),
    "e2vpt_masks": (
        "E2VPT", {}, {"prompts": draw(L, P, D), "kv_prompts": KV, **MASKS},
        {"e2vpt.train_masks": True, "e2vpt.segments": "interleaved", "e2vpt.num_segments": 16},
    ),
    "e2vpt_pruned": (
        "E2VPT", {"frozen": "mask"}, {"prompts": draw(L, P, D), "kv_prompts": KV, **MASKS},
        {"e2vpt.train_masks": False, "e2vpt.segments": "interleaved"},
    ),
    "gated_mae": (
        "Gated prompt tuning (MAE)", {"prompt_length": P},
        {"prompts": draw(1, P, D), "gates": draw(L - 1), "temperatures": draw(L) + 1},
        {"gated.pool_prompts": True, "gated.num_prompts": P},
    ),
    "gated_moco": (
        "GatedPromptTuning", {"source": "ryongithub/GatedPromptTuning vit_moco.py"},
        {"prompts": draw(1, P, D), "gate_logits": draw(L), "tau": draw(L, 1) + 1},
        {"gated.pool_prompts": False, "gated.num_prompts": P},
    ),
    "gated_gamma": (
        "gated prompts, MoCo", {},
        {"prompts": draw(P, D), "gamma": draw(L - 1), "prompt_temp": draw(L) + 1},
        {"gated.pool_prompts": False},
    ),
    "adaptformer": (
        "AdaptFormer", {"scale": 0.1}, adapters("adapters.{i}.{layer}"),
        {"adaptformer.bottleneck": 3, "adaptformer.scale": 0.1, "adaptformer.head_norm": False},
    ),
    "adaptformer_official": (
        "AdaptFormer", {"tuning": {"ffn_adapter_scalar": "0.2"}},
        adapters("blocks.{i}.adaptmlp.{layer}_proj"), {"adaptformer.scale": 0.2},
    ),
    "adaptformer_learnable": (
        "AdaptFormer", {},
        adapters("adapters.{i}.{layer}", **{f"adapters.{i}.scale": draw(1) for i in range(L)}),
        {"adaptformer.scale": "learnable"},
    ),
    "adaptformer_norm": (
        "AdaptFormer", {"scale": 0.1, "frozen": "running"},
        adapters("adapters.{i}.{layer}", running_mean=draw(D), running_var=draw(D) + 1),
        {"adaptformer.head_norm": True},
    ),
}  # fmt: skip
"""Method, further hparams, tensors of the method, and settings that have to come out."""


def write(path: Path, method: str, hparams: dict[str, Any], own: dict[str, Tensor]) -> None:
    """A file by the README's rules, with random gradients and without results."""
    vit = VisionTransformer(**GEOMETRY, num_classes=CLASSES)
    backbone = vit.state_dict()
    extra = dict(hparams)
    trains, frozen = extra.pop("trains", ""), extra.pop("frozen", "-")
    learned = [k for k in own if (trains or not k.startswith("cross_attn")) and frozen not in k] + [
        "head.bias",
        "head.weight",
    ]
    about = {
        "method": method, "geometry": GEOMETRY, "backbone_keys": list(backbone),
        "method_param_keys": sorted(own), "trainable_keys": sorted(learned), **extra,
    }  # fmt: skip
    arrays = {**backbone, **own, "x": draw(2, 3, 32, 32), "y": torch.tensor([0, 1])}
    arrays |= {f"grad.{k}": draw(*arrays[k].shape).double() for k in learned}
    np.savez(path, hparams=json.dumps(about), **{k: v.numpy() for k, v in arrays.items()})


@pytest.mark.parametrize("name", CASES)
def test_tensors_and_gradients_find_their_places(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, hparams, own, expected = CASES[name]
    monkeypatch.setenv("TCPA_GOLDEN", str(tmp_path))
    write(tmp_path / f"{name}.npz", method, hparams, own)
    assert golden.file_names() == [name]
    case = golden.load(name, torch.float64)
    flat = case.config.flat()
    assert {path: flat[path] for path in expected} == expected
    pack = PackModel(case.backbone, [case.config], CLASSES, [case.state])
    wanted = {k: tuple(v.shape[1:]) for k, v in pack.tensors.trainable().items()}
    assert {k: tuple(v.shape) for k, v in case.gradients().items()} == wanted
    assert torch.isfinite(pack(case.arrays["x"][None], Step.evaluation(1)).logits).all()
    given = sorted(v.double().sum().item() for k, v in own.items() if not k.startswith("cross"))
    ours = ("head", "cvpt.qkv", "cvpt.proj", "e2vpt.is_cut")
    loaded = sorted(
        v.double().sum().item() for k, v in case.state.items() if not k.startswith(ours)
    )
    if not name.startswith(("gated_moco", "adaptformer")):  # some are cut, stacked or dropped
        assert loaded == pytest.approx(given)


def test_bottlenecks_are_stacked_in_the_order_of_their_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, hparams, own, _ = CASES["adaptformer"]
    monkeypatch.setenv("TCPA_GOLDEN", str(tmp_path))
    write(tmp_path / "a.npz", method, hparams, {k: v + int(k[9]) for k, v in own.items()})
    state = golden.load("a", torch.float64).state
    for layer in ("down", "up"):
        for kind in ("weight", "bias"):
            for i in range(L):
                ours = state[f"adaptformer.{layer}_{kind}"][i]
                torch.testing.assert_close(ours.float(), own[f"adapters.{i}.{layer}.{kind}"] + i)
