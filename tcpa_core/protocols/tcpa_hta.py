"""TCPA on the ten data sets of HTA.

Source:
    ICML2025-TCPA: sh/*.sh and the trainer; arXiv:2505.02406 says 100 epochs, AdamW, cosine.
"""

from tcpa_core.protocols.base import Fact, Protocol, unaugmented

PROTOCOL = Protocol(
    program="zhoujiahuan1991/ICML2025-TCPA @ dce8b3aaa304",
    facts={
        "data.resize": Fact("short_side", "data_utils/transforms.py:53"),
        "data.resize_to": Fact(None, "utils/args.py:26"),
        "data.interpolation": Fact("bilinear", "data_utils/transforms.py:53"),
        "data.antialias": Fact(True, "data_utils/transforms.py:53"),
        "data.random_crop": Fact(True, "data_utils/transforms.py:54"),
        "data.flip": Fact(True, "data_utils/transforms.py:55"),
        **unaugmented("data_utils/transforms.py:53"),
        "data.norm_stats": Fact("imagenet", "data_utils/transforms.py:19"),
        "data.split": Fact("hta", "data_utils/datasets/cifar/dataset.py:65"),
        "data.val_fraction": Fact(0.2, "data_utils/datasets/cifar/dataset.py:65"),
        "data.train_on": Fact("train", "data_utils/loader.py:162"),
        "optim.name": Fact("adamw", "train/trainer.py:35"),
        "optim.warmup_fraction": Fact(0.2, "train/trainer.py:39"),
        "optim.schedule": Fact("cosine", "train/utils.py:40"),
        "optim.clip_norm": Fact(None, "train/trainer.py:91"),
        "train.epochs": Fact(100, "utils/args.py:19"),
        "train.batch_size": Fact(128, "sh/VFPT_TCPA_cub.sh:3"),
        "train.drop_last": Fact(False, "data_utils/loader.py:159"),
        "train.label_smoothing": Fact(0.1, "train/utils.py:17"),
        "train.mixup_alpha": Fact(0.8, "train/utils.py:11"),
        "train.mixup_prob": Fact(0.5, "train/utils.py:14"),
        "train.selection": Fact("best_test_epoch", "train/trainer.py:113"),
        "train.patience": Fact(None, "train/trainer.py:51"),
        "train.head_init": Fact("torch_default", "models/utils.py:30"),
        "train.drop_path": Fact(0.0, "models/VFPT_TCPA.py:41"),
        "train.dropout": Fact(0.0, "models/VFPT_TCPA.py:41"),
        "vfpt.fraction": Fact(1.0, "models/VFPT_TCPA.py:70"),
        "vfpt.dims": Fact("all", "models/VFPT_TCPA.py:70"),
        "vfpt.location": Fact("prepend", "models/VFPT_TCPA.py:71"),
        "tcpa.prompt_length": Fact(1, "sh/VFPT_TCPA_cub.sh:7"),
        "tcpa.image_prompt_length": Fact((None, 1), "sh/VFPT_TCPA_cub.sh:31"),
        "tcpa.lambda_cls": Fact(0.01, "sh/VFPT_TCPA_cub.sh:6"),
        "tcpa.lambda_image": Fact(0.01, "sh/VFPT_TCPA_cub.sh:6"),
        "tcpa.split_roles": Fact(True, "sh/VFPT_TCPA_cub.sh:34"),
        "tcpa.match_tokens": Fact(True, "sh/VFPT_TCPA_cub.sh:34"),
        "tcpa.mask_mode": Fact("post", "models/VFPT_TCPA.py:113"),
        "tcpa.select": Fact("similarity", "models/TCPA.py:257"),
        "tcpa.match_input": Fact("raw", "models/VFPT_TCPA.py:65"),
        "tcpa.detach_tokens": Fact(False, "models/TCPA.py:234"),
        "tcpa.loss_reduction": Fact("mean_then_layer_sum", "models/TCPA.py:295"),
        "tcpa.random_epochs": Fact((10, None), "sh/VFPT_TCPA_cub.sh:5"),
        "tcpa.prompt_dropout": Fact(0.1, "utils/args.py:54"),
        "tcpa.prompt_init": Fact("u1", "models/TCPA.py:223"),
        "tcpa.fourier_scope": Fact("joint", "models/VFPT_TCPA.py:70"),
    },
    not_reproduced={
        "half precision is bf16 where the authors' is fp16": "train/trainer.py:73",
        "Food-101 and GTSRB are shuffled once, by data.split_seed; theirs are for train and "
        "for val apart, so that images may be in both": "data_utils/datasets/food101/dataset.py:89",
        "all images of a batch are trained on; theirs lose one where their number is odd":
            "train/trainer.py:68",
        "replicates are seeds; theirs is seed 3407 alone": "utils/args.py:68",
    },
)  # fmt: skip
