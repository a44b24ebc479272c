"""Golden files with stored random choices: recognised by name and shape, and fed to the pass.

The files are made by the literal reference, which draws its numbers from a trial's streams; what it
drew is stored, under the names and in the forms that a program may have.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.pack_model import PackModel
from tcpa_core.streams import Stream
from tests.tcpa_core import golden, oracle

L, D, B, N, P, CLASSES = 3, 32, 2, 16, 4, 5
GEOMETRY = {"img_size": 32, "patch_size": 8, "embed_dim": D, "depth": L, "num_heads": 4,
            "mlp_ratio": 2}  # fmt: skip
POOLS = {"N_c": 5, "N_i": 7, "len_c": 2, "len_i": 1, "K_c": 2, "K_i": 3}
NAMES = {"tcpa.cls_prompts": "prompts.cls", "tcpa.image_prompts": "prompts.image",
         "tcpa.cls_keys": "keys.cls", "tcpa.image_keys": "keys.image"}  # fmt: skip
HPARAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "tcpa": ("VPT+TCPA (role + token)", {**POOLS, "match_loss_weight_lambda": 0.1, "fourier": False,
                                         "role_masking": True, "token_selection": True}),
    "vpt": ("VPT-deep", {"deep": True}),
    "cvpt": ("CVPT", {"insert": 3}),
    "vfpt": ("VFPT deep", {"deep": True, "fourier_percentage": 0.5, "fourier_location": "random"}),
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "tcpa": {"tcpa.num_cls_prompts": 5, "tcpa.num_image_prompts": 7, "tcpa.top_k_cls": 2,
             "tcpa.top_k_image": 3, "tcpa.prompt_length": 2, "tcpa.image_prompt_length": 1,
             "tcpa.lambda_cls": 0.1, "tcpa.lambda_image": 0.1, "tcpa.prompt_dropout": 0.25},
    "vpt": {"vpt.num_prompts": P, "vpt.prompt_dropout": 0.25},
    "cvpt": {"cvpt.num_prompts": P, "cvpt.prompt_dropout": 0.25},
}  # fmt: skip
"""A quarter is a rate that 16-bit numbers drop exactly."""


class Made:
    """What the reference computes in a step of training, and what it drew for it."""

    def __init__(
        self, method: str, monkeypatch: pytest.MonkeyPatch, dropout: bool = True, **settings: Any
    ) -> None:
        flat = {"methods": [method], **SETTINGS[method], **settings}
        if not dropout:
            flat[f"{method}.prompt_dropout"] = 0.0
        self.config = TrialConfig.from_flat(flat)
        self.vit = VisionTransformer(**GEOMETRY, num_classes=0).double()  # type: ignore[arg-type]
        backbone = Backbone(self.vit)
        pack = PackModel(backbone, [self.config], CLASSES)
        self.state = {
            k: torch.rand_like(v.double()) - 0.5 for k, v in pack.tensors.state(0).items()
        }
        self.x = torch.rand(B, 3, 32, 32, dtype=torch.float64).float().double()
        masks: list[Tensor] = []
        drop = oracle._drop

        def noted(prompts: Tensor, *args: Any) -> Tensor:
            masks.append(drop(torch.ones_like(prompts), *args))
            return drop(prompts, *args)

        monkeypatch.setattr(oracle, "_drop", noted)
        step = Step(training=True, epochs=(0,), steps=(0,), streams=(Stream(7),))
        self.state = {k: v.float().double() for k, v in self.state.items()}
        self.vit.load_state_dict({k: v.float().double() for k, v in self.vit.state_dict().items()})
        self.result = oracle.run(backbone, self.config, self.state, self.x, step)
        monkeypatch.undo()
        self.masks = torch.stack(masks) if masks else torch.empty(0)

    def chosen(self, role: str) -> Tensor:
        """Groups (L, B, T, K) of the tokens of a role, in any order."""
        rows = slice(0, 1) if role == "cls" else slice(1, None)
        layers = [
            [[sorted(g for _, g in token) for token in sample[rows]] for sample in layer]
            for layer in self.result.groups
        ]
        return torch.tensor(layers)

    def write(self, path: Path, method: str, more: dict[str, Any], **arrays: Tensor) -> None:
        """A golden file by the README's rules."""
        own = {
            NAMES.get(k, k.split(".")[-1]): v
            for k, v in self.state.items()
            if "head" not in k and v.numel()
        }
        heads = {k: v for k, v in self.state.items() if "head" in k}
        if method == "cvpt":
            own |= _cross(self.vit)
        name, hparams = HPARAMS[method]
        about = {
            "method": name, "geometry": GEOMETRY, "backbone_keys": list(self.vit.state_dict()),
            "method_param_keys": sorted(own),
            "trainable_keys": [k for k in own if not k.startswith("cross")],
            **hparams, **more,
        }  # fmt: skip
        stored = {**self.vit.state_dict(), **own, **heads, "x": self.x}
        results = {"logits": self.result.logits, "penalty": self.result.penalty}
        np.savez(
            path,
            hparams=json.dumps(about),
            y=np.zeros(B, dtype=np.int64),
            **{k: v.detach().float().numpy() for k, v in stored.items()},
            **{f"out.{k}": v.detach().numpy() for k, v in results.items()},
            **{k: v.numpy() for k, v in arrays.items()},
        )


def _cross(vit: VisionTransformer) -> dict[str, Tensor]:
    """Copies of every block's own attention."""
    out = {}
    for i, block in enumerate(vit.blocks):
        for kind in ("weight", "bias"):
            parts = getattr(block.attn.qkv, kind).chunk(3)
            out |= {f"cross_attn.{i}.{p}.{kind}": v for p, v in zip("qkv", parts, strict=True)}
            out[f"cross_attn.{i}.proj.{kind}"] = getattr(block.attn.proj, kind)
    return {key: value.detach().clone() for key, value in out.items()}


def check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> golden.Golden:
    """Ours and the reference give the stored results when fed."""
    monkeypatch.setenv("TCPA_GOLDEN", str(folder))
    case = golden.load("a", torch.float64)
    pack = PackModel(case.backbone, [case.config], CLASSES, [case.state])
    logits, penalty = case.arrays["out.logits"], case.arrays["out.penalty"]
    with case.choices.fed():
        output = pack(case.arrays["x"][None], case.choices.step)
        state = case.state | case.cross_attention
        literal = oracle.run(case.backbone, case.config, state, case.arrays["x"], case.choices.step)
    for found in (output.logits[0], literal.logits):
        torch.testing.assert_close(found, logits, rtol=1e-9, atol=1e-9)
    for found in (output.penalty[0], literal.penalty):
        torch.testing.assert_close(found, penalty, rtol=1e-9, atol=1e-9)
    return case


def _uniform(chosen: Tensor, groups: int) -> Tensor:
    """Numbers whose K smallest are those of the chosen groups, as the authors sort them."""
    return torch.rand(*chosen.shape[:-1], groups).scatter(-1, chosen, -torch.rand(chosen.shape)) + 1


def _one_hot(chosen: Tensor, groups: int) -> Tensor:
    empty = torch.zeros(*chosen.shape[:-1], groups, dtype=torch.uint8)
    return empty.scatter(-1, chosen, 1)


SPELLINGS: dict[str, Callable[[Tensor, Tensor], dict[str, Tensor]]] = {
    "random.topk": lambda c, i: {"random.topk_cls": c[:, :, 0], "random.topk_image": i},
    "flat rows": lambda c, i: {
        "rand_index_cls": c[:, :, 0], "rand_index_image": i.reshape(L, B * N, -1)
    },
    "by block": lambda c, i: {
        f"random_choice.{layer}.{role}": (c[layer, :, 0] if role == "cls" else i[layer])
        for layer in range(L) for role in ("cls", "image")
    },
    "masks": lambda c, i: {"selected.c": _one_hot(c, 5), "selected.i": _one_hot(i, 7)},
    "uniform numbers": lambda c, i: {
        "rand_values.cls": _uniform(c, 5)[:, :, 0], "rand_values.img": _uniform(i, 7)
    },
    "whole orders": lambda c, i: {
        "perm.cls": _uniform(c, 5)[:, :, 0].argsort(-1), "perm.patch": _uniform(i, 7).argsort(-1)
    },
    "among the results": lambda c, i: {"out.topk_cls": c[:, :, 0], "out.topk_image": i},
}  # fmt: skip
"""How a file may name and store which groups were drawn, of (L, B, 1, K) and (L, B, N, K)."""


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_groups_drawn_at_random_are_fed(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made("tcpa", monkeypatch, dropout=False, **{"tcpa.random_epochs": 1})
    arrays = SPELLINGS[spelling](made.chosen("cls"), made.chosen("image"))
    says = {"random_selection": spelling == "among the results"}
    made.write(tmp_path / "a.npz", "tcpa", says, **arrays)
    case = check(tmp_path, monkeypatch)
    assert case.choices.step.training and case.config.method_settings["tcpa"].prompt_dropout == 0
    other = PackModel(case.backbone, [case.config], CLASSES, [case.state])
    unfed = other(case.arrays["x"][None], case.choices.step).logits[0]
    assert (unfed - case.arrays["out.logits"]).abs().max() > 1e-6, "our own draws are others"


def test_a_pool_that_is_taken_whole_needs_no_stored_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"tcpa.random_epochs": 1, "tcpa.top_k_cls": 5}
    made = Made("tcpa", monkeypatch, dropout=False, **settings)
    indices = made.chosen("image").double()
    made.write(tmp_path / "a.npz", "tcpa", {"K_c": 5}, **{"random.image": indices})
    check(tmp_path, monkeypatch)


@pytest.mark.parametrize("method", ["vpt", "cvpt", "tcpa"])
@pytest.mark.parametrize("kind", ["kept", "scaled", "dropped", "by block"])
def test_masks_of_prompt_dropout_are_fed(
    method: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(method, monkeypatch, **({"tcpa.random_epochs": 0} if method == "tcpa" else {}))
    kept = (made.masks > 0).to(torch.uint8)
    arrays = {
        "kept": {"prompt_dropout_mask": kept},
        "scaled": {"drop.prompts": made.masks},
        "dropped": {"dropped_prompts": 1 - kept},
        "by block": {f"dropout_keep.{i}": kept[i] for i in range(L)},
    }[kind]
    says = {"prompt_dropout_in_official_training": 0.1, "prompt_dropout": 0.25}
    made.write(tmp_path / "a.npz", method, says, **arrays)
    case = check(tmp_path, monkeypatch)
    assert case.config.method_settings[method].prompt_dropout == pytest.approx(0.25)


def test_groups_and_masks_are_fed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made("tcpa", monkeypatch, **{"tcpa.random_epochs": 1})
    parts = (made.masks > 0).split([10, 7], dim=2)
    arrays = {
        "rand.cls": made.chosen("cls")[:, :, 0],
        "rand.image": made.chosen("image"),
        "dropout.cls": parts[0],
        "dropout.image": parts[1],
    }
    made.write(tmp_path / "a.npz", "tcpa", {"prompt_dropout": 0.25}, **arrays)
    check(tmp_path, monkeypatch)


@pytest.mark.parametrize("stored", ["array", "one for all blocks", "in the JSON"])
def test_rows_that_vfpt_transforms_are_fed(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chosen row becomes the real part of its own transform over the channels."""
    made = Made("vpt", monkeypatch, dropout=False)
    rows = torch.tensor([[2, 0], [1, 3], [3, 2]])
    rows = rows[:1].expand(L, -1) if stored == "one for all blocks" else rows
    raw = made.state["vpt.prompts"]
    changed = raw.clone()
    for layer in range(L):
        changed[layer, rows[layer]] = torch.fft.fft(raw[layer, rows[layer]], dim=-1).real
    changed_state = made.state | {"vpt.prompts": changed}
    evaluation = Step.evaluation(1)
    backbone = Backbone(made.vit)
    made.result = oracle.run(backbone, made.config, changed_state, made.x, evaluation)
    array, says = {
        "array": ({"random_rows": rows}, {}),
        "one for all blocks": ({"selected_indices": rows[0]}, {}),
        "in the JSON": ({}, {"fourier_selected_indices": rows.tolist()}),
    }[stored]
    made.write(tmp_path / "a.npz", "vfpt", says, **array)
    monkeypatch.setenv("TCPA_GOLDEN", str(tmp_path))
    case = golden.load("a", torch.float64)
    pack = PackModel(case.backbone, [case.config], CLASSES, [case.state])
    with case.choices.fed():
        output = pack(case.arrays["x"][None], case.choices.step)
    torch.testing.assert_close(output.logits[0], case.arrays["out.logits"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(L, 2, B), (2 * L, B, 1, 1)])
def test_branches_that_samples_skip_are_fed(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drop path rises from 0 in the first block to its rate in the last."""
    made = Made("vpt", monkeypatch, dropout=False, **{"vpt.num_prompts": 0})
    kept = torch.tensor([[[1, 1], [1, 1]], [[0, 1], [1, 1]], [[1, 0], [0, 1]]])
    tokens = made.vit._pos_embed(made.vit.patch_embed(made.x))
    for i, block in enumerate(made.vit.blocks):
        share = 1 - 0.3 * i / (L - 1)
        for branch, run in enumerate(
            (lambda t, b=block: b.attn(b.norm1(t)), lambda t, b=block: b.mlp(b.norm2(t)))
        ):
            tokens = tokens + run(tokens) * kept[i, branch].view(-1, 1, 1) / share
    features = made.vit.norm(tokens)[:, 0]
    made.result.logits = features @ made.state["head.weight"].T + made.state["head.bias"]
    says = {"method": "plain ViT", "drop_path_rate": 0.3}
    made.write(tmp_path / "a.npz", "vpt", says, **{"drop_path": kept.reshape(shape)})
    monkeypatch.setenv("TCPA_GOLDEN", str(tmp_path))
    case = golden.load("a", torch.float64)
    pack = PackModel(case.backbone, [case.config], CLASSES, [case.state])
    with case.choices.fed():
        output = pack(case.arrays["x"][None], case.choices.step)
    torch.testing.assert_close(output.logits[0], case.arrays["out.logits"], rtol=1e-9, atol=1e-9)


def test_what_cannot_be_fed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made("vpt", monkeypatch, dropout=False)
    made.write(tmp_path / "a.npz", "vpt", {}, noise=torch.rand(B, 3))
    monkeypatch.setenv("TCPA_GOLDEN", str(tmp_path))
    with pytest.raises(ValueError, match="'noise' speaks of a random choice"):
        golden.load("a", torch.float64)


def test_a_draw_that_is_not_stored_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made("tcpa", monkeypatch, dropout=False, **{"tcpa.random_epochs": 1})
    made.write(tmp_path / "a.npz", "tcpa", {}, random_cls=made.chosen("cls")[:, :, 0])
    monkeypatch.setenv("TCPA_GOLDEN", str(tmp_path))
    case = golden.load("a", torch.float64)
    pack = PackModel(case.backbone, [case.config], CLASSES, [case.state])
    with case.choices.fed(), pytest.raises(AssertionError, match="tcpa.random_image_groups"):
        pack(case.arrays["x"][None], case.choices.step)


def test_files_without_stored_choices_are_evaluated(tmp_path: Path) -> None:
    """Nothing is drawn, and nothing but the stored arrays decides."""
    for name in golden.file_names():
        choices = golden.load(name, torch.float64).choices
        assert choices.draws == {} and not choices.step.training
