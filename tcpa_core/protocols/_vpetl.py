"""What the benchmark V-PETL does with every method on both groups of data sets; read of LoRA."""

from collections.abc import Mapping

from tcpa_core.protocols.base import Fact

PROGRAM = "synbol/Parameter-Efficient-Transfer-Learning-Benchmark @ c188fad2930f"
_CLS = "ImageClassification"
SCRIPT = f"{_CLS}/train/train_model_lora.py"
VTAB_LOADER = f"{_CLS}/dataloader/vtab.py"
FGVC_LOADER = f"{_CLS}/dataloader/transforms.py"

COMMON: Mapping[str, Fact] = {
    "optim.name": Fact("adamw", f"{SCRIPT}:172"),
    "optim.warmup_fraction": Fact(0.1, f"{_CLS}/configs/model_lora/vtab/dtd.yaml:8"),
    "optim.schedule": Fact("cosine", f"{SCRIPT}:180"),
    "optim.clip_norm": Fact(None, f"{SCRIPT}:51"),
    "train.epochs": Fact(100, f"{_CLS}/configs/model_lora/vtab/dtd.yaml:7"),
    "train.batch_size": Fact(64, f"{_CLS}/configs/model_lora/vtab/dtd.yaml:6"),
    "train.drop_last": Fact(False, f"{VTAB_LOADER}:87"),
    "train.mixup_alpha": Fact(0.0, f"{SCRIPT}:48"),
    "train.cutmix_alpha": Fact(0.0, f"{SCRIPT}:48"),
    "train.selection": Fact("best_test_epoch", f"{SCRIPT}:63"),
    "train.patience": Fact(None, f"{SCRIPT}:28"),
    "train.head_init": Fact("torch_default", f"{_CLS}/models/vision_transformer_lora.py:331"),
    "train.drop_path": Fact(0.1, f"{_CLS}/scripts/run_vit_lora.sh:16"),
    "train.dropout": Fact(0.0, f"{_CLS}/models/vision_transformer_lora.py:221"),
}

NOT_REPRODUCED: Mapping[str, str] = {
    "the rate changes with every step, from 0 and to 0; theirs with every epoch, from 1e-6 and to "
    "1e-5": f"{SCRIPT}:180",
    "the best of all epochs is tested; theirs of each tenth": f"{SCRIPT}:60",
    "replicates are seeds; theirs is seed 42": f"{SCRIPT}:97",
}
