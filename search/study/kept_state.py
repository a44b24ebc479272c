"""Trained states of trials of earlier studies, kept with a study that reuses them."""

import os
import shutil
import uuid
from pathlib import Path

from search.study.earlier import Found
from search.study.folder import StudyDir
from search.study.storage import Storage
from tcpa_core.errors import StorageError
from tcpa_core.record import files

STATE = (files.BEST, files.LAST)


def keep_state(found: Found, study: StudyDir, trial: str) -> str:
    """Give a trial the trained state that it has in an earlier study.

    Returns:
        "linked": it takes no room, and stays where the earlier study is deleted; "copied", where
        the file system has no links; "absent", where there is none.

    Raises:
        StorageError: It cannot be written.
    """
    ways = [_keep(found.folder / name, study, trial) for name in STATE]
    known = [way for way in ways if way]
    return "absent" if not known else "copied" if "copied" in known else "linked"


def keep_files(found: Found, study: StudyDir, trial: str) -> None:
    """Give it what is kept beside that since the test split was read for it.

    Raises:
        StorageError: It cannot be written.
    """
    for path in sorted(found.folder.glob("*.safetensors")):
        if path.name not in STATE:
            _keep(path, study, trial)


def _keep(source: Path, study: StudyDir, trial: str) -> str:
    """Link or copy a file; "": there is none."""
    if source.is_symlink() or not source.is_file():
        return ""
    target = study.path / files.CHECKPOINTS / trial / source.name
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    way = "linked"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, draft)  # checkpoints are replaced, never written into
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, draft)
            way = "copied"
        draft.replace(target)
        draft.unlink(missing_ok=True)  # where both were links to one file, nothing was moved
    except OSError as err:
        raise StorageError.of(target, err) from err
    if study.address:
        Storage(study.address).send(target, f"{files.CHECKPOINTS}/{trial}/{target.name}")
    return way
