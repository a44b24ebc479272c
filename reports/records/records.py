"""All that a study recorded, whether it was read from its journal or from MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from reports.records.course import Course
from reports.records.study import Study
from tcpa_core.record.state import TrialState


@dataclass(frozen=True, slots=True)
class Records:
    """All that a study recorded."""

    study: Study
    trials: Mapping[str, TrialState]
    """By name, in the order planned; epochs are not among their values."""
    epochs: pa.Table
    """Columns of EPOCH_SCHEMA, by trial in the order planned, then by epoch."""
    notes: Sequence[str] = ()
    """Sentences on what was read but not used, for every report."""
    course: Course | None = None
    """How the study went; None: not recorded there."""
    folder: Path | None = None
    """Of the study, for what lies beside its journal; None: read from MLflow."""

    @classmethod
    def of(
        cls,
        study: Study,
        trials: Mapping[str, TrialState],
        epochs: pa.Table,
        num_replaced: int,
        course: Course | None = None,
    ) -> "Records":
        """What was read, with notes on epochs that were reported again and on missing scores.

        A trial with an epoch but neither a start nor an end becomes running: the line of its start
        is lost.

        Args:
            num_replaced: Epochs of which a later report counts.
        """
        # the fold of events does not see epochs, see `reports.records.epochs`
        for name in pc.unique(epochs["trial"]).to_pylist():
            if trials[name].status == "planned":
                trials[name].status = "running"
        note = f"{num_replaced} epochs were trained again after a resume; the later report counts."
        no_score = [
            f"trial {name} has no score on the test split: {one.tested.reason}"
            for name, one in trials.items()
            if one.tested and one.tested.reason
        ]
        return cls(study, trials, epochs, [*([note] if num_replaced else []), *no_score], course)
