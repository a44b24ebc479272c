"""Scripts that the project prints, read by bash and by ShellCheck."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def check_shell(script: str) -> None:
    """Bash reads it, and ShellCheck, where it is installed, has nothing to say of it."""
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    linter = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if linter:
        done = subprocess.run([linter, "-"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
