"""CVPT on VTAB-1k.

Source:
    Lingyun0419/CVPT: the training script, whose weight decay and batch size hold whatever the
    configuration files say.
"""

from tcpa_core.protocols.base import Protocol

PROTOCOL = Protocol(
    settings={
        "data.resize": "squash",
        "data.interpolation": "bicubic",
        "data.random_crop": False,
        "data.flip": False,
        "data.norm_stats": "imagenet",
        "data.train_on": "train_and_val",
        "optim.name": "adamw",
        "optim.weight_decay": 0.05,
        "optim.warmup_fraction": 0.1,
        "optim.schedule": "cosine",
        "optim.clip_norm": None,
        "train.epochs": 100,
        "train.batch_size": 32,
        "train.label_smoothing": 0.0,
        "train.mixup_alpha": 0.0,
        "train.selection": "best_test_epoch",
        "train.patience": None,
        "train.head_init": "torch_default",
        "train.drop_path": 0.1,
        "train.dropout": 0.0,
        "cvpt.position": 3,
        "cvpt.weights": "shared_frozen",
        "cvpt.ca_norm": "none",
        "cvpt.init": "xavier3d",
        "cvpt.prompt_dropout": 0.1,
    },
    not_reproduced=(
        "the rate changes with every step, from 0 and to 0; theirs with every epoch, from 1e-6 "
        "and to 1e-5",
        "test is read after every epoch; theirs after every tenth",
        "the last batch of an epoch is trained on also where it is small",
        "replicates are seeds; theirs is one seed, chosen for each data set",
    ),
)
