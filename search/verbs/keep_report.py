"""The report of a study among the files of its run in MLflow, once it is made."""

from pathlib import Path

from rich.console import Console

from search.study.address import database_of
from search.study.folder import StudyDir
from tcpa_core.errors import StudyError


def keep_report(study: StudyDir, root: Path, console: Console) -> None:
    """Upload report.html and the tables where MLflow has the study; say so, or why it failed.

    A study that runs is left to its driver, which uploads them at its end.
    """
    has_tracker = study.document()["tracking_uri"] or database_of(root).is_file()
    if not has_tracker or study.driver() is not None:
        return
    # MLflow takes seconds to load: only where it has a study.
    from search.tracking.mirror import check_tracker, tracking_of
    from search.tracking.study_files import keep_files_of

    uri, _ = tracking_of(study, root, None)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    try:
        check_tracker(uri)
        number = keep_files_of(study.path, uri, say)
    except StudyError as err:
        say(f"The report is not in MLflow yet ({err}) 'tcpa sync {study.name}' puts it there.")
    else:
        if number:
            say(f"MLflow has the report and its tables, {number} files of the study's run.")
