"""SSF on VTAB-1k; on the fine-grained data sets its authors augment, mix and average the weights.

Source:
    dongzelian/SSF: train_scripts.
"""

from tcpa_core.protocols.base import Fact, Protocol

PROTOCOL = Protocol(
    program="dongzelian/SSF @ e94e0e704a4e",
    facts={
        "data.resize": Fact("squash", "data/transforms_factory.py:28"),
        "data.interpolation": Fact("bicubic", "models/vision_transformer.py:51"),
        "data.antialias": Fact(True, "data/transforms_factory.py:28"),
        "data.random_crop": Fact(False, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:2"),
        "data.flip": Fact(False, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:2"),
        "data.norm_stats": Fact("half", "models/vision_transformer.py:52"),
        "data.train_on": Fact("train_and_val", "data/vtab.py:12"),
        "optim.name": Fact("adamw", "train_scripts/vit/vtab/cifar_100/train_ssf.sh:4"),
        "optim.warmup_fraction": Fact(0.1, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:5"),
        "optim.schedule": Fact("cosine", "train.py:168"),
        "optim.clip_norm": Fact(None, "train.py:160"),
        "train.epochs": Fact(100, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:3"),
        "train.batch_size": Fact(64, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:3"),
        "train.drop_last": Fact(True, "data/loader.py:257"),
        "train.label_smoothing": Fact(0.0, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:8"),
        "train.mixup_alpha": Fact(0.0, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:8"),
        "train.selection": Fact("best_test_epoch", "train.py:719"),
        "train.patience": Fact(None, "train.py:190"),
        "train.head_init": Fact("trunc02", "models/vision_transformer.py:553"),
        "train.dropout": Fact(0.0, "train.py:264"),
        "ssf.init_std": Fact(0.02, "models/vision_transformer.py:382"),
    },
    not_reproduced={
        "the rate changes with every step, from 0 and to 0; theirs with every epoch, from 1e-7 "
        "and to 1e-8, with ten more epochs at 1e-8": "train.py:709",
        "half precision is bf16 where the authors' is fp16":
            "train_scripts/vit/vtab/cifar_100/train_ssf.sh:10",
        "nothing of what they do on the fine-grained data sets alone: resized crops, mirroring, "
        "mixup, an average of the weights": "train_scripts/vit/fgvc/cub_2011/train_ssf.sh:2",
    },
)  # fmt: skip
