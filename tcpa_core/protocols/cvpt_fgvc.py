"""CVPT on the fine-grained data sets, without their val split.

Their program loads them with VPT's files.

Source:
    Lingyun0419/CVPT: the training script.
"""

from tcpa_core.protocols._cvpt import PROGRAM, VTAB
from tcpa_core.protocols.base import FINE_GRAINED, Fact, Protocol

PROTOCOL = Protocol(
    program=PROGRAM,
    facts={
        **VTAB,
        **FINE_GRAINED,
        "data.train_on": Fact("train", "train-FGVC.py:91"),
        "optim.name": Fact("adamw", "train-FGVC.py:68"),
        "optim.weight_decay": Fact(0.05, "train-FGVC.py:66"),
        "optim.warmup_fraction": Fact(0.1, "train-FGVC.py:106"),
        "optim.schedule": Fact("cosine", "train-FGVC.py:106"),
        "optim.clip_norm": Fact(None, "train-FGVC.py:29"),
        "train.epochs": Fact(100, "train-FGVC.py:108"),
        "train.batch_size": Fact(32, "train-FGVC.py:71"),
        "train.label_smoothing": Fact(0.0, "train-FGVC.py:107"),
        "train.mixup_alpha": Fact(0.0, "train-FGVC.py:107"),
        "train.selection": Fact("best_test_epoch", "train-FGVC.py:39"),
        "train.patience": Fact(None, "train-FGVC.py:108"),
        "train.drop_path": Fact(0.1, "train-FGVC.py:83"),
        "cvpt.position": Fact(3, "train-FGVC.py:75"),
        "cvpt.prompt_dropout": Fact(0.1, "train-FGVC.py:72"),
    },
    not_reproduced={
        "the rate changes with every step, from 0 and to 0; theirs with every epoch, from 1e-6 "
        "and to 1e-5": "train-FGVC.py:106",
        "replicates are seeds; theirs is one seed": "train-FGVC.py:81",
    },
)
