"""Whose turn it is, and what becomes of an epoch that failed; nothing is trained here."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tcpa_core.training.divergence import divergence
from tcpa_core.training.groups import Group, Job, Turns
from tcpa_core.training.member import Member, Selected
from tcpa_core.training.recovery import GiveUp, TryAgain, recover
from tests.tcpa_core.tiny import trial


def job(name: str, epoch: int = 0, *, until: int = 5, alone: bool = False) -> Job:
    member = Member(trial=name, config=trial(["linear"]), state={}, epoch=epoch)
    return Job(member, until_epoch=until, test_at_end=False, alone=alone)


def group(*jobs: Job, limit: int | None = None, images: int = 40) -> Group:
    pack: Any = SimpleNamespace(
        step=SimpleNamespace(parts=1), data=SimpleNamespace(train=range(images))
    )
    return Group(pack, {each.member.trial: each for each in jobs}, limit)


def names(turn: tuple[Group, Sequence[Job]] | None) -> list[str] | None:
    return None if turn is None else [each.member.trial for each in turn[1]]


class TestTurns:
    def test_groups_take_turns(self) -> None:
        turns, groups = Turns(), [group(job("a"), job("b")), group(job("c")), group(job("d"))]
        found = [names(turns.next(groups)) for _ in range(6)]
        assert found == [["c"], ["d"], ["a", "b"]] * 2

    def test_nobody_who_has_to_wait_trains(self) -> None:
        waiting = group(job("a", epoch=3, until=3), job("b", epoch=100, until=200))
        assert Turns().next([waiting]) is None
        assert names(Turns().next([waiting, group(job("c"))])) == ["c"]

    def test_a_limit_takes_those_that_are_least_far(self) -> None:
        held = group(job("a", epoch=2), job("b", epoch=1), job("c", epoch=1), limit=2)
        assert names(Turns().next([held])) == ["b", "c"]
        turns = Turns()
        turns.together = 1
        assert names(turns.next([held])) == ["b"]
        turns.together = 3
        assert names(turns.next([held])) == ["b", "c"], "the smaller of the two limits"

    def test_a_suspect_comes_first_and_by_itself(self) -> None:
        turns, groups = Turns(), [group(job("a")), group(job("b"), job("c", alone=True))]
        assert names(turns.next(groups)) == ["c"]
        groups[1].jobs["c"].alone = False
        assert names(turns.next(groups)) == ["b", "c"], "which was nobody's turn"


SHORT = RuntimeError("DefaultCPUAllocator: can't allocate memory")


class TestRecovery:
    def test_half_as_many_are_trained_together(self) -> None:
        held = group(*map(job, "abcde"))
        found = recover(held, list(held.jobs.values()), SHORT, "cpu on here")
        assert isinstance(found, TryAgain) and held.limit == 2
        assert found.notice == (
            "5 trials do not fit into the memory of cpu on here together; they are now trained "
            "at most 2 at a time"
        )

    def test_other_faults_are_narrowed_down_in_silence(self) -> None:
        held = group(*map(job, "ab"))
        fault = ZeroDivisionError("of b")
        assert recover(held, list(held.jobs.values()), fault, "cpu") == TryAgain(None)
        assert held.limit == 1
        (last,) = list(held.jobs.values())[1:]
        assert recover(held, [last], fault, "cpu") == GiveUp("ZeroDivisionError: of b")

    def test_a_batch_is_cut_until_a_part_is_one_image(self, monkeypatch: Any) -> None:
        monkeypatch.setattr("tcpa_core.training.recovery.largest_batch", lambda pack, config: 0)
        held = group(job("a"), images=6)
        jobs, parts = list(held.jobs.values()), []
        while isinstance(found := recover(held, jobs, SHORT, "cpu"), TryAgain):
            parts.append(held.pack.step.parts)
        assert parts == [2, 4, 6]
        assert found.reason.startswith("OutOfMemoryError: one step does not fit")
        assert "not even one image fits: lower backbone.img_size" in found.reason


@pytest.mark.parametrize(
    ("losses", "val_loss", "says"),
    [
        ([1.0, 2.0], 1.5, None),
        ([1.0, float("nan")], 1.5, "train_loss is nan at epoch 3, step 12 "),
        ([float("inf"), 1.0], 1.5, "train_loss is inf at epoch 3, step 11 "),
        ([1.0, 2.0], float("inf"), "val_loss is inf and the mean train_loss 1.5 after epoch 3"),
        ([3e38, 3e38], 1.0, "the mean train_loss inf after epoch 3"),
    ],
)
def test_what_counts_as_diverged(losses: list[float], val_loss: float, says: str | None) -> None:
    member = Member(trial="t", config=trial(["linear"]), state={}, epoch=2, step=10)
    found = divergence(member, torch.tensor(losses)[:, None].expand(-1, 3), val_loss)
    assert (found is None) == (says is None)
    if found and says:
        assert says in found.reason
        assert ("last finite value 1.000 at step 11" in found.reason) == ("step 12" in says)


def test_an_epoch_makes_a_new_member_and_leaves_the_old_one() -> None:
    first = Member(trial="t", config=trial(["linear"]), state={})
    report: Any = SimpleNamespace(duration_s=2.0)
    members = [first]
    for epoch, accuracy in enumerate([0.5, 0.4, 0.6], start=1):
        outcome = Selected(epoch, accuracy, 1.0, None, {})
        members.append(members[-1].trained(outcome, {}, 7, report))
    assert [m.epoch for m in members] == [0, 1, 2, 3]
    assert [m.step for m in members] == [0, 7, 14, 21]
    assert [m.stale_epochs for m in members] == [0, 0, 1, 0]
    assert [m.selected and m.selected.epoch for m in members] == [None, 1, 1, 3]
    assert [len(m.reports) for m in members] == [0, 1, 2, 3]
    assert members[-1].duration_s == 6.0
    again = members[-1].restarted({})
    assert (again.stage_epoch, again.stage_step, again.peak) == (3, 21, None)
    worse = again.trained(Selected(4, 0.1, 1.0, None, {}), {}, 7, report)
    assert worse.selected is not None and worse.selected.epoch == 4, "of the stage that counts"
