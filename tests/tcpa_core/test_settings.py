"""Every setting changes something, or is named here as neutral with the reason.

A trial is trained for three epochs on twelve random images twice, with a setting's default and with
another value. What is compared is all that a setting could reach: what was fitted and drawn, rates
and decay of each tensor, losses and validation by epoch, the epoch selected, the trained tensors.
A new method's settings are found by themselves; those that act only beside others or on other
backbones get their place in CONTEXT, and values that cannot be guessed in OTHER.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tcpa_core import plugins
from tcpa_core.config import METHODS, TrialConfig, method_config
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.pack_model import PackModel
from tcpa_core.settings import OptimConfig, TrainConfig
from tcpa_core.training.pack import Pack
from tcpa_core.training.trial_data import TrialData
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone, trained

Flat = dict[str, Any]
FILES = Path(mkdtemp(prefix="tcpa-settings-"))
EQUAL = 1e-9
"""Relative difference up to which two runs are the same but for rounding."""

SHALLOW = {"vpt.deep": False, "vpt.prompt_dropout": 0.1}
PRUNING = {"e2vpt.prune_epoch": 1, "e2vpt.token_prune": 50, "e2vpt.segment_prune": 50}
UNSTEADY = {"optim.lr": 1.0, "train.epochs": 6}
NAMES = {"autovp.mapping": "semantic", "autovp.text_features": str(FILES / "names0")}

CONTEXT: dict[str, Flat] = {
    "autovp.num_map": {"autovp.mapping": "freq"},
    "autovp.map_every": {"autovp.mapping": "iter", "optim.lr": 3.0},
    "autovp.text_features": NAMES,
    "damvp.max_clusters": {"damvp.distance_threshold": 1e-3, "damvp.max_clusters": 3},
    "e2vpt.prune_epoch": PRUNING,
    "e2vpt.pool_prompts": {"kind": "no_cls"},
    "e2vpt.num_segments": PRUNING,
    "e2vpt.token_prune": PRUNING,
    "e2vpt.segment_prune": PRUNING,
    "e2vpt.importance": PRUNING,
    "e2vpt.segments": PRUNING,
    "e2vpt.train_masks": PRUNING,
    "e2vpt.update_while_scoring": PRUNING,
    "e2vpt.rewind": PRUNING,
    "gated.pool_prompts": {"kind": "no_cls"},
    "optim.adamw_wd0": {"optim.weight_decay": 0.0},
    "optim.min_lr": {"optim.schedule": "poly"},
    "optim.momentum": {"optim.name": "sgd"},
    "optim.poly_power": {"optim.schedule": "poly"},
    "tcpa.dist_role": {"kind": "distilled"},
    "tcpa.fourier_scope": {"methods": ["vfpt", "tcpa"]},
    "tcpa.lambda_shared": {"tcpa.lambda_image": 0.1},
    "tcpa.register_role": {"kind": "registers"},
    "train.mixup_prob": {"train.mixup_alpha": 0.8},
    "train.mixup_switch_prob": {
        "train.mixup_alpha": 0.8,
        "train.cutmix_alpha": 1.0,
        "train.mixup_prob": 1.0,
    },
    "train.precision": {"dtype": torch.float32},
    "train.patience": UNSTEADY,
    "vfpt.pool_prompts": {"kind": "no_cls"},
    "vfpt.position": {"vfpt.deep": False},
    "vp.eval_position": {"vp.kind": "random_patch"},
    "vpt.pool_prompts": {"kind": "no_cls"},
    "vpt.position": SHALLOW,
}
"""Where a setting acts: other settings, and "kind" and "dtype" of the backbone."""

OTHER: Flat = {
    "adaptformer.scale": 1.0,
    "autovp.img_scale": 0.5,
    "autovp.map_every": 2,
    "autovp.text_features": str(FILES / "names1"),
    "damvp.distance_threshold": 1e-3,
    "damvp.meta_init": str(FILES / "meta"),
    "damvp.prompt_size": 3,
    "e2vpt.num_segments": 8,
    "e2vpt.segment_prune": 25,
    "e2vpt.token_prune": 80,
    "lion.max_steps": 1,
    "lion.tolerance": 0.5,
    "lora.alpha": 2.0,
    "lora.targets": "q,k",
    "optim.clip_norm": 1e-3,
    "optim.min_lr": 1e-2,
    "tcpa.image_prompt_length": 2,
    "tcpa.random_epochs": 1,
    "train.mixup_prob": 1.0,
    "train.mixup_switch_prob": 1.0,
    "train.patience": 1,
    "train.precision": "bf16",
    "train.selection": "best_test_epoch",
    "vfpt.fraction": 0.3,
    "vfpt.location": "random",
    "vfpt.project_dim": 5,
    "vp.prompt_size": 3,
    "vpt.project_dim": 5,
}
"""Legal values that differ from the default, where they cannot be guessed."""

NEUTRAL = {
    "vpt.position": "attention knows no places, so prompts at the end change only the rounding",
    "vfpt.position": "as vpt.position",
}
"""Settings that change nothing but rounding, and why they are there."""

RUNS: dict[str, dict[str, Tensor]] = {}
"""Runs with defaults, by their settings."""

LABELS = ("lion.variant", "sidetune.variant")
"""Settings with a single value, which tables repeat."""


def fields() -> dict[str, Any]:
    """Every setting of every method, and those of optimiser and training."""
    sections = {name: method_config(name) for name in plugins.names(METHODS)}
    sections |= {"optim": OptimConfig, "train": TrainConfig}
    return {
        f"{section}.{name}": field
        for section, model in sections.items()
        for name, field in model.model_fields.items()
    }


PATHS = sorted(set(fields()) - set(LABELS))


def another(path: str, now: Any) -> Any:
    """A legal value that is not the present one."""
    if path in OTHER:
        return OTHER[path]
    kind = fields()[path].annotation
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    first = next(one for one in kinds if one is not NoneType)
    if get_origin(first) is Literal:
        return next(value for value in get_args(first) if value != now)
    assert now is not None, f"say in OTHER what {path} could be besides null"
    if isinstance(now, bool):
        return not now
    return now + 1 if isinstance(now, int) else 0.4 if now != 0.4 else 0.3


@cache
def backbone(kind: str, dtype: torch.dtype) -> Backbone:
    """A tiny ViT that knows eleven classes of its own."""
    vit = tiny_backbone(kind, dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    width, count = vit.layout.embed_dim, vit.layout.num_readouts
    pairs = [
        (torch.randn(11, width, generator=generator).to(dtype), torch.zeros(11, dtype=dtype))
        for _ in range(count)
    ]
    return Backbone(vit.vit, classifier=pairs)


class Source:
    """Images of one split in memory."""

    where = torch.device("cpu")

    def __init__(self, x: Tensor) -> None:
        self.x, self.labels = x, torch.arange(len(x)) % NUM_CLASSES

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Tensor | slice, draws: object = None) -> Tensor:
        return self.x[indices]

    def load(self, indices: Tensor | slice, draws: object = None) -> Callable[[], Tensor]:
        return lambda: self.batch(indices, draws)


def data(network: Backbone) -> TrialData:
    sizes = {"train": 12, "val": 5, "test": 2}
    sources: Any = {
        name: Source(images(network, samples=count, seed=i)[0])
        for i, (name, count) in enumerate(sizes.items())
    }
    return TrialData(**sources, class_names=tuple("abcde"), fingerprint="random")


def write_files() -> None:
    """Text features of class names, twice, and a learned start of DAM-VP's prompts."""
    for i in range(2):
        generator = torch.Generator().manual_seed(i)
        tensors = {"source": torch.randn(11, 3, generator=generator),
                   "target": torch.randn(NUM_CLASSES, 3, generator=generator)}  # fmt: skip
        save_file(tensors, FILES / f"names{i}", {"classes": json.dumps(list("abcde"))})
    save_file({"prompt": torch.ones(3, 32, 32)}, FILES / "meta")


def run(settings: Flat) -> dict[str, Tensor]:
    """Everything that training a trial leaves behind, by name."""
    flat = {"train.epochs": 3, "train.batch_size": 5, "optim.lr": 0.05, "seed": 5, **settings}
    network = backbone(flat.pop("kind", "cls"), flat.pop("dtype", torch.float64))
    if network.layout.num_prefix == 0 and "tcpa" in flat["methods"]:
        flat["tcpa.num_cls_prompts"] = 0
    config = TrialConfig.from_flat(flat)
    if not (FILES / "meta").exists():
        write_files()
    pack = Pack(network, data(network))
    member = pack.new_member("t", config)
    seen = {f"start/{k}": v for k, v in member.state.items()}
    reports = []
    while not member.is_done:
        (member,) = trained(pack.run_epoch([member]))
        report = member.reports[-1]
        measured = (report.train_loss, report.match_loss, report.val_loss, report.lr)
        reports.append(torch.tensor(measured, dtype=torch.float64))
    model = PackModel(network, [config], len(pack.data.class_names), [member.state])
    for name, spec in model.tensors.specs[0].items():
        about = (float(spec.trainable), spec.lr_scale, float(spec.decay))
        seen[f"spec/{name}"] = torch.tensor(about)
    assert member.selected is not None
    seen["selected"] = torch.tensor(
        [member.selected.epoch, float(member.selected.test_accuracy is not None)]
    )
    return seen | {"reports": torch.stack(reports)} | dict(member.state)


def compare(path: str) -> tuple[str, float]:
    """What differs most between a setting's default and another value, and by how much."""
    section = path.split(".")[0]
    context = CONTEXT.get(path, {})
    settings = {"methods": ["vpt"] if section in ("optim", "train") else [section], **context}
    default = fields()[path].get_default(call_default_factory=True)
    now = settings.get(path, default)
    if str(settings) not in RUNS:  # most settings of a method are compared with the same run
        RUNS[str(settings)] = run(settings)
    return difference(RUNS[str(settings)], run({**settings, path: another(path, now)}))


def difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> tuple[str, float]:
    """The largest relative difference and where it is; infinite where tensors have other shapes."""
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        return "other tensors", float("inf")
    found = {}
    for name, before in first.items():
        scale = before.double().abs().max().clamp_min(1e-6) if before.numel() else 1.0
        gap = (before.double() - second[name].double()).abs()
        found[name] = float(gap.max() / scale) if before.numel() else 0.0
    worst = max(found, key=lambda name: found[name])
    return worst, found[worst]


@pytest.mark.parametrize("path", PATHS)
def test_a_setting_changes_something_or_is_neutral(path: str) -> None:
    where, gap = compare(path)
    if path in NEUTRAL:
        assert gap <= EQUAL, f"{path} is not neutral any more: {where} differs by {gap:.1e}"
    else:
        assert gap > EQUAL, f"{path} changes nothing; say in NEUTRAL why it is there"


def test_what_is_listed_exists() -> None:
    known = fields()
    for table in (CONTEXT, OTHER, NEUTRAL, LABELS):
        assert set(table) <= set(known)
    for path in LABELS:
        assert len(get_args(known[path].annotation)) == 1, f"{path} can be chosen: compare it"


def test_equal_settings_give_equal_runs() -> None:
    """What is compared has no randomness of its own."""
    settings = {"methods": ["tcpa"]}
    assert difference(run(settings), run(settings))[1] == 0.0
