"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with golden vectors and real image packs; absent in a user's checkout."""
    folder = Path(os.environ.get("TCPA_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(
            f"no folder {folder.name!r} beside the repository: golden vectors and packs absent"
        )
    return folder
