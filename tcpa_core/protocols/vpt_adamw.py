"""The baselines of VPT that are trained with AdamW: full, partial, bias and adapter.

Their code takes a weight decay of 0.01 whatever is configured, none for biases, and SGD where the
configuration says 0. Images are prepared as VPT's: on VTAB-1k without antialiasing.

Source:
    KMnP/vpt: solver/optimizer.py and the configurations of these methods.
"""

from tcpa_core.protocols._vpt import PROGRAM
from tcpa_core.protocols.base import Fact, Protocol, unaugmented

PROTOCOL = Protocol(
    program=PROGRAM,
    facts={
        "data.interpolation": Fact("bilinear", "src/data/transforms.py:23"),
        "data.antialias": Fact((True, False), "src/data/datasets/tf_dataset.py:150"),
        **unaugmented("src/data/transforms.py:23"),
        "data.norm_stats": Fact("imagenet", "src/data/transforms.py:9"),
        "optim.name": Fact("adamw", "configs/base-finetune.yaml:14"),
        "optim.weight_decay": Fact((0.01, 0.0), "src/solver/optimizer.py:43"),
        "optim.adamw_wd0": Fact("sgd", "src/solver/optimizer.py:132"),
        "optim.warmup_fraction": Fact(0.05, "configs/base-finetune.yaml:12"),
        "optim.schedule": Fact("cosine", "configs/base-finetune.yaml:11"),
        "optim.clip_norm": Fact(None, "src/engine/trainer.py:119"),
        "train.epochs": Fact(100, "configs/base-finetune.yaml:18"),
        "train.batch_size": Fact(384, "configs/base-finetune.yaml:25"),
        "train.drop_last": Fact(False, "src/data/loader.py:58"),
        "train.label_smoothing": Fact(0.0, "src/solver/losses.py:65"),
        "train.mixup_alpha": Fact(0.0, "src/solver/losses.py:65"),
        "train.selection": Fact("last_epoch", "tune_vtab.py:56"),
        "train.patience": Fact(None, "configs/base-finetune.yaml:19"),
        "train.head_init": Fact("vpt", "src/models/mlp.py:53"),
        "train.drop_path": Fact(0.0, "src/models/vit_models.py:174"),
        "train.dropout": Fact(0.0, "src/models/vit_models.py:174"),
        "adapter.init": Fact("zero_zero", "src/models/vit_adapter/adapter_block.py:52"),
    },
    of_methods={"full": {"train.dropout": Fact(0.1, "src/configs/vit_configs.py:19")}},
    not_reproduced={
        "the rate changes with every step; theirs with every epoch, the first of which has rate 0":
            "src/engine/trainer.py:221",
        "AdamW adds 1e-8 to its denominator; theirs 1e-6": "src/solver/optimizer.py:155",
    },
)  # fmt: skip
