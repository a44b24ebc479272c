"""VP: a border around every image and the backbone's own classes.

Two programs: for ViT and ResNet (main_vision.py) and for CLIP (main_clip.py). What both call val
is the test split of CIFAR-100.

Source:
    visual_prompting (Bahng et al., 2022): its example on CIFAR-100.
"""

from tcpa_core.protocols.base import Fact, Protocol, unaugmented

PROTOCOL = Protocol(
    program="hjbahng/visual_prompting @ 679e71fc888c",
    facts={
        "data.random_crop": Fact(False, "main_vision.py:159"),
        "data.flip": Fact(False, "main_vision.py:157"),
        **unaugmented("main_vision.py:157"),
        "data.norm_stats": Fact(("imagenet", "checkpoint"), "main_vision.py:161"),
        "optim.name": Fact("sgd", "main_vision.py:184"),
        "optim.momentum": Fact(0.9, "main_vision.py:45"),
        "optim.lr": Fact(40.0, "main_vision.py:39"),
        "optim.weight_decay": Fact(0.0, "main_vision.py:41"),
        "optim.schedule": Fact("cosine", "main_vision.py:191"),
        "optim.clip_norm": Fact(None, "main_vision.py:277"),
        "train.epochs": Fact(1000, "main_vision.py:33"),
        "train.batch_size": Fact((128, 256), "main_vision.py:29"),
        "train.drop_last": Fact(False, "main_vision.py:171"),
        "train.label_smoothing": Fact(0.0, "main_vision.py:189"),
        "train.mixup_alpha": Fact(0.0, "main_vision.py:189"),
        "train.selection": Fact(("best_val", "best_test_epoch"), "main_vision.py:217"),
        "train.patience": Fact(None, "main_vision.py:47"),
        "train.drop_path": Fact(0.0, "main_vision.py:131"),
        "train.dropout": Fact(0.0, "main_vision.py:131"),
        "vp.kind": Fact("padding", "main_vision.py:53"),
        "vp.prompt_size": Fact(30, "main_vision.py:56"),
        "vp.output": Fact("label_map", "main_vision.py:271"),
        "vp.eval_position": Fact("random", "models/prompters.py:49"),
        "vp.lr_scale": Fact(1.0, "main_vision.py:185"),
    },
    not_reproduced={
        "the warm-up is optim.warmup_fraction of all steps; theirs is 1,000 steps":
            "main_vision.py:43",
    },
)  # fmt: skip
