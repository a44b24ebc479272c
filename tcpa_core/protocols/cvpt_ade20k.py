"""CVPT on ADE20K: semantic segmentation with SETR-PUP over a ViT-L/16.

Their program is mmsegmentation 0.15 with the files of the folder `segmentation task`; lines are
those of its files. Both its sets of ADE20K are trained on or scored as published: val of the data
set is test here, and nothing of train is held back, so that the last epoch is the one.

160,000 steps of 16 pictures are 126.7 passes over 20,210 pictures; 127 passes are taken.

Source:
    Lingyun0419/CVPT, segmentation task: config.py, tools/train.py, mmseg/models/backbones/vit.py.
"""

from tcpa_core.protocols._cvpt import PROGRAM
from tcpa_core.protocols.base import Fact, Protocol, unaugmented

PROTOCOL = Protocol(
    program=PROGRAM,
    facts={
        **unaugmented("config.py:87"),
        "task.name": Fact("segment", "config.py:3"),
        "segment.head": Fact("setr_pup", "config.py:23"),
        "segment.blocks": Fact(((24,),), "config.py:26"),
        "segment.channels": Fact(256, "config.py:25"),
        "segment.dropout": Fact(0.0, "config.py:28"),
        "segment.auxiliary_blocks": Fact(((10, 15, 20),), "config.py:15"),
        "segment.auxiliary_share": Fact(0.4, "config.py:50"),
        "segment.window": Fact("slide", "config.py:81"),
        "segment.stride": Fact(341, "config.py:81"),
        "backbone.img_size": Fact(512, "config.py:86"),
        "data.name": Fact("segfolder", "config.py:125"),
        "data.reduce_zero_label": Fact(True, "config.py:89"),
        "data.resize": Fact("short_side", "config.py:90"),
        "data.resize_to": Fact(512, "config.py:90"),
        "data.interpolation": Fact("bilinear", "config.py:90"),
        "data.antialias": Fact(False, "config.py:90"),
        "data.scale_range": Fact(((0.5, 2.0),), "config.py:90"),
        "data.random_crop": Fact(True, "config.py:91"),
        "data.max_class_share": Fact(0.75, "config.py:91"),
        "data.flip": Fact(True, "config.py:92"),
        "data.norm_stats": Fact("imagenet", "config.py:96"),
        "data.train_on": Fact("train_and_val", "config.py:127"),
        "optim.name": Fact("sgd", "config.py:200"),
        "optim.lr": Fact(1e-3, "config.py:201"),
        "optim.momentum": Fact(0.9, "config.py:202"),
        "optim.weight_decay": Fact(0.0, "config.py:203"),
        "optim.head_lr": Fact(10.0, "config.py:204"),
        "optim.clip_norm": Fact(None, "config.py:205"),
        "optim.schedule": Fact("poly", "config.py:206"),
        "optim.poly_power": Fact(0.9, "config.py:206"),
        "optim.min_lr": Fact(1e-4, "config.py:206"),
        "optim.warmup_fraction": Fact(0.0, "config.py:206"),
        "train.epochs": Fact(127, "config.py:207"),
        "train.batch_size": Fact(16, "config.py:122"),
        "train.drop_last": Fact(True, "tools/train.py:162"),
        "train.label_smoothing": Fact(0.0, "config.py:35"),
        "train.mixup_alpha": Fact(0.0, "config.py:87"),
        "train.selection": Fact("last_epoch", "config.py:209"),
        "train.patience": Fact(None, "config.py:207"),
        "train.drop_path": Fact(0.0, "mmseg/models/backbones/vit.py:208"),
        "train.dropout": Fact(0.1, "config.py:16"),
        "cvpt.position": Fact(3, "mmseg/models/backbones/vit.py:138"),
        "cvpt.weights": Fact("shared_frozen", "tools/train.py:155"),
        "cvpt.ca_norm": Fact("none", "mmseg/models/backbones/vit.py:138"),
        "cvpt.init": Fact("xavier3d", "mmseg/models/backbones/vit.py:257"),
        "cvpt.prompt_dropout": Fact(0.1, "config.py:21"),
    },
    not_reproduced={
        "127 epochs of whole batches are 160,401 steps; theirs are 160,000": "config.py:207",
        "batches of 16 are 8 devices of 2, which their read-me starts; the configuration lists two "
        "devices": "config.py:211",
        "brightness, contrast, saturation and hue of training pictures stay; theirs change at "
        "random": "config.py:93",
        "the short side is 512 whatever the long one; theirs ends at 2,048": "config.py:90",
        "dropout of the backbone leaves attention's output alone; theirs covers it":
            "mmseg/models/backbones/vit.py:104",
        "position embeddings are resized by bicubic interpolation; theirs by bilinear":
            "config.py:19",
        "the cross attention starts as a copy of the self-attention, as their paper says; the file "
        "that would copy it is not published": "mmseg/models/backbones/vit.py:16",
    },
)  # fmt: skip
