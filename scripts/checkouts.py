"""Another revision of this project in a folder of its own, to be run beside this one."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A checkout of a revision, for as long as the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkout"
        subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(place), revision],
            cwd=ROOT,
            check=True,
        )
        try:
            yield place
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(place)], cwd=ROOT)
