"""tcpa sync."""

from rich.console import Console

from search.options import DEFAULT_ROOT, Root, Study, Uri


def command(study: Study, root: Root = DEFAULT_ROOT, tracking_uri: Uri = None) -> None:
    """Write to MLflow whatever it lacks of a study's journal."""
    from search.study.folder import StudyDir
    from search.verbs.sync import sync_study

    sync_study(StudyDir.open(root, study), root, tracking_uri, Console())
