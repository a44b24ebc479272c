"""Studies on GPUs that Ray counts, some of which torch cannot use. The training is a stub."""

import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from search.study.folder import StudyDir
from search.workers.gpu_proofs import prove_gpus
from search.workers.sizing import Sizing
from tcpa_core.errors import DeviceError, StoppedError
from tcpa_core.record.events import event_of
from tcpa_core.record.state import StudyState
from tcpa_core.record.values import Device
from tests.journals import recorded
from tests.search.conftest import ROOT, make_space, run_stubs
from tests.search.dispatchers import PARAMS, Client, get
from tests.search.stub import StubWorker

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("two_gpus")]

MakeStudy = Callable[..., StudyDir]
MakeClient = Callable[..., Client]
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
    told = of_kind(study, "started", "hardware")
    assert {(one["host"], one["id"], one["name"]) for one in told} == {
        (platform.node(), "1", "stub")
    }
    assert all(one["memory_bytes"] == 2**30 for one in told)
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
    assert set(of_kind(study, "started", "device")) == {"cpu"}
    assert set(of_kind(study, "started", "worker")) <= {0, 1}


def test_where_nothing_can_be_used_there_is_one_error(make_study: MakeStudy) -> None:
    study = make_study(make_space(), refuses={"0": FULL, "1": SICK, "cpu": "it has no memory"})
    with pytest.raises(StoppedError, match=r"No device is left .*it has no memory.* resume stubs"):
        run(study)


def test_a_gpu_that_workers_share_is_refused_once(make_study: MakeStudy) -> None:
    study = make_study(make_space(), epoch_s=0.2, refuses={"0": FULL})  # while others train
    assert run(study, gpus_per_worker=0.5).counts == {"completed": 12}
    assert set(of_kind(study, "started", "device")) == {"cuda"}
    (text,) = of_kind(study, "notice", "text")
    assert text.endswith(FULL)


def test_a_resumed_study_says_that_its_trials_run_elsewhere_now(make_study: MakeStudy) -> None:
    study = make_study(make_space(budget={"trials": 3}))
    run(study, device="cpu")
    for device, says in (("auto", "run on GPUs, in bfloat16"), ("cpu", "processors, in float32")):
        study.extend(2)
        run(study, device=device)
        assert says in of_kind(study, "notice", "text")[-1]
        assert of_kind(study, "started", "device")[-1] == {"auto": "cuda"}.get(device, device)


def test_trials_move_from_processors_to_a_gpu_and_lose_nothing(client: MakeClient) -> None:
    client, trials = client(slots=2), ("00000", "00001")
    for trial in trials:
        assert get(client.advance(trial, 1))["epoch"] == 1
    client.actor.add_workers.remote(1, 1.0)
    while not client.kinds()["notice"]:
        time.sleep(0.05)
    for trial in trials:
        assert get(client.advance(trial, 4))["done"]
        assert client.epochs(trial) == [1, 2, 3, 4]
    (text,) = (event["text"] for event in client.events if event["kind"] == "notice")
    assert text.startswith("worker 0 has ended (its trials move to GPUs); trials 00000, 00001 go")
    started = [event for event in client.events if event["kind"] == "started"]
    assert [event["device"] for event in started] == ["cpu", "cpu", "cuda", "cuda"]
    assert [event["epoch"] for event in started] == [0, 0, 1, 1]


def test_each_model_of_gpu_holds_as_many_trials_as_pay_on_it(client: MakeClient) -> None:
    models = {"0": {"1": 100.0, "2": 160.0, "4": 240.0}, "1": {"1": 100.0}}
    client = client(count=0, slots=8, models=models)
    client.actor.add_workers.remote(2, 1.0)
    sizing = Sizing(trials=[PARAMS], share=1.0, most=8)
    assert get(client.actor.measure.remote(sizing))
    extra = 0
    while extra != (4 - 8) + (2 - 8):  # until both have proved themselves and were measured
        extra = get(client.actor.extra.remote(extra))
    get(client.actor.allow.remote(3))
    ends = [client.advance(f"{number:05d}", 1) for number in range(10)]
    while client.kinds()["started"] < 6:
        time.sleep(0.05)
    started = [event for event in client.events if event["kind"] == "started"]
    get([ends[int(event["trial"])] for event in started])  # calls may overtake each other
    client.read()
    started = [event for event in client.events if event["kind"] == "started"]
    held = Counter(event["hardware"]["id"] for event in started)
    assert held == {"0": 4, "1": 2}
    # of the four and the two, as against three on each
    assert get(client.actor.extra.remote(1)) == 0


def test_slices_of_a_gpu_are_counted_and_given_out() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.search.slices"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "MIG-aa,MIG-bb"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1:] == ["2.0 ['MIG-aa', 'MIG-bb']"], done.stderr


def test_gpus_prove_themselves_without_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    found, refused, silent = prove_gpus(2, "tests.search.stub:make_worker")
    assert {gpu.id for gpu in found} == {"0", "1"} and not refused and not silent
    found, refused, silent = prove_gpus(2, "tests.search.test_gpus:make_sick_worker")
    assert not found and not silent
    assert {text.rpartition(": ")[2] for text in refused} == {SICK}
    assert {text.partition(" of ")[0] for text in refused} == {"GPU 0", "GPU 1"}
    monkeypatch.setattr("search.workers.gpu_proofs.PATIENCE_S", 5.0)
    found, refused, silent = prove_gpus(3, "tests.search.stub:make_worker")
    assert len(found) + silent == 3 and silent >= 1, "there is no third"


class SickWorker(StubWorker):
    """Finds every GPU sick."""

    def prove(self, precisions: Collection[str]) -> Device:
        raise DeviceError(SICK)


def make_sick_worker(study_dir: Path, cache_dir: Path | None, device: str) -> StubWorker:
    """A factory of workers."""
    return SickWorker(study_dir, cache_dir, device)


ECC = "CUDA error: uncorrectable ECC error encountered"


def test_a_sick_gpu_costs_two_workers_and_no_trial(make_study: MakeStudy) -> None:
    study = make_study(make_space(), sick={"1": 99}, epoch_s=0.3)
    assert run(study, slots=4).counts == {"completed": 12}
    lost, aside = of_kind(study, "notice", "text")
    assert re.match(rf"worker \d was lost \(RuntimeError: {ECC}\); trials .* go on elsewhere", lost)
    host = re.escape(platform.node())
    assert re.match(rf"GPU 1 of {host} is set aside: 2 workers .*{ECC}.* again in 15 min", aside)
    assert len(set(of_kind(study, "started", "worker"))) == 1, "the healthy one has trained all"


@pytest.mark.parametrize(
    ("orders", "first", "second"),
    [
        ({"sick": {"1": 2}}, ECC, ECC),
        ({"sick": {"1": 1}, "fails_proof_after": [1, 2]}, ECC, SICK),
        ({"sick": {"1": 2}, "filled": True}, "finds no room", "end the other processes"),
    ],
    ids=["ends", "cannot start", "is filled"],
)
def test_a_gpu_that_was_set_aside_is_tried_again(
    orders: dict[str, Any], first: str, second: str, client: MakeClient
) -> None:
    """It ends workers, trains nothing for a while, and then as any other."""
    client = client(count=2, slots=1, num_gpus=1.0, aside_s=3.0, epoch_s=0.2, **orders)
    reports = [client.advance(f"{number:05d}", 4) for number in range(60)]
    said: list[str] = []
    until = time.monotonic() + 60
    while not any("in use again" in text for text in said):
        assert time.monotonic() < until, said
        time.sleep(0.2)
        client.read()
        said = [event["text"] for event in client.events if event["kind"] == "notice"]
    get(client.actor.halt.remote())
    assert not [report["status"] for report in get(reports) if report.get("status") == "failed"]
    assert len(said) == 3
    assert f"was lost ({first}" in said[0].replace("RuntimeError: ", "").replace("trial 00000 ", "")
    assert second in said[1] and "again in 3 s" in said[1]
    assert said[2] == f"GPU 1 of {platform.node()} is in use again: it has trained an epoch"


def test_with_fewer_workers_than_gpus_another_takes_the_place(make_study: MakeStudy) -> None:
    study = make_study(make_space(budget={"trials": 4}), sick={"0": 99})
    assert run(study, workers=1, slots=1).counts == {"completed": 4}
    assert len(of_kind(study, "notice", "text")) <= 2


def held(study: StudyDir) -> list[float]:
    """GPUs that a study says it holds, as its events tell."""
    return [event["gpus"] for event in recorded(study) if "gpus" in event]


@pytest.mark.parametrize(
    ("placement", "most"),
    [({}, 2.0), ({"workers": 1}, 1.0), ({"workers": 3, "gpus_per_worker": 0.5}, 1.5)],
)
def test_gpu_hours_count_what_the_workers_hold(
    placement: dict[str, Any], most: float, make_study: MakeStudy
) -> None:
    study = make_study(make_space(), epoch_s=0.2)
    assert run(study, **placement).counts == {"completed": 12}
    assert held(study)[-1] == max(held(study)) == most
    told = [event_of(event) for event in recorded(study)]
    spent = StudyState.of(told).spent
    assert 0 < spent.gpu_hours(otherwise=99.0) <= most * spent.hours()


def test_a_gpu_that_is_set_aside_is_held_and_one_that_is_lost_is_not(make_study: MakeStudy) -> None:
    study = make_study(make_space(), sick={"1": 99}, epoch_s=0.3)
    run(study, slots=4)
    assert set(held(study)[1:]) == {1.0, 2.0}, "while its worker is replaced, and after that"


def test_processors_hold_no_gpu(make_study: MakeStudy) -> None:
    study = make_study(make_space())
    run(study, device="cpu", workers=2)
    assert set(held(study)) == {0.0}
