"""V-PETL on VTAB-1k: RandAugment and mirroring on 12 of the 19 tasks, smoothed labels on 12.

Augmented are DTD, Flowers102, Pets, SVHN, SUN397, PatchCamelyon, EuroSAT, RESISC45, Retinopathy,
Clevr/count, DMLab and KITTI. Their program asks for colour jitter too, which timm leaves out beside
RandAugment. The others are resized bilinearly and not changed, as val and test are.

Source:
    synbol/Parameter-Efficient-Transfer-Learning-Benchmark: ImageClassification.
"""

from tcpa_core.protocols._vpetl import COMMON, NOT_REPRODUCED, PROGRAM, VTAB_LOADER
from tcpa_core.protocols.base import Fact, Protocol

PROTOCOL = Protocol(
    program=PROGRAM,
    facts={
        **COMMON,
        "data.resize": Fact("squash", f"{VTAB_LOADER}:72"),
        "data.interpolation": Fact("bilinear", f"{VTAB_LOADER}:72"),
        "data.train_interpolation": Fact(("bicubic", None), f"{VTAB_LOADER}:65"),
        "data.antialias": Fact(True, f"{VTAB_LOADER}:72"),
        "data.random_crop": Fact(False, f"{VTAB_LOADER}:65"),
        "data.resized_crop": Fact(None, f"{VTAB_LOADER}:65"),
        "data.flip": Fact((True, False), f"{VTAB_LOADER}:55"),
        "data.auto_augment": Fact(("rand-m9-mstd0.5-inc1", None), f"{VTAB_LOADER}:59"),
        "data.color_jitter": Fact(None, f"{VTAB_LOADER}:59"),
        "data.erase_prob": Fact(0.0, f"{VTAB_LOADER}:60"),
        "data.norm_stats": Fact("imagenet", f"{VTAB_LOADER}:74"),
        "data.train_on": Fact("train_and_val", f"{VTAB_LOADER}:85"),
        "train.label_smoothing": Fact(
            (0.1, 0.0), "ImageClassification/configs/model_lora/vtab/dtd.yaml:5"
        ),
    },
    not_reproduced=NOT_REPRODUCED,
)
