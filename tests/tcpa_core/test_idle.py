"""Settings that change nothing, given the others, make no other trial: found by trying them all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tcpa_core import plugins
from tcpa_core.config import METHODS, TrialConfig, method_config
from tcpa_core.methods.base import Step
from tcpa_core.model.pack_model import PackModel
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone, training_step

IDS = ("d", "w")


def is_same(first: TrialConfig, second: TrialConfig) -> bool:
    same = first.digest(*IDS) == second.digest(*IDS)
    assert same == (first.point(*IDS) == second.point(*IDS)) == (
        first.effective() == second.effective())  # fmt: skip
    return same


IDLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"optim.name": "adamw"}, {"optim.momentum": 0.5}),
    ({"optim.name": "adamw", "optim.weight_decay": 0.1}, {"optim.adamw_wd0": "sgd"}),
    ({"optim.name": "sgd", "optim.weight_decay": 0.0}, {"optim.adamw_wd0": "sgd"}),
    (
        {"optim.name": "sgd", "optim.weight_decay": 0.0},
        {"optim.name": "adamw", "optim.adamw_wd0": "sgd"},
    ),
    ({"train.mixup_alpha": 0.0}, {"train.mixup_prob": 0.9}),
    ({"train.mixup_prob": 0.0}, {"train.mixup_alpha": 0.4}),
    ({"train.mixup_prob": 0.0}, {"train.mixup_alpha": 0.0, "train.mixup_prob": 0.8}),
    ({"train.epochs": 5}, {"train.patience": 5}),
    ({"methods": ["tcpa"]}, {"tcpa.fourier_scope": "per_pool"}),
    ({"methods": ["tcpa"], "tcpa.lambda_shared": True}, {"tcpa.lambda_image": 3.0}),
    ({"methods": ["tcpa"], "tcpa.split_roles": False}, {"tcpa.top_k_cls": 2}),
    ({"methods": ["tcpa"], "tcpa.match_tokens": False}, {"tcpa.top_k_image": 2}),
    ({"methods": ["tcpa"], "tcpa.match_tokens": False}, {"tcpa.random_epochs": 2}),
    ({"methods": ["e2vpt"]}, {"e2vpt.token_prune": 30}),
    ({"methods": ["e2vpt"], "e2vpt.num_kv_prompts": 0}, {"e2vpt.share_kv": False}),
    ({"methods": ["autovp"]}, {"autovp.map_every": 3}),
    ({"methods": ["autovp"]}, {"autovp.num_map": 3}),
    ({"methods": ["vp"]}, {"vp.eval_position": "random"}),
    ({"methods": ["lora"], "lora.rank": 0}, {"lora.targets": "v"}),
    ({"methods": ["cvpt"], "cvpt.num_prompts": 0}, {"cvpt.init": "zero"}),
    ({"methods": ["adapter"], "adapter.bottleneck": 0}, {"adapter.init": "zero_zero"}),
    ({"task.name": "segment", "segment.head": "setr_pup"}, {"train.head_init": "vpt"}),
    ({"task.name": "segment", "segment.head": "upernet"}, {"train.head_init": "trunc02"}),
]


@pytest.mark.parametrize(("base", "change"), IDLE, ids=lambda case: next(reversed(case)))
def test_what_is_not_read_makes_no_other_trial(
    base: dict[str, Any], change: dict[str, Any]
) -> None:
    first = TrialConfig.from_flat(base)
    assert is_same(first, TrialConfig.from_flat({**base, **change}))


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({"optim.name": "sgd"}, {"optim.momentum": 0.5}),
        ({"optim.weight_decay": 0.0}, {"optim.adamw_wd0": "sgd"}),
        ({"train.mixup_alpha": 0.2}, {"train.mixup_prob": 0.9}),
        ({"train.epochs": 5}, {"train.patience": 3}),
        ({"methods": ["tcpa", "vfpt"]}, {"tcpa.fourier_scope": "per_pool"}),
        ({"methods": ["tcpa"]}, {"tcpa.lambda_image": 3.0}),
        ({"methods": ["tcpa"]}, {"tcpa.top_k_cls": 2}),
        ({"methods": ["vp"], "vp.kind": "random_patch"}, {"vp.eval_position": "random"}),
        ({"methods": ["autovp"], "autovp.mapping": "iter"}, {"autovp.map_every": 3}),
        (
            {"methods": ["e2vpt"], "e2vpt.prune_epoch": 2, "e2vpt.segment_prune": 10},
            {"e2vpt.token_prune": 30},
        ),
        ({"data.name": "digits"}, {"data.split_seed": 1}),
        ({"data.name": "digits"}, {"data.val_fraction": 0.3}),
        ({"task.name": "segment"}, {"train.head_init": "vpt"}),
    ],
    ids=lambda case: next(reversed(case)),
)
def test_what_is_read_makes_another_trial(base: dict[str, Any], change: dict[str, Any]) -> None:
    first = TrialConfig.from_flat(base)
    assert not is_same(first, TrialConfig.from_flat({**base, **change}))


@pytest.mark.parametrize("own_val", [True, False])
@pytest.mark.parametrize("kind", ["folder", "fgvc", "vtab1k"])
@pytest.mark.parametrize("change", [{"data.split_seed": 7}, {"data.val_fraction": 0.4},
                                    {"data.group": "a.b"}])  # fmt: skip
def test_a_split_that_is_never_made(
    kind: str, own_val: bool, change: dict[str, Any], tmp_path: Path
) -> None:
    if kind == "folder":
        for split in ("train", "val", "test") if own_val else ("train", "test"):
            (tmp_path / split / "a").mkdir(parents=True)
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / split / "a" / "0.png")
    base = {"data.name": kind, "data.root": str(tmp_path)}
    first, second = TrialConfig.from_flat(base), TrialConfig.from_flat({**base, **change})
    assert is_same(first, second) == (own_val or kind != "folder")


def test_defaults_keep_their_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies that were begun before settings were left out of digests go on."""
    monkeypatch.setattr("tcpa_core.config.CORE_VERSION", 4)  # of these studies
    assert TrialConfig.from_flat({"methods": ["tcpa"]}).digest(*IDS) == KNOWN


KNOWN = "7fe99a7abed7d350"

OTHER = {bool: (True, False), int: (3,), float: (0.3,)}
BASES = {
    method: [{}] + more
    for method, more in {
        **{name: [] for name in plugins.names(METHODS)},
        "tcpa": [{"match_tokens": False}, {"split_roles": False}, {"lambda_shared": True}],
        "e2vpt": [{"num_kv_prompts": 0}, {"prune_epoch": 2, "token_prune": 40}],
        "lora": [{"rank": 0}],
        "cvpt": [{"num_prompts": 0}],
        "adapter": [{"bottleneck": 0}],
        "adaptformer": [{"bottleneck": 0}, {"bottleneck": 0, "scale": "learnable"}],
        "vp": [{"kind": "fixed_patch"}, {"prompt_size": 0, "kind": "random_patch"}],
    }.items()
}


def variants(method: str, base: dict[str, Any]) -> list[tuple[str, TrialConfig]]:
    """The trial with each of its method's settings at some other values."""
    out = []
    fields = method_config(method).model_fields
    for key, field in fields.items():
        choices = getattr(field.annotation, "__args__", None) or OTHER.get(field.annotation, ())
        for value in [v for c in choices for v in OTHER.get(c, (c,))]:
            paths = {f"{method}.{k}": v for k, v in {**base, key: value}.items()}
            try:
                out.append((key, TrialConfig.from_flat({"methods": [method], **paths})))
            except Exception:  # no such trial
                continue
    return out


@pytest.mark.parametrize("method", sorted(BASES))
def test_trials_of_one_digest_compute_the_same(method: str) -> None:
    """All settings of all methods, at several values: whoever calls one idle must be right."""
    backbone = tiny_backbone()
    for base in BASES[method]:
        paths = {f"{method}.{key}": value for key, value in base.items()}
        first = TrialConfig.from_flat({"methods": [method], **paths})
        equal = {
            key: other for key, other in variants(method, base)
            if other.flat() != first.flat() and other.digest(*IDS) == first.digest(*IDS)
        }  # fmt: skip
        if equal:
            expected = outcome(backbone, first)
            for other in equal.values():
                for name, value in outcome(backbone, other).items():
                    assert torch.equal(value, expected[name]), (other.flat(), name)


def outcome(backbone: Any, config: TrialConfig) -> dict[str, torch.Tensor]:
    """Parameters at the start, logits and gradients of a training step, logits in evaluation."""
    pack = PackModel(backbone, [config], NUM_CLASSES)
    x = images(backbone, samples=2)
    output = pack(x, training_step([config], [2], [11]))
    loss = output.logits.square().sum() + (
        output.penalty.sum() if output.penalty is not None else 0
    )
    loss.backward()
    gradients = {
        f"grad {k}": v.grad for k, v in pack.tensors.trainable().items() if v.grad is not None
    }
    return {
        **pack.tensors.state(0),
        **gradients,
        "logits": output.logits.detach(),
        "eval": pack(x, Step.evaluation(1)).logits.detach(),
    }
