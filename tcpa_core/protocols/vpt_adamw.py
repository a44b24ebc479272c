"""The baselines of VPT that are trained with AdamW: full, partial, bias and adapter.

Their code takes a weight decay of 0.01 whatever is configured, none for biases, and SGD where the
configuration says 0.

Source:
    KMnP/vpt: solver/optimizer.py and the configurations of these methods.
"""

from tcpa_core.protocols.base import Protocol

PROTOCOL = Protocol(
    settings={
        "data.interpolation": "bilinear",
        "data.norm_stats": "imagenet",
        "optim.name": "adamw",
        "optim.weight_decay": (0.01, 0.0),
        "optim.adamw_wd0": "sgd",
        "optim.warmup_fraction": 0.05,
        "optim.schedule": "cosine",
        "optim.clip_norm": None,
        "train.epochs": 100,
        "train.batch_size": 384,
        "train.label_smoothing": 0.0,
        "train.mixup_alpha": 0.0,
        "train.selection": "last_epoch",
        "train.patience": None,
        "train.head_init": "vpt",
        "train.drop_path": 0.0,
        "train.dropout": 0.0,
        "adapter.init": "zero_zero",
    },
    of_methods={"full": {"train.dropout": 0.1}},
    not_reproduced=(
        "the rate changes with every step; theirs with every epoch, the first of which has rate 0",
    ),
)
