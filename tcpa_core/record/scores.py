"""The one value by which trials of a task are compared: its name in records, and what it is called.

A journal, a table and MLflow have it as `val_<name>` and `test_<name>`.
"""

from collections.abc import Mapping
from typing import NamedTuple

TASK = "task.name"
"""The setting that names a trial's task; a trial from before there were tasks classifies."""


class Score(NamedTuple):
    """What "better" means for a task; larger is better."""

    name: str
    """As in `val_<name>`."""
    label: str
    """In sentences and beside axes."""
    variants: tuple[str, ...] = ()
    """Fields of the same score on test, measured otherwise where a trial asks for it."""
    others: tuple[str, ...] = ()
    """Further fields that only trials of the task have."""

    @property
    def val(self) -> str:
        """Its field on val."""
        return f"val_{self.name}"

    @property
    def test(self) -> str:
        """Its field on test."""
        return f"test_{self.name}"


SCORES: Mapping[str, Score] = {
    "classify": Score("accuracy", "accuracy"),
    "segment": Score(
        "miou",
        "mIoU",
        variants=("test_miou_multiscale",),
        others=("val_mean_accuracy", "test_mean_accuracy"),
    ),
}
"""By name of the task."""

CALLED: Mapping[str, str] = {
    **{one.val: f"val {one.label}" for one in SCORES.values()},
    **{one.test: f"test {one.label}" for one in SCORES.values()},
    "test_miou_multiscale": "test mIoU multi-scale",
    "val_mean_accuracy": "val mean accuracy",
    "test_mean_accuracy": "test mean accuracy",
}
"""Fields that are shares in [0, 1], the larger the better, as people call them."""


def is_share(field: str) -> bool:
    """Whether a field of records is a share, which is shown in percent."""
    return field in CALLED


def fields_of(score: Score) -> tuple[str, ...]:
    """The shares that trials of a task have, its score first; accuracy is one of every task."""
    first = (score.val, score.test, *score.variants)
    return tuple(dict.fromkeys((*first, "val_accuracy", "test_accuracy", *score.others)))


def score_of(settings: Mapping[str, object]) -> Score:
    """The score of a trial.

    Args:
        settings: By dotted path.
    """
    return SCORES[str(settings.get(TASK, "classify"))]
