"""Which setting a user meant who wrote another name: same meaning first, then similar spelling."""

from collections.abc import Iterable, Mapping

from tcpa_core.errors import nearest

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "optim.lr": ("learning_rate", "lr0", "base_lr", "peak_lr", "max_lr", "eta"),
    "optim.name": ("optimizer", "optimiser", "optim", "opt"),
    "optim.weight_decay": ("wd", "decay", "l2", "weight_decays"),
    "optim.schedule": ("lr_schedule", "lr_scheduler", "lr_scheduler_type", "lr_policy",
                       "learning_rate_schedule", "sched", "scheduler"),
    "optim.warmup_fraction": ("warmup", "warmup_epochs", "warmup_steps", "warmup_ratio"),
    "optim.clip_norm": ("clip", "clip_grad", "grad_clip", "gradient_clipping", "max_norm",
                        "max_grad_norm", "clip_grad_norm"),
    "train.epochs": ("num_epochs", "n_epochs", "max_epochs", "nb_epochs", "epoch", "max_t",
                     "num_train_epochs"),
    "train.batch_size": ("bs", "batch", "batchsize", "train_batch_size", "per_device_batch_size",
                         "per_device_train_batch_size"),
    "train.label_smoothing": ("smoothing", "label_smooth"),
    "train.mixup_alpha": ("mixup",),
    "train.cutmix_alpha": ("cutmix",),
    "train.mixup_switch_prob": ("switch_prob",),
    "train.patience": ("early_stopping", "early_stop"),
    "train.precision": ("amp", "dtype", "fp16", "bf16", "mixed_precision"),
    "train.dropout": ("drop", "drop_rate", "dropout_rate"),
    "train.drop_path": ("drop_path_rate", "stochastic_depth"),
    "train.selection": ("select", "checkpoint_metric", "early_stopping_metric"),
    "backbone.name": ("model", "model_name", "arch", "architecture", "backbone", "encoder"),
    "backbone.weights": ("pretrained", "checkpoint", "ckpt", "checkpoint_path", "model_path",
                         "weights_path", "pretrained_weights"),
    "backbone.img_size": ("image_size", "input_size", "resolution", "imgsz", "crop_size", "size"),
    "backbone.pool": ("pooling", "global_pool"),
    "data.name": ("dataset", "dataset_name", "data_set", "dataset_kind"),
    "data.root": ("data_dir", "data_path", "dataset_path", "path", "dir", "data_root", "folder"),
    "data.resize_to": ("crop_pct", "resize", "resize_size", "short_side"),
    "data.flip": ("hflip", "horizontal_flip", "mirror", "random_flip"),
    "data.resized_crop": ("rrc", "random_resized_crop", "scale", "crop_scale"),
    "data.crop_ratio": ("ratio", "aspect_ratio"),
    "data.auto_augment": ("aa", "randaugment", "rand_augment", "autoaugment"),
    "data.color_jitter": ("jitter", "colour_jitter"),
    "data.erase_prob": ("reprob", "re_prob", "random_erasing", "erasing"),
    "data.erase_mode": ("remode", "re_mode"),
    "data.val_fraction": ("val_split", "val_size", "validation_split", "val_ratio"),
    "data.norm_stats": ("mean", "std", "normalization", "normalize"),
    "data.size_per_class": ("shots", "num_shots", "n_shots", "shot", "few_shot", "k_shot",
                            "images_per_class", "samples_per_class"),
    "data.splits_dir": ("split_dir", "splits", "json_dir", "lists", "lists_dir"),
    "methods": ("method", "prompting", "peft"),
    "seeds": ("seed", "random_seed", "random_state", "num_seeds", "n_seeds"),
    "budget.trials": ("num_trials", "n_trials", "num_samples", "trials", "max_trials"),
    "budget.hours": ("timeout", "time_budget", "time_budget_s", "max_hours", "wall_time"),
    "scheduler.name": ("pruner",),
    "scheduler.grace_epochs": ("grace_period", "min_t", "min_resource", "n_warmup_steps"),
    "scheduler.min_samples": ("min_samples_required", "n_min_trials"),
    "scheduler.reduction_factor": ("eta", "rf"),
    "objective.metric": ("metric", "monitor"),
    "objective.goal": ("mode", "direction"),
    "sampler.name": ("search_alg", "algorithm", "sampler"),
    "num_prompts": ("num_tokens", "prompt_length", "prompt_len", "n_prompts", "prompts"),
    "tcpa.num_cls_prompts": ("n_c", "nc", "cls_pool", "cls_pool_size", "num_cls"),
    "tcpa.num_image_prompts": ("n_i", "ni", "image_pool", "image_pool_size", "num_image"),
    "tcpa.top_k_image": ("k", "k_i", "topk", "top_k", "topk_image"),
    "tcpa.top_k_cls": ("k_c", "topk_cls"),
    "tcpa.lambda_image": ("lambda", "lambda_i", "lam"),
    "tcpa.lambda_cls": ("lambda_c",),
    "tcpa.prompt_length": ("l_p", "lp", "prompt_len"),
    "lora.rank": ("r", "lora_r"),
    "bottleneck": ("hidden", "reduction", "bottleneck_dim", "dim", "hidden_dim", "adapter_dim",
                   "ffn_num", "down_size"),
}  # fmt: skip
"""What a setting, or the last word of settings of several methods, is called in timm, Optuna, Ray,
Hugging Face and the papers; without its section."""


def nearest_setting(path: str, known: Iterable[str]) -> str:
    """Say which setting was probably meant, as a clause to append ("" if none is close).

    The same word in another section (`train.lr`) and another name for the same thing
    (`data.image_size`) come before what is only spelled alike.
    """
    known = list(known)
    meant = same_meaning(path, known)
    return f"; closest name: {meant[0]!r}" if meant else nearest(path, known)


def same_meaning(path: str, known: Iterable[str]) -> list[str]:
    """Settings that mean the same as an unknown name, the most probable first."""
    section, _, word = path.lower().replace("-", "_").rpartition(".")
    meant = [name for name in known if word == _word(name) or word in _other_names(name)]
    return sorted(
        meant, key=lambda n: (n.partition(".")[0] != section, section not in _other_names(n))
    )


def _word(name: str) -> str:
    return name.rpartition(".")[2]


def _other_names(name: str) -> tuple[str, ...]:
    return OTHER_NAMES.get(name, OTHER_NAMES.get(_word(name), ()))
