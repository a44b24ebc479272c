"""V-PETL on the fine-grained data sets, whose images it prepares as VPT does.

Source:
    synbol/Parameter-Efficient-Transfer-Learning-Benchmark: ImageClassification.
"""

from tcpa_core.protocols._vpetl import COMMON, FGVC_LOADER, NOT_REPRODUCED, PROGRAM
from tcpa_core.protocols.base import Fact, Protocol, unaugmented

PROTOCOL = Protocol(
    program=PROGRAM,
    facts={
        **COMMON,
        **unaugmented(f"{FGVC_LOADER}:23"),
        "data.resize": Fact("short_side", f"{FGVC_LOADER}:23"),
        "data.resize_to": Fact(None, f"{FGVC_LOADER}:15"),
        "data.interpolation": Fact("bilinear", f"{FGVC_LOADER}:23"),
        "data.antialias": Fact(True, f"{FGVC_LOADER}:23"),
        "data.random_crop": Fact(True, f"{FGVC_LOADER}:24"),
        "data.flip": Fact(True, f"{FGVC_LOADER}:25"),
        "data.norm_stats": Fact("imagenet", f"{FGVC_LOADER}:9"),
        "data.train_on": Fact("train", "ImageClassification/dataloader/loader.py:56"),
        "train.batch_size": Fact(
            (128, 64), "ImageClassification/configs/model_lora/fgvc/CUB_200_2011.yaml:6"
        ),
        "train.drop_last": Fact(False, "ImageClassification/dataloader/loader.py:53"),
        "train.label_smoothing": Fact(
            0.0, "ImageClassification/configs/model_lora/fgvc/CUB_200_2011.yaml:5"
        ),
    },
    not_reproduced=NOT_REPRODUCED,
)
