"""SA²VP on VTAB-1k, HTA and the fine-grained data sets, whose images are resized as VPT's.

Source:
    SA2VP, AAAI 2024: its training script. Its README tests the last epoch on VTAB-1k and the best
    val epoch on the fine-grained sets.
"""

from tcpa_core.protocols.base import Fact, Protocol, unaugmented

PROTOCOL = Protocol(
    program="tommy-xq/SA2VP @ 35674e745809",
    facts={
        "data.interpolation": Fact("bilinear", "datasets.py:1430"),
        "data.antialias": Fact(True, "datasets.py:1430"),
        **unaugmented("datasets.py:1430"),
        "data.norm_stats": Fact("half", "datasets.py:1422"),
        "optim.name": Fact("adamw", "vit_train_sa2vp.py:114"),
        "optim.lr": Fact((1e-3, 5e-4), "README.md:87"),
        "optim.weight_decay": Fact(1e-4, "Train_nature.sh:18"),
        "optim.warmup_fraction": Fact(0.1, "Train_nature.sh:9"),
        "optim.schedule": Fact("cosine", "vit_train_sa2vp.py:411"),
        "optim.clip_norm": Fact(None, "vit_train_sa2vp.py:120"),
        "train.epochs": Fact(100, "Train_nature.sh:10"),
        "train.batch_size": Fact((64, 40, 128), "README.md:99"),
        "train.drop_last": Fact(True, "vit_train_sa2vp.py:320"),
        "train.label_smoothing": Fact(0.0, "vit_train_sa2vp.py:149"),
        "train.mixup_alpha": Fact(0.0, "vit_train_sa2vp.py:170"),
        "train.selection": Fact(("best_val", "last_epoch", "best_test_epoch"), "README.md:122"),
        "train.patience": Fact(None, "vit_train_sa2vp.py:446"),
        "train.head_init": Fact("trunc02", "vit_train_sa2vp.py:70"),
        "train.drop_path": Fact(0.0, "Train_nature.sh:11"),
        "train.dropout": Fact(0.1, "vpt_main/src/configs/vit_configs.py:19"),
        "sa2vp.dropout": Fact(0.1, "vpt_main/src/models/vit_backbones/vit_tinypara.py:331"),
    },
    not_reproduced={
        "the rate ends at 0; theirs at 1e-7": "Train_nature.sh:14",
        "half precision is bf16 where the authors' is fp16": "engine_for_train.py:79",
    },
)
