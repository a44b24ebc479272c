"""SA²VP on VTAB-1k, HTA and the fine-grained data sets, whose images are prepared as VPT's.

Source:
    SA2VP, AAAI 2024: its training script.
"""

from tcpa_core.protocols.base import Protocol

PROTOCOL = Protocol(
    settings={
        "data.interpolation": "bilinear",
        "data.norm_stats": "imagenet",
        "optim.name": "adamw",
        "optim.lr": (1e-3, 5e-4),
        "optim.weight_decay": 1e-4,
        "optim.warmup_fraction": 0.1,
        "optim.schedule": "cosine",
        "optim.clip_norm": None,
        "train.epochs": 100,
        "train.batch_size": (64, 40),
        "train.label_smoothing": 0.0,
        "train.mixup_alpha": 0.0,
        "train.selection": ("best_val", "best_test_epoch"),
        "train.patience": None,
        "train.head_init": "trunc02",
        "train.drop_path": 0.0,
        "train.dropout": 0.1,
        "sa2vp.dropout": 0.1,
    },
    not_reproduced=("the rate ends at 0; theirs at 1e-7",),
)
