"""A study's trials without the comparisons of its own report, for those that make others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd
import pyarrow as pa

from reports.records.course import Course
from reports.records.journal import load_journal
from reports.records.study import Study
from reports.tables import epoch_table, frame_of, trial_table


@dataclass(frozen=True, slots=True)
class StudyTrials:
    """What a study's journal says of its trials."""

    study: Study
    trials: pd.DataFrame
    """As in `trials`."""
    course: Course | None
    epochs: pa.Table
    """As in `epochs`."""

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read a study folder.

        Raises:
            StudyError: No such study folder, or it has no journal.
            RecordError: The journal is damaged.
        """
        records = load_journal(folder)
        trials = frame_of(trial_table(records))
        return cls(records.study, trials, records.course, epoch_table(records))
