"""A device that is short of memory, or fails: who is blamed for it, and what is let go first.

There is no GPU here: what torch says of one is made up, and its tensors are on the processor.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tcpa_core.errors import DeviceError, MethodError
from tcpa_core.record.events import Event
from tcpa_core.training import warm_packs
from tcpa_core.training.commands import Submit
from tcpa_core.training.faults import describe, is_device_fault
from tcpa_core.training.memory import free_bytes, is_out_of_memory, release_cached
from tcpa_core.training.pack import Pack
from tcpa_core.training.worker import Worker

DEVICE = torch.device("cuda:0")
GIB = 2**30
SHORT = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
SICK = torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")
WRONG = RuntimeError("mat1 and mat2 shapes cannot be multiplied\n(2x3 and 4x5)")
VPT = {"methods": ["vpt"], "vpt.num_prompts": 2, "train.epochs": 1, "train.batch_size": 64}
LINEAR = {"methods": ["linear"], "train.epochs": 1}


class Gpu:
    """What torch's functions say of a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.total = 70 * GIB, 80 * GIB
        self.reserved, self.allocated = 10 * GIB, 4 * GIB
        self.emptied = 0
        for name, value in {
            "mem_get_info": lambda _: (self.free, self.total),
            "memory_reserved": lambda _: self.reserved,
            "memory_allocated": lambda _: self.allocated,
            "empty_cache": self._empty,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def _empty(self) -> None:
        self.emptied += 1
        self.free += self.reserved - self.allocated
        self.reserved = self.allocated


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


@pytest.fixture
def worker(tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """One that takes its device for a GPU; its tensors are on the processor."""
    monkeypatch.setattr(warm_packs, "release_cached", lambda _: release_cached(DEVICE))
    made = Worker(tmp_path, tmp_path / "cache", "cpu")
    made._device = "cuda:0"
    return made


def submit(worker: Worker, trial: str, params: Any = VPT, epochs: int = 1) -> list[Event]:
    worker.take(Submit(trial=trial, params={**params, "seed": 0}, until_epoch=epochs))
    return drain(worker)


def drain(worker: Worker) -> list[Event]:
    events: list[Event] = []
    while not worker.idle:
        events += worker.work()
    return events


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def failing(times: int, err: Exception, real: Callable[..., Any]) -> Callable[..., Any]:
    """A function that raises a few times before it does what it should."""
    left = [times]

    def call(*args: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise err
        return real(*args, **options)

    return call


PLACES = [
    (warm_packs, "load_backbone"),
    (warm_packs, "load_trial_data"),
    (Pack, "new_member"),
]
"""Where a trial that begins allocates; a method's `fit` is called by the last."""


@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[name for _, name in PLACES])
class TestBeginning:
    def test_idle_packs_go_first_and_then_it_is_tried_again(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
    ) -> None:
        assert kinds(submit(worker, "a", LINEAR)) == ["started", "epoch", "completed"]
        (idle,) = worker._packs.groups
        assert idle.pack._kept._kept, "features are kept"
        monkeypatch.setattr(owner, name, failing(1, SHORT, getattr(owner, name)))
        other = {**VPT, "backbone.img_size": 24}  # nothing is shared with the pack before
        assert kinds(submit(worker, "b", other)) == ["started", "epoch", "completed"]
        assert idle not in worker._packs.groups
        assert list(worker._packs._backbones.values()) == [worker._packs.groups[0].pack.backbone]

    def test_what_does_not_fit_at_all_fails_with_a_sentence(
        self, worker: Worker, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
    ) -> None:
        monkeypatch.setattr(owner, name, failing(99, SHORT, None))
        (failed,) = submit(worker, "a")
        assert kinds([failed]) == ["failed"]
        reason = failed.as_dict()["reason"]
        assert "trial a finds no room in the memory of cuda:0" in reason
        assert "76.0 of 80.0 GiB free; this process holds 4.0, others 0.0" in reason
        assert "lower backbone.img_size" in reason
        assert gpu.emptied == 1, "tried again with what torch keeps given back"

    def test_where_others_fill_the_device_it_is_no_fault_of_the_trial(
        self, worker: Worker, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
    ) -> None:
        monkeypatch.setattr(owner, name, failing(99, SHORT, None))
        gpu.free = GIB
        with pytest.raises(DeviceError, match=r"others 69\.0\); end the other processes"):
            submit(worker, "a")

    def test_a_device_that_has_failed_is_no_fault_of_the_trial(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
    ) -> None:
        monkeypatch.setattr(owner, name, failing(1, SICK, None))
        with pytest.raises(torch.AcceleratorError):
            submit(worker, "a")

    def test_code_that_raises_fails_its_trial_and_no_other(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
    ) -> None:
        monkeypatch.setattr(owner, name, failing(1, WRONG, getattr(owner, name)))
        (failed,) = submit(worker, "a")
        assert kinds([failed]) == ["failed"]
        reason = failed.as_dict()["reason"]
        assert reason.startswith(
            "trial a of vpt cannot begin: RuntimeError: mat1 and mat2 shapes cannot be "
            "multiplied (2x3 and 4x5) (test_short_of_memory.py, line "
        )
        assert kinds(submit(worker, "b")) == ["started", "epoch", "completed"]


class TestEpochs:
    def test_idle_packs_go_before_a_pack_is_made_smaller(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        submit(worker, "a", LINEAR)
        sizes: list[int] = []
        whole = failing(1, SHORT, Pack.run_epoch)

        def run_epoch(pack: Pack, members: Any) -> Any:
            sizes.append(len(members))
            return whole(pack, members)

        monkeypatch.setattr(Pack, "run_epoch", run_epoch)
        for trial in "bc":
            worker.take(Submit(trial=trial, params=VPT, until_epoch=1))
        events = drain(worker)
        assert sizes == [2, 2], "tried again as it was"
        assert kinds(events).count("completed") == 2 and "notice" not in kinds(events)
        assert len(worker._packs.groups) == 1

    def test_a_pack_that_waits_keeps_its_trials_and_nothing_else(self, worker: Worker) -> None:
        events = submit(worker, "a", {**LINEAR, "train.epochs": 2})
        assert kinds(events) == ["started", "epoch"], "it may train no further"
        (group,) = worker._packs.groups
        assert worker._packs.make_room() and list(group.jobs) == ["a"]
        assert not group.pack._kept._kept and group.pack._stacks is None
        worker._packs.make_room()
        assert not worker._packs.make_room(), "nothing is left to go"

    def test_code_that_raises_in_a_step_fails_its_trial(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Pack, "run_epoch", failing(1, WRONG, Pack.run_epoch))
        assert kinds(submit(worker, "a")) == ["started", "failed"]
        assert kinds(submit(worker, "b")) == ["started", "epoch", "completed"]

    def test_a_device_that_has_failed_ends_the_worker(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Pack, "run_epoch", failing(1, SICK, None))
        with pytest.raises(torch.AcceleratorError):
            submit(worker, "a")

    def test_a_step_for_which_others_leave_no_room_is_no_fault_of_the_trial(
        self, worker: Worker, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Pack, "run_epoch", failing(99, SHORT, None))
        monkeypatch.setattr("tcpa_core.training.recovery.largest_batch", lambda *_: 0)
        gpu.free = GIB
        with pytest.raises(DeviceError, match="one step does not fit"):
            submit(worker, "a")
        gpu.free = 70 * GIB
        assert kinds(drain(worker)) == ["failed"]


class TestProbes:
    def test_code_that_raises_is_told_before_any_trial(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Pack, "trial_step", failing(1, WRONG, None))
        with pytest.raises(MethodError, match="vpt cannot begin: RuntimeError: mat1 and mat2"):
            worker.probe([{**VPT, "train.batch_size": 4}], 1.0)

    def test_a_step_that_does_not_fit_is_left_to_the_trials(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Pack, "trial_step", failing(99, SHORT, None))
        assert worker.probe([VPT], 1.0) == [{}]


@pytest.mark.parametrize(
    ("err", "is_short", "is_sick"),
    [
        (SHORT, True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublas"), True, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True, False),
        (torch.AcceleratorError("CUDA error: out of memory"), True, False),
        (SICK, False, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED in cublas"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (WRONG, False, False),
        (ValueError("memory"), False, False),
    ],
)
def test_what_an_error_says_of_the_device(err: Exception, is_short: bool, is_sick: bool) -> None:
    assert (is_out_of_memory(err), is_device_fault(err)) == (is_short, is_sick)


def test_what_torch_keeps_to_use_again_counts_as_free(gpu: Gpu) -> None:
    assert free_bytes(DEVICE) == 76 * GIB


def test_an_error_is_told_with_the_line_outside_of_torch() -> None:
    with pytest.raises(RuntimeError) as met:
        torch.ones(2, 3) @ torch.ones(4, 5)
    assert "\n" not in describe(met.value)
    assert describe(met.value).endswith("in test_an_error_is_told_with_the_line_outside_of_torch)")


def test_the_peak_of_a_trial_is_that_of_its_epochs(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what a probe nor what a neighbour took before, nor the process as a whole."""
    peaks = iter([7, 9, 8, 5, 6])
    log: list[str] = []
    monkeypatch.setattr("tcpa_core.training.pack.reset_peak", lambda _: log.append("reset"))
    monkeypatch.setattr("tcpa_core.training.pack.peak_bytes", lambda _: next(peaks))
    first = submit(worker, "a", {**VPT, "train.epochs": 3}, epochs=3)
    second = submit(worker, "b", {**VPT, "train.epochs": 2}, epochs=2)
    found = [events[-1].as_dict()["peak_memory_bytes"] for events in (first, second)]
    assert found == [9, 6] and log == ["reset"] * 5
