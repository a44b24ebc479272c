"""The same search as a user would write it from the documentation of Ray Tune, Optuna and MLflow.

One process per trial, one trial per core: function trainable, `OptunaSearch`, `ASHAScheduler`,
`MLflowLoggerCallback`. It trains the same core; `benchmarks/search.py` measures it beside ours.

    python -m benchmarks.plain_search --trials 16 --out FOLDER
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch


def space(constants: dict[str, Any], trial: optuna.Trial) -> dict[str, Any]:
    """Four methods with their sizes; the search algorithm pickles this function."""
    method = trial.suggest_categorical("method", ["linear", "vpt", "tcpa", "cvpt"])
    trial.suggest_float("optim.lr", 1e-3, 3e-2, log=True)
    if method == "vpt":
        trial.suggest_categorical("vpt.num_prompts", [1, 5, 10, 20])
    if method == "tcpa":
        trial.suggest_int("tcpa.num_cls_prompts", 4, 16)
        trial.suggest_int("tcpa.num_image_prompts", 8, 24)
        trial.suggest_int("tcpa.top_k_image", 1, 8)
        trial.suggest_int("tcpa.top_k_cls", 1, 4)
    if method == "cvpt":
        trial.suggest_categorical("cvpt.num_prompts", [1, 5, 10, 20])
    return constants


def objective(config: dict[str, Any]) -> None:
    """Train one configuration and report every epoch."""
    import torch

    from tcpa_core import run_trial

    torch.set_num_threads(1)
    base, cache = config.pop("base"), config.pop("cache")
    flat = {**base, "methods": [config.pop("method")], **config}
    run_trial(
        flat,
        on_epoch=lambda r: tune.report({"val_accuracy": r.val_accuracy, "epoch": r.epoch}),
        cache_dir=Path(cache),
    )


def main() -> None:
    """Run the search and print trials, seconds and the best accuracy as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    base = {
        "backbone.name": "vit_nano",
        "data.name": "digits",
        "train.epochs": args.epochs,
        "train.batch_size": 64,
    }
    started = time.perf_counter()
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    constants = {"base": base, "cache": str(out / "cache")}
    tuner = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                partial(space, constants),
                metric="val_accuracy",
                mode="max",
                seed=args.seed,
            ),
            scheduler=ASHAScheduler(
                time_attr="epoch",
                metric="val_accuracy",
                mode="max",
                max_t=args.epochs,
                grace_period=1,
                reduction_factor=3,
            ),
            num_samples=args.trials,
        ),
        run_config=tune.RunConfig(
            storage_path=str(out / "ray"),
            verbose=0,
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{out}/mlflow.db", experiment_name="plain"
                )
            ],
        ),
    )
    results = tuner.fit()
    best = results.get_best_result(metric="val_accuracy", mode="max", scope="all")
    print(
        json.dumps(
            {
                "trials": len(results),
                "errors": results.num_errors,
                "seconds": time.perf_counter() - started,
                "best": max(best.metrics_dataframe["val_accuracy"]),
            }
        )
    )


if __name__ == "__main__":
    main()
