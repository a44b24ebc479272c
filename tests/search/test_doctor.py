"""What the doctor says of a machine that is ready, and of one that is not."""

import io
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from search.verbs import doctor
from tcpa_core.errors import StudyError


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Run all checks without starting Ray; returns exit code and text."""

    @contextmanager
    def cluster(address: str | None, num_cpus: int) -> Any:
        if address:
            raise StudyError(f"--address: no Ray cluster at {address}")
        yield

    monkeypatch.setattr(doctor, "connect", cluster)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))

    def run(root: Path = tmp_path / "studies", **options: Any) -> tuple[int, str]:
        out = io.StringIO()
        code = doctor.examine(root, Console(file=out, width=400), **options)
        return code, out.getvalue()

    return run


def test_a_machine_that_is_ready(examine: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, text = examine()
    assert code == 0
    assert "FAILS" not in text
    for part in ("torch ", "ray ", "cores", "GB free (not made yet)", "4 CPUs, 1 GPUs",
                 "mlflow.db is made by the first study"):  # fmt: skip
        assert part in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"address": "10.0.0.9:6379"}, "no Ray cluster at 10.0.0.9:6379"),
        ({"tracking_uri": "gopher://x"}, "MLflow does not answer at 'gopher://x'"),
    ],
)
def test_what_does_not_answer_is_named(
    examine: Callable[..., tuple[int, str]], options: dict[str, str], says: str
) -> None:
    code, text = examine(**options)
    assert code == 1
    assert text.count("FAILS") == 1
    assert says in text


def test_a_full_disk_and_a_torn_database_fail(
    examine: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1.2e9))
    code, text = examine(root=tmp_path)
    assert code == 1
    assert text.count("FAILS") == 3
    assert "1.2 GB free, less than 5" in text
    assert "MLflow does not answer" in text
