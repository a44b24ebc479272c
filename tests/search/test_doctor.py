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
from tcpa_core.record.values import Device

GPU = Device(host="a", id="0", name="H200", memory_bytes=140 * 2**30, free_bytes=130 * 2**30)


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Run all checks without starting Ray; returns exit code and text."""

    @contextmanager
    def cluster(address: str | None, num_cpus: int, source: str) -> Any:
        if address:
            raise StudyError(f"--address: no Ray cluster at {address}")
        yield

    monkeypatch.setattr(doctor, "connect", cluster)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    monkeypatch.setattr(doctor, "prove_gpus", lambda *_: ([GPU], [], 0))
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
                 "of which torch can use 1; a 0: H200, 130 of 140 GiB free",
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


@pytest.mark.parametrize(
    ("device", "proofs", "mark", "says"),
    [
        ("auto", ([], ["GPU 0 of a: it is full"], 0), "WARNS", "can use 0; refused are GPU 0 of a"),
        ("cuda", ([], ["GPU 0 of a: it is full"], 0), "FAILS", "can use 0; refused are GPU 0 of a"),
        ("cuda", ([GPU], ["GPU 1 of a: it is full"], 0), "WARNS", "can use 1; a 0: H200"),
        ("auto", ([], [], 1), "ok", "can use 0 (1 gave no answer"),
        ("cuda", ([], [], 1), "FAILS", "can use 0 (1 gave no answer"),
    ],
)
def test_gpus_that_torch_cannot_use_are_told(
    examine: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    proofs: Any,
    mark: str,
    says: str,
) -> None:
    monkeypatch.setattr(doctor, "prove_gpus", lambda *_: proofs)
    code, text = examine(device=device)
    (line,) = (line for line in text.splitlines() if "Ray" in line)
    assert mark in line and says in line
    assert code == int(mark == "FAILS")


def test_processors_are_all_that_a_user_wants(
    examine: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "prove_gpus", lambda *_: pytest.fail("a GPU was touched"))
    assert examine(device="cpu")[0] == 0
