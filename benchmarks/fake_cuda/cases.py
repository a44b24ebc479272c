"""What is run on the fake device: every method with its variants, allowed chains, recipes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tcpa_core.methods
from tcpa_core.chain import check_chain, pack_capacity
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError

Settings = dict[str, Any]

GEOMETRY = {"img_size": 64, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 4}
"""Two blocks: what goes wrong in one block goes wrong in all."""
SHORT, ROTARY = "two blocks", "two rotary blocks"
"""Networks of that geometry: plain, and as DINOv3."""
DINOV3: Settings = {
    "dynamic_img_size": True,
    "qkv_bias": False,
    "init_values": 1e-5,
    "use_abs_pos_emb": False,
    "use_rot_pos_emb": True,
    "rope_type": "dinov3",
    "rope_temperature": 100,
    "rope_rotate_half": True,
    "num_reg_tokens": 4,
    "use_fc_norm": False,
}
_LAYOUT: Any = SimpleNamespace(
    has_cls=True, has_dist=False, num_registers=0, num_prefix=1, grid=(4, 4), patch_size=(16, 16),
    pool="token", embed_dim=64, depth=2, num_heads=4, num_readouts=1, num_image=16, feature_dim=64,
)  # fmt: skip
"""Of that network, to ask which chains are allowed."""


@dataclass(frozen=True, slots=True)
class Case:
    """A trial that is run."""

    name: str
    settings: Settings
    second: Settings = field(default_factory=dict)
    """Settings of a second member, so that sizes differ and there is padding."""
    resident: bool = True
    """False: the pixels stay in the host's memory."""
    backbone: str = SHORT
    """SHORT, ROTARY, or a name of timm."""

    @property
    def segments(self) -> bool:
        """Whether pictures have masks."""
        return self.settings.get("task.name") == "segment"

    def configs(self, members: int, base: Settings) -> list[TrialConfig]:
        """Settings of a pack's members: every other one has the second's."""
        return [
            TrialConfig.from_flat(
                {**base, **self.settings, **(self.second if m % 2 else {}), "seed": m}
            )
            for m in range(members)
        ]

    @property
    def members(self) -> int:
        """Most of them in a pack here."""
        return pack_capacity(TrialConfig.from_flat(self.settings)) or 2


SMALL: dict[str, Settings] = {
    "lion": {"lion.bottleneck": 8},
    "damvp": {"damvp.max_clusters": 4},
    "sa2vp": {"sa2vp.inner_dim": 4},
    "e2vpt": {"e2vpt.num_segments": 16},
}
"""So that a method fits into the small network."""
SECOND: dict[str, Settings] = {
    "tcpa": {"tcpa.num_cls_prompts": 6, "tcpa.num_image_prompts": 14, "tcpa.top_k_image": 5},
    "vpt": {"vpt.num_prompts": 6},
    "vfpt": {"vfpt.num_prompts": 6},
    "e2vpt": {"e2vpt.num_prompts": 6, "e2vpt.num_kv_prompts": 3},
    "gated": {"gated.num_prompts": 6},
    "cvpt": {"cvpt.num_prompts": 6},
    "sa2vp": {"sa2vp.inner_dim": 3},
    "lion": {"lion.bottleneck": 6},
    "lora": {"lora.rank": 4},
    "adapter": {"adapter.bottleneck": 4},
    "adaptformer": {"adaptformer.bottleneck": 32},
    "sidetune": {"sidetune.channels": 8},
    "vp": {"vp.prompt_size": 6},
    "damvp": {"damvp.prompt_size": 6},
    "autovp": {"autovp.img_scale": 1.2},
}
"""A second member of another size."""
VARIANTS: dict[str, list[Settings]] = {
    "tcpa": [
        {"mask_mode": "pre"},
        {"split_roles": False},
        {"match_tokens": False},
        {"select": "distance", "match_input": "ln1", "detach_tokens": True,
         "loss_reduction": "sum"},
        {"image_prompter": True},
        {"prompt_length": 2, "random_epochs": 5},
        {"prompt_dropout": 0.0},
        {"split_roles": False, "random_epochs": 5},
    ],
    "vpt": [
        {"deep": False},
        {"project_dim": 8},
        {"prompt_dropout": 0.0},
        {"deep": False, "prompt_dropout": 0.1, "position": "end"},
    ],
    "vfpt": [{"location": "random"}, {"dims": "sequence", "location": "append"}, {"deep": False}],
    "e2vpt": [
        {"share_kv": False},
        {"prune_epoch": 1, "token_prune": 30, "segment_prune": 30, "train_masks": True,
         "update_while_scoring": True, "rewind": "reinit"},
    ],
    "cvpt": [
        *({"position": place} for place in (1, 2, 4, 5)),
        *({"weights": w} for w in ("shared_learnable", "random_frozen", "random_learnable")),
        {"ca_norm": "both", "prompt_dropout": 0.0},
        {"num_prompts": 1},
    ],
    "lion": [{"gradient": "one_step", "prune": 0.5}],
    "lora": [{"targets": "q,k,v,o,fc1,fc2"}],
    "adaptformer": [{"scale": "learnable", "head_norm": True}],
    "mlp": [{"num_layers": 1}],
    "vp": [
        {"kind": "fixed_patch"},
        {"kind": "random_patch", "eval_position": "random"},
        {"output": "label_map"},
    ],
    "damvp": [{"output": "head_free"}],
    "autovp": [{"train_resize": True}, {"mapping": "fc"}, {"mapping": "freq"},
               {"mapping": "iter", "num_map": 2}],
    "partial": [{"num_blocks": 2}],
}  # fmt: skip
"""Settings of a method that take another road."""
RECIPES: dict[str, Settings] = {
    "drop path + dropout": {"train.drop_path": 0.1, "train.dropout": 0.1},
    "mixup, smoothing, clipping, flip": {
        "train.mixup_alpha": 0.4, "train.label_smoothing": 0.1, "optim.clip_norm": 1.0,
        "data.flip": True,
    },
    "random crops, sgd": {
        "data.resize": "short_side", "data.random_crop": True, "data.flip": True,
        "optim.name": "sgd",
    },
    "CutMix, erasing": {
        "train.mixup_alpha": 0.8, "train.cutmix_alpha": 1.0, "train.mixup_prob": 1.0,
        "data.erase_prob": 0.25, "data.erase_mode": "pixel",
    },
    "best_test_epoch": {"train.selection": "best_test_epoch"},
}  # fmt: skip
"""Settings of any method."""
DISTORTED: Settings = {
    "data.resized_crop": [0.08, 1.0], "data.auto_augment": "rand-m9-mstd0.5-inc1",
    "data.color_jitter": 0.4, "data.flip": True,
}  # fmt: skip
"""What is done on the CPU, picture by picture."""
SEGMENT: Settings = {
    "task.name": "segment", "segment.channels": 16, "data.name": "segfolder",
    "data.resize": "short_side", "data.random_crop": True, "data.flip": True,
}  # fmt: skip
HEADS: dict[str, Settings] = {
    "linear": {"segment.test_scales": [0.5, 1.0]},
    "setr_pup": {"segment.auxiliary_blocks": [1], "data.scale_range": [0.5, 2.0]},
    "upernet": {},
}
"""Heads that make maps, with settings."""
WITH_RECIPES = ("linear", "tcpa", "cvpt", "sa2vp", "adaptformer", "vpt")
ON_ROTARY: dict[str, Settings] = {
    "linear": {},
    "tcpa": {},
    "vpt": {},
    "vpt deep=False": {"vpt.deep": False, "vpt.prompt_dropout": 0.1},
    "cvpt": {},
    "lora": {},
    "ssf": {},
    "gated": {},
    "sa2vp": {},
    "damvp": {},
}
"""Methods, with settings, that are run on a network with rotary positions as well."""
SEQUENCE = {"vpt", "vfpt"}
"""In a chain all members have as many tokens of these."""


def methods() -> list[str]:
    """Methods of this checkout; those of plug-in folders and packages are their owners' to run."""
    folder = Path(tcpa_core.methods.__path__[0])
    names = sorted(file.stem for file in folder.glob("*.py"))
    return [name for name in names if name != "base" and not name.startswith("_")]


def all_cases() -> list[Case]:
    """Every case; names are unique."""
    return [*_alone(), *_chains(), *_recipes(), *_on_rotary(), *_segmenting()]


def _alone() -> Iterator[Case]:
    for name in methods():
        for variant in ({}, *VARIANTS.get(name, [])):
            change = {f"{name}.{key}": value for key, value in variant.items()}
            second = {k: v for k, v in SECOND.get(name, {}).items() if k not in change}
            if variant.get("output") == "head_free" or variant.get("weights") == "shared_learnable":
                second = {}
            text = " ".join([name, *(f"{key}={value}" for key, value in variant.items())])
            yield Case(text, {"methods": [name], **SMALL.get(name, {}), **change}, second)


def _chains() -> Iterator[Case]:
    for name in methods():
        settings = {"methods": [name, "tcpa"], **SMALL.get(name, {})}
        if name == "tcpa" or not _is_allowed(settings):
            continue
        second = {**SECOND["tcpa"], **({} if name in SEQUENCE else SECOND.get(name, {}))}
        yield Case(f"{name}+tcpa", settings, second)


def _is_allowed(settings: Settings) -> bool:
    try:
        check_chain(TrialConfig.from_flat(settings), _LAYOUT)
    except ConfigError:
        return False
    return True


def _recipes() -> Iterator[Case]:
    for name in WITH_RECIPES:
        for text, change in RECIPES.items():
            yield Case(f"{name}, {text}", {"methods": [name], **SMALL.get(name, {}), **change})
    crops = RECIPES["random crops, sgd"]
    for text, change in {"whole": {}, "cropped": crops}.items():
        settings = {"methods": ["vpt"], **change}
        yield Case(f"vpt, {text} images in host memory", settings, resident=False)
    yield Case("vpt, distorted parts of pictures", {"methods": ["vpt"], **DISTORTED})


def _on_rotary() -> Iterator[Case]:
    for text, change in ON_ROTARY.items():
        name = text.split()[0]
        settings = {"methods": [name], **SMALL.get(name, {}), **change}
        yield Case(f"{text}, rotary", settings, SECOND.get(name, {}), backbone=ROTARY)


def _segmenting() -> Iterator[Case]:
    for head, change in HEADS.items():
        settings = {"methods": ["vpt"], **SEGMENT, "segment.head": head, **change}
        yield Case(f"segment, vpt, {head}", settings, SECOND["vpt"])
    frozen = {"methods": ["linear"], **SEGMENT}
    yield Case("segment, linear, images in host memory", frozen, resident=False)
