"""Names of the files of a study's folder: whoever writes or reads one takes its name from here."""

DESCRIPTION = "study.yaml"
"""What the study is; it changes only where a user changes the study."""
JOURNAL = "journal.jsonl"
"""What has happened; the truth of the study."""
DIGESTS = ".digests.json"
"""Where in a long journal its completed trials stand; it can be made again."""
LOCK = "driver.lock"
"""Names the driver that runs it."""
OPTUNA_LOG = "optuna.log"
"""Finished points, for optuna-dashboard."""
CHECKPOINTS = "checkpoints"
"""Folder that holds a folder for each trial."""
BEST = "best.safetensors"
"""Checkpoint of a trial's selected epoch."""
LAST = "last.safetensors"
"""Checkpoint of the last epoch trained, from which a trial goes on."""
_AFTER = "epoch-{}.safetensors"


def state_after(epoch: int) -> str:
    """Checkpoint of an epoch from which other trials may begin; beside that of the last one."""
    return _AFTER.format(epoch)


PREDICTIONS = "predictions.safetensors"
"""What a tested trial took each image of val and test for; beside its checkpoints."""
REGIONS = "regions.safetensors"
"""What a tested trial that segments found on val and test; beside its checkpoints."""
FOUND = {"classify": PREDICTIONS, "segment": REGIONS}
"""The file of the two that a tested trial has, by its task."""
