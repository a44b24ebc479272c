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
    "segment": Score("miou", "mIoU"),
}
"""By name of the task."""


def score_of(settings: Mapping[str, object]) -> Score:
    """The score of a trial.

    Args:
        settings: By dotted path.
    """
    return SCORES[str(settings.get(TASK, "classify"))]
