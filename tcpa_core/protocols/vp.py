"""VP: a border around every image and the backbone's own classes.

Source:
    visual_prompting (Bahng et al., 2022): its example on CIFAR-100.
"""

from tcpa_core.protocols.base import Protocol

PROTOCOL = Protocol(
    settings={
        "data.random_crop": False,
        "data.flip": False,
        "data.norm_stats": ("imagenet", "checkpoint"),
        "optim.name": "sgd",
        "optim.momentum": 0.9,
        "optim.lr": 40.0,
        "optim.weight_decay": 0.0,
        "optim.schedule": "cosine",
        "optim.clip_norm": None,
        "train.epochs": 1000,
        "train.batch_size": (128, 256),
        "train.label_smoothing": 0.0,
        "train.mixup_alpha": 0.0,
        "train.selection": ("best_val", "best_test_epoch"),
        "train.patience": None,
        "train.drop_path": 0.0,
        "train.dropout": 0.0,
        "vp.kind": "padding",
        "vp.prompt_size": 30,
        "vp.output": "label_map",
        "vp.eval_position": "random",
        "vp.lr_scale": 1.0,
    },
    not_reproduced=("the warm-up is optim.warmup_fraction of all steps; theirs is 1,000 steps",),
)
