"""Event files for TensorBoard, made from a study's journal."""

from pathlib import Path
from shlex import quote

from rich.console import Console

from search.study.folder import StudyDir
from search.tracking.tensorboard import write_event_files


def write_events(study: StudyDir, out: Path, console: Console) -> None:
    """Write the event files of a study, also while it runs, and say how to look at them.

    Raises:
        RecordError, ConfigError: The study is damaged.
        StorageError: The folder cannot be written.
    """
    number = write_event_files(study, out)
    console.print(
        f"Event files of {number} trials of {study.name}: tensorboard --logdir {quote(str(out))}",
        markup=False,
        soft_wrap=True,
    )
