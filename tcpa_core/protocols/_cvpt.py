"""What CVPT's program does on VTAB-1k, on which its other protocols build."""

from collections.abc import Mapping

from tcpa_core.protocols.base import Fact, unaugmented

PROGRAM = "Lingyun0419/CVPT @ 2fc987708aea"

VTAB: Mapping[str, Fact] = {
    "data.resize": Fact("squash", "dataset.py:91"),
    "data.interpolation": Fact("bicubic", "dataset.py:91"),
    "data.antialias": Fact(True, "dataset.py:91"),
    "data.random_crop": Fact(False, "dataset.py:90"),
    "data.flip": Fact(False, "dataset.py:90"),
    **unaugmented("dataset.py:90"),
    "data.norm_stats": Fact("imagenet", "dataset.py:64"),
    "data.train_on": Fact("train_and_val", "dataset.py:86"),
    "optim.name": Fact("adamw", "train.py:64"),
    "optim.weight_decay": Fact(0.05, "train.py:62"),
    "optim.warmup_fraction": Fact(0.1, "train.py:105"),
    "optim.schedule": Fact("cosine", "train.py:105"),
    "optim.clip_norm": Fact(None, "train.py:29"),
    "train.epochs": Fact(100, "train.py:107"),
    "train.batch_size": Fact(32, "train.py:67"),
    "train.drop_last": Fact(True, "dataset.py:102"),
    "train.label_smoothing": Fact(0.0, "train.py:106"),
    "train.mixup_alpha": Fact(0.0, "train.py:106"),
    "train.selection": Fact("best_test_epoch", "train.py:38"),
    "train.patience": Fact(None, "train.py:107"),
    "train.head_init": Fact("torch_default", "CVPT.py:382"),
    "train.drop_path": Fact(0.1, "train.py:85"),
    "train.dropout": Fact(0.0, "CVPT.py:290"),
    "cvpt.position": Fact(3, "train.py:71"),
    "cvpt.weights": Fact("shared_frozen", "CVPT.py:530"),
    "cvpt.ca_norm": Fact("none", "CVPT.py:242"),
    "cvpt.init": Fact("xavier3d", "CVPT.py:320"),
    "cvpt.prompt_dropout": Fact(0.1, "train.py:68"),
}
"""The final runs on VTAB-1k."""
