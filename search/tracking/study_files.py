"""A study's report and tables as files of its own run in MLflow."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from search.tracking.experiment import Mirrored
from search.tracking.mlflow_internals import upload
from search.tracking.secrets import hide
from tcpa_core.errors import StudyError
from tcpa_core.record import mirror_schema as mirror

MOST_BYTES = 100 << 20
"""Larger files stay in the study's folder alone."""
PATTERNS = ("report/report.html", "report/*.yaml", "tables/*")


def keep_files(
    client: MlflowClient, uri: str, run: Run, study: Path, warn: Callable[[str], None]
) -> int:
    """Upload report.html and the tables, unless the run holds them as they are.

    Args:
        run: The study's own run, as it is now.
        study: Folder of the study.
        warn: Called with a line that names files too large to be uploaded.

    Returns:
        The number of files that were uploaded.
    """
    found = list(report_files(study))
    kept = [path for path in found if path.stat().st_size <= MOST_BYTES]
    digest = _digest(study, kept)
    if not kept or run.data.tags.get(mirror.HELD_FILES) == digest:
        return 0
    for folder in sorted({path.parent for path in kept}):
        inside = f"{run.info.artifact_uri.rstrip('/')}/{folder.relative_to(study).as_posix()}"
        upload([path for path in kept if path.parent == folder], inside, uri)
    client.set_tag(run.info.run_id, mirror.HELD_FILES, digest)
    if len(kept) < len(found):
        names = ", ".join(path.name for path in found if path not in kept)
        warn(f"MLflow gets no copy of {names}: above {MOST_BYTES >> 20} MB.")
    return len(kept)


def keep_files_of(study: Path, uri: str, warn: Callable[[str], None]) -> int:
    """The same for the study in a folder, as far as a tracker has it.

    Raises:
        StudyError: The tracker fails.
    """
    client = MlflowClient(tracking_uri=uri)
    mine = f"tags.`{mirror.STUDY_ID}` = '{Mirrored.of(study).id}'"
    try:
        experiments = client.search_experiments(filter_string=mine, max_results=1)
        own = f"{mine} and tags.`{mirror.KIND}` = '{mirror.OF_STUDY}'"
        ids = [one.experiment_id for one in experiments]
        found = client.search_runs(ids, own, max_results=1) if ids else []
        return keep_files(client, uri, found[0], study, warn) if found else 0
    except MlflowException as err:
        raise StudyError(f"{hide(str(err), uri).splitlines()[0][:200]};") from err


def report_files(study: Path) -> Iterator[Path]:
    """What `tcpa report` has made, in a fixed order; nothing before it was run."""
    for pattern in PATTERNS:
        yield from sorted(path for path in study.glob(pattern) if path.is_file())


def _digest(study: Path, found: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in found:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(study).as_posix()} {content}\n".encode())
    return whole.hexdigest()[:32]
