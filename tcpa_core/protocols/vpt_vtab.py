"""VPT and its family on VTAB-1k: the final runs, after the search on train and val.

Source:
    KMnP/vpt: tune_vtab.py and the configurations; the same in VFPT, E2VPT.
"""

from tcpa_core.protocols.base import Protocol

PROTOCOL = Protocol(
    settings={
        "data.resize": "squash",
        "data.interpolation": "bilinear",
        "data.random_crop": False,
        "data.flip": False,
        "data.norm_stats": "imagenet",
        "data.train_on": "train_and_val",
        "optim.name": "sgd",
        "optim.momentum": 0.9,
        "optim.warmup_fraction": 0.1,
        "optim.schedule": "cosine",
        "optim.clip_norm": None,
        "train.epochs": 100,
        "train.batch_size": (64, 128),
        "train.label_smoothing": 0.0,
        "train.mixup_alpha": 0.0,
        "train.selection": "last_epoch",
        "train.patience": None,
        "train.head_init": "vpt",
        "train.drop_path": 0.0,
        "train.dropout": 0.0,
    },
    not_reproduced=(
        "the rate changes with every step; theirs with every epoch, the first of which has rate 0",
        "replicates are the study's seeds; theirs are 42, 44, 82, 100 and 800",
    ),
)
