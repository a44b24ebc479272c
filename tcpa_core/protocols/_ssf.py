"""What SSF's program does on every data set, and on those that it augments.

Its images are cut, mirrored, mixed, cut into one another and erased as timm's training script of
that time does by its defaults.
"""

from collections.abc import Mapping

from tcpa_core.protocols.base import Fact

PROGRAM = "dongzelian/SSF @ e94e0e704a4e"

COMMON: Mapping[str, Fact] = {
    "data.norm_stats": Fact("half", "models/vision_transformer.py:52"),
    "optim.name": Fact("adamw", "train_scripts/vit/vtab/cifar_100/train_ssf.sh:4"),
    "optim.warmup_fraction": Fact(0.1, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:5"),
    "optim.schedule": Fact("cosine", "train.py:168"),
    "optim.clip_norm": Fact(None, "train.py:160"),
    "train.epochs": Fact(100, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:3"),
    "train.batch_size": Fact(64, "train_scripts/vit/vtab/cifar_100/train_ssf.sh:3"),
    "train.drop_last": Fact(True, "data/loader.py:257"),
    "train.selection": Fact("best_test_epoch", "train.py:719"),
    "train.patience": Fact(None, "train.py:190"),
    "train.head_init": Fact("trunc02", "models/vision_transformer.py:553"),
    "train.dropout": Fact(0.0, "train.py:264"),
    "ssf.init_std": Fact(0.02, "models/vision_transformer.py:382"),
}

AUGMENTED: Mapping[str, Fact] = {
    "data.resize": Fact("short_side", "data/transforms_factory.py:179"),
    "data.resize_to": Fact(248, "models/vision_transformer.py:51"),
    "data.interpolation": Fact("bicubic", "models/vision_transformer.py:51"),
    "data.antialias": Fact(True, "data/transforms_factory.py:179"),
    "data.random_crop": Fact(False, "data/transforms_factory.py:54"),
    "data.resized_crop": Fact(((0.08, 1.0),), "train.py:216"),
    "data.crop_ratio": Fact(((3 / 4, 4 / 3),), "train.py:218"),
    "data.train_interpolation": Fact("random", "train.py:262"),
    "data.flip": Fact(True, "train.py:220"),
    "data.color_jitter": Fact(None, "data/transforms_factory.py:126"),
    "data.erase_prob": Fact(0.25, "train.py:238"),
    "data.erase_mode": Fact("pixel", "train.py:240"),
    "optim.weight_decay": Fact(0.05, "train_scripts/vit/cifar_100/train_ssf.sh:4"),
    "train.label_smoothing": Fact(0.1, "train.py:260"),
    "train.mixup_alpha": Fact(0.8, "train.py:246"),
    "train.cutmix_alpha": Fact(1.0, "train.py:248"),
    "train.mixup_prob": Fact(1.0, "train.py:252"),
    "train.mixup_switch_prob": Fact(0.5, "train.py:254"),
}

NOT_REPRODUCED: Mapping[str, str] = {
    "the rate changes with every step, from 0 and to 0; theirs with every epoch, from 1e-7 "
    "and to 1e-8, with ten more epochs at 1e-8": "train.py:709",
    "half precision is bf16 where the authors' is fp16":
        "train_scripts/vit/vtab/cifar_100/train_ssf.sh:10",
}  # fmt: skip

NOT_REPRODUCED_OF_AUGMENTED: Mapping[str, str] = {
    "weights are scored as they are after a step; theirs as a moving average over all steps":
        "train.py:704",
    "a batch is mixed as a whole, in numbers; theirs by each of the 32 images of a GPU, rounded to "
    "whole bytes": "train.py:559",
}  # fmt: skip
