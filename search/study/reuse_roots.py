"""Folders of `--reuse`, as commands give and studies record them."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from search.study.address import local_folder
from tcpa_core.errors import StudyError

Given = Sequence[str] | Literal[False] | None
"""Folders in which earlier studies lie beside those of a study's own root, as `--reuse` gives them;
False: nothing is taken from any; None: as study.yaml has it."""


def reuse_roots(given: Iterable[Path]) -> list[str]:
    """Folders of `--reuse` as study.yaml records them.

    Raises:
        StudyError: One does not exist.
    """
    roots = [local_folder(root) for root in given]
    for root in roots:
        if not os.path.isdir(root):
            raise StudyError(f"--reuse: {root} is no folder; give one that holds studies.")
    return [str(root.resolve()) for root in roots]
