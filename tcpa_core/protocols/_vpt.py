"""What VPT's program does on VTAB-1k, on which its other protocols build."""

from collections.abc import Mapping

from tcpa_core.protocols.base import Fact, unaugmented

PROGRAM = "KMnP/vpt @ 4410440ec1b4"

VTAB: Mapping[str, Fact] = {
    "data.resize": Fact("squash", "src/data/datasets/tf_dataset.py:150"),
    "data.interpolation": Fact("bilinear", "src/data/datasets/tf_dataset.py:150"),
    "data.antialias": Fact(False, "src/data/datasets/tf_dataset.py:150"),
    "data.random_crop": Fact(False, "src/data/datasets/tf_dataset.py:148"),
    "data.flip": Fact(False, "src/data/datasets/tf_dataset.py:148"),
    **unaugmented("src/data/datasets/tf_dataset.py:148"),
    "data.norm_stats": Fact("imagenet", "src/data/datasets/tf_dataset.py:75"),
    "data.train_on": Fact("train_and_val", "tune_vtab.py:166"),
    "optim.name": Fact("sgd", "configs/base-prompt.yaml:14"),
    "optim.momentum": Fact(0.9, "configs/base-prompt.yaml:15"),
    "optim.warmup_fraction": Fact(0.1, "configs/base-prompt.yaml:18"),
    "optim.schedule": Fact("cosine", "configs/base-prompt.yaml:11"),
    "optim.clip_norm": Fact(None, "src/engine/trainer.py:119"),
    "train.epochs": Fact(100, "configs/base-prompt.yaml:19"),
    "train.batch_size": Fact((64, 128), "demo.ipynb:123"),
    "train.drop_last": Fact(False, "src/data/loader.py:73"),
    "train.label_smoothing": Fact(0.0, "src/solver/losses.py:65"),
    "train.mixup_alpha": Fact(0.0, "src/solver/losses.py:65"),
    "train.selection": Fact("last_epoch", "tune_vtab.py:56"),
    "train.patience": Fact(None, "configs/base-prompt.yaml:12"),
    "train.head_init": Fact("vpt", "src/models/mlp.py:53"),
    "train.drop_path": Fact(0.0, "src/models/vit_models.py:174"),
    "train.dropout": Fact(0.0, "src/models/vit_models.py:174"),
}
"""The final runs on VTAB-1k."""
