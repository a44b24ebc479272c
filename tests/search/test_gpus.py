"""Studies on GPUs that Ray counts, some of which torch cannot use. The training is a stub."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from search.study.folder import StudyDir
from tcpa_core.errors import StoppedError
from tests.journals import recorded
from tests.search.conftest import ROOT, make_space, run_stubs

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("two_gpus")]

MakeStudy = Callable[..., StudyDir]
FULL, SICK = "it is full", "it fails a first product"


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    """A local cluster that counts two GPUs; there is none."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    ray.init(
        address="local",
        num_cpus=6,
        num_gpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


def run(study: StudyDir, **placement: Any) -> Any:
    return run_stubs(study.space(), study, workers=placement.pop("workers", None), **placement)


def of_kind(study: StudyDir, kind: str, key: str) -> list[Any]:
    return [event[key] for event in recorded(study) if event["kind"] == kind]


def test_a_study_goes_on_with_the_gpu_that_is_left(make_study: MakeStudy) -> None:
    study = make_study(make_space(), refuses={"0": FULL})
    assert run(study).counts == {"completed": 12}
    assert set(of_kind(study, "started", "device")) == {"cuda"}
    assert len(set(of_kind(study, "started", "worker"))) == 1
    (text,) = of_kind(study, "notice", "text")
    assert text.startswith("GPU 0 of ") and text.endswith(f" is not used: {FULL}")


def test_where_no_gpu_is_left_processors_take_over(make_study: MakeStudy) -> None:
    study = make_study(make_space(), refuses={"0": FULL, "1": SICK})
    assert run(study).counts == {"completed": 12}
    assert set(of_kind(study, "started", "device")) == {"cpu"}
    *refused, moved = of_kind(study, "notice", "text")
    assert sorted(text.rpartition(": ")[2] for text in refused) == [SICK, FULL]
    assert "trials run on processors" in moved


def test_a_user_who_wants_gpus_gets_one_error_and_loses_nothing(make_study: MakeStudy) -> None:
    study = make_study(make_space(), refuses={"0": FULL, "1": SICK})
    with pytest.raises(StoppedError, match=rf"--device cuda: .*{FULL}.* --device cpu") as raised:
        run(study, device="cuda")
    assert SICK in str(raised.value)
    assert not of_kind(study, "planned", "trial")
    assert run(study, device="cpu").counts == {"completed": 12}
    assert set(of_kind(study, "started", "device")) == {"cpu"}


def test_gpus_are_left_alone_where_the_user_wants_processors(make_study: MakeStudy) -> None:
    study = make_study(make_space(), refuses={"0": FULL, "1": SICK})
    assert run(study, device="cpu", workers=2).counts == {"completed": 12}
    assert not of_kind(study, "notice", "text")
    assert len(set(of_kind(study, "started", "worker"))) == 2


def test_where_nothing_can_be_used_there_is_one_error(make_study: MakeStudy) -> None:
    study = make_study(make_space(), refuses={"0": FULL, "1": SICK, "cpu": "it has no memory"})
    with pytest.raises(StoppedError, match=r"No device is left .*it has no memory.* resume stubs"):
        run(study)


def test_a_gpu_that_workers_share_is_refused_once(make_study: MakeStudy) -> None:
    study = make_study(make_space(), refuses={"0": FULL})
    assert run(study, gpus_per_worker=0.5).counts == {"completed": 12}
    assert set(of_kind(study, "started", "device")) == {"cuda"}
    (text,) = of_kind(study, "notice", "text")
    assert text.endswith(FULL)
