"""What a study says in plain sentences, for trackers and dashboards."""

from pathlib import Path

from reports.frames import frames
from reports.records.journal import load_journal
from reports.verdict import verdict_of


def verdict_text(study: Path) -> str:
    """The verdict on the study in a folder, a sentence a line.

    Raises:
        RecordError: Its journal is damaged.
    """
    return verdict_of(frames(load_journal(study), explain=False)[0]).text
