"""SSF on VTAB-1k; on the fine-grained data sets its authors also average the weights.

Source:
    dongzelian/SSF: train_scripts.
"""

from tcpa_core.protocols.base import Protocol

PROTOCOL = Protocol(
    settings={
        "data.resize": "squash",
        "data.random_crop": False,
        "data.flip": False,
        "data.norm_stats": "imagenet",
        "data.train_on": "train_and_val",
        "optim.name": "adamw",
        "optim.warmup_fraction": 0.1,
        "optim.schedule": "cosine",
        "optim.clip_norm": None,
        "train.epochs": 100,
        "train.batch_size": 64,
        "train.label_smoothing": 0.0,
        "train.mixup_alpha": 0.0,
        "train.selection": "best_test_epoch",
        "train.patience": None,
        "train.head_init": "torch_default",
        "train.dropout": 0.0,
        "ssf.init_std": 0.02,
    },
    not_reproduced=(
        "the rate starts and ends at 0; theirs at 1e-7 and 1e-8",
        "no average of the weights over time, which theirs has on the fine-grained data sets",
    ),
)
