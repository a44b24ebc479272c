"""With what a study is run: installed versions and the state of the code."""

import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("tcpa-search", "torch", "timm", "torchvision", "ray", "optuna", "mlflow", "numpy")


def versions() -> dict[str, str]:
    """Installed versions of this package and of those that change results or records."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> str:
    """Commit of the code that runs, with "+" when it was changed; "" outside a checkout."""
    command: Sequence[str] = ("git", "describe", "--always", "--dirty=+", "--abbrev=12")
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
