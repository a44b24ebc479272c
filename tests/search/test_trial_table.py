"""Which trial runs where, and what follows from a lost worker: no Ray, no process, no waiting."""

import subprocess
import sys
from collections.abc import Iterable

import pytest

from search.workers.failure_attribution import MAX_RESTARTS, WorkerLoss
from search.workers.trial_progress import LAST
from search.workers.trial_table import Order, TrialTable
from tcpa_core.record import events
from tcpa_core.record.events import Ended, Epoch, Event, Notice, Planned, Started
from tcpa_core.record.values import EpochReport, Status, TrialResult
from tcpa_core.training import commands
from tcpa_core.training.commands import Extend, Limit, Stop, Submit

DEATH = WorkerLoss("its worker process has died")


def planned(name: str) -> Planned:
    params = {"optim.lr": 0.01, "seed": 0}
    return Planned(trial=name, params=params, digest="d", point="p", origin="sampler", draw={})


def table_of(workers: int = 1, slots: int = 2, trials: Iterable[str] = ()) -> TrialTable:
    """A table with workers that are ready, and trials that may train 4 epochs."""
    table = TrialTable(["val_accuracy", "duration_s"], slots, test_at_end=False)
    for worker in range(workers):
        table.welcome(worker)
    for name in trials:
        table.advance(planned(name), 4)
    return table


def epoch(name: str, number: int) -> Epoch:
    report = EpochReport(
        epoch=number, train_loss=1.0, ce_loss=1.0, match_loss=0.0, val_loss=1.0,
        val_accuracy=number / 10, lr=0.01, duration_s=2.0, images_per_s=10.0,
    )  # fmt: skip
    return Epoch(trial=name, report=report)


def ended(name: str, status: Status = "completed") -> Ended:
    return Ended(trial=name, result=TrialResult(status=status, num_epochs=4, val_accuracy=0.9))


def placed(orders: Iterable[Order]) -> list[tuple[int, str]]:
    """Worker and trial of every trial that is submitted."""
    return [(o.worker, o.command.trial) for o in orders if isinstance(o.command, Submit)]


def alone(orders: Iterable[Order]) -> list[str]:
    """Trials that are submitted to be trained by themselves first."""
    return [o.command.trial for o in orders if isinstance(o.command, Submit) and o.command.alone]


def test_workers_are_needed_as_long_as_trials_may_come() -> None:
    table = table_of(workers=3, slots=2, trials=("00000", "00001", "00002"))
    assert table.workers_needed is None
    table.expect(4)  # Tune has not let the last one begin
    assert table.workers_needed is None
    table.advance(planned("00003"), 4)
    assert table.workers_needed == 3
    table.take([ended("00001"), ended("00002")])
    assert table.workers_needed == 1, "one worker holds both trials that are left"
    table.take([ended("00000"), ended("00003")])
    assert table.workers_needed == 1, "the selected trial is still to be tested"


def test_trials_that_have_lost_their_worker_need_one_each() -> None:
    table = table_of(workers=1, slots=2, trials=("00000", "00001"))
    table.expect(2)
    table.lose(0, WorkerLoss("its place goes to others", is_wanted=True))
    assert table.workers_needed == 2
    assert placed(table.welcome(1)) == [(1, "00000"), (1, "00001")]


def test_a_worker_that_is_released_gets_no_more_trials() -> None:
    table = table_of(workers=2, slots=1)
    table.forget(1)
    assert not table.is_ready(1)
    assert placed(table.advance(planned("00000"), 4)) == [(0, "00000")]
    assert placed(table.advance(planned("00001"), 4)) == []


def replace_worker(table: TrialTable, lost: int, loss: WorkerLoss = DEATH) -> list[Event]:
    """Lose a worker and start the next in its stead; the events."""
    told, _ = table.lose(lost, loss)
    table.welcome(lost + 1)
    return told


class TestPlacing:
    def test_the_oldest_goes_first_to_the_worker_with_the_most_free_places(self) -> None:
        table = TrialTable([], 2, test_at_end=True)
        for name in "abcde":
            assert table.advance(planned(name), 4) == [], "no worker is ready"
        assert placed(table.welcome(0)) == [(0, "a"), (0, "b")]
        assert placed(table.welcome(1)) == [(1, "c"), (1, "d")]
        table.take([ended("a"), ended("b")])
        orders = table.place()
        assert placed(orders) == [(0, "e")]
        assert orders[0].command == Submit(
            trial="e", params=planned("e").params, until_epoch=4, test_at_end=True
        )
        assert placed(table.advance(planned("f"), 4)) == [(0, "f")]
        table.take([ended("c")])
        assert placed(table.advance(planned("g"), 4)) == [(1, "g")]

    def test_workers_with_equally_many_places_take_turns_by_their_numbers(self) -> None:
        table = table_of(workers=0)
        for worker in (2, 0, 1):
            table.welcome(worker)
        workers = [placed(table.advance(planned(name), 4))[0][0] for name in "abcdef"]
        assert workers == [0, 1, 2, 0, 1, 2]

    def test_more_slots_are_filled_at_once(self) -> None:
        table = table_of(slots=1, trials="abc")
        assert placed(table.allow(3)) == [(0, "b"), (0, "c")]

    def test_a_trial_that_was_stopped_while_it_waited_is_stopped_where_it_goes(self) -> None:
        table = table_of(workers=0, trials="a")
        assert table.stop("a") == []
        submit, stop = table.welcome(0)
        assert placed([submit]) == [(0, "a")]
        assert stop == Order(0, Stop(trial="a"))

    def test_nothing_is_placed_after_a_halt(self) -> None:
        table = table_of(workers=0, trials="a")
        table.halt()
        assert table.welcome(0) == []
        assert table.has_arrived("a"), "nobody waits for it any longer"
        assert table.report("a", 4) == {"done": True, "interrupted": True}


class TestReports:
    def test_a_trial_waits_at_its_epoch_and_goes_on(self) -> None:
        table = table_of()
        table.advance(planned("a"), 1)
        assert not table.has_arrived("a")
        table.take([Started(trial="a", device="cpu"), epoch("a", 1)])
        assert table.has_arrived("a")
        assert table.report("a", 1) == {
            "epoch": 1, "val_accuracy": 0.1, "duration_s": 2.0, "done": False, "interrupted": False,
        }  # fmt: skip
        assert table.advance(planned("a"), 3) == [Order(0, Extend(trial="a", until_epoch=3))]
        assert not table.has_arrived("a")

    def test_the_end_is_told_in_full_once_beside_the_last_epoch(self) -> None:
        table = table_of(trials="a")
        table.take([epoch("a", 4), ended("a")])
        report = table.report("a", 4)
        assert report == {
            "epoch": 4, "status": "completed", "num_epochs": 4, "val_accuracy": 0.9,
            "duration_s": 0.0, f"{LAST}epoch": 4, f"{LAST}val_accuracy": 0.4,
            f"{LAST}duration_s": 2.0, "done": True, "interrupted": False,
        }  # fmt: skip
        assert table.report("a", 4) == {
            "epoch": 4, "status": "completed", "done": True, "interrupted": False
        }  # fmt: skip
        assert table.advance(planned("a"), 4) == []

    def test_a_trial_whose_checkpoint_is_further_on_is_told_as_it_was(self) -> None:
        table = table_of()
        table.advance(planned("a"), 1)
        table.take([epoch("a", n) for n in (1, 2, 3, 4)] + [ended("a")])
        for asked in (1, 3):
            assert table.has_arrived("a")
            report = table.report("a", asked)
            assert (report["epoch"], report["val_accuracy"]) == (asked, asked / 10)
            assert not report["done"] and "status" not in report
            table.advance(planned("a"), asked + 1)
        assert table.report("a", 4)["status"] == "completed"

    def test_a_trial_taken_up_tells_nothing_twice(self) -> None:
        table = table_of(trials="a")
        first = [Started(trial="a", device="cpu"), epoch("a", 1), epoch("a", 2)]
        assert table.take(first) == [Started(trial="a", device="cpu", worker=0), *first[1:]]
        replace_worker(table, 0)
        again = Started(trial="a", device="cpu", epoch=2)
        news = table.take([again, epoch("a", 1), epoch("a", 2), epoch("a", 3)])
        assert news == [Started(trial="a", device="cpu", epoch=2, worker=1), epoch("a", 3)]
        assert table.take([ended("a"), ended("a", "pruned"), epoch("a", 4)]) == [ended("a")]

    def test_a_notice_of_a_worker_is_passed_on(self) -> None:
        notice = Notice(text="two do not fit", trials=["a", "b"])
        assert table_of(trials="ab").take([notice]) == [notice]

    def test_a_trial_is_stopped_once_and_only_before_its_end(self) -> None:
        table = table_of(trials="a")
        assert table.stop("a") == [Order(0, Stop(trial="a"))]
        table.take([ended("a", "pruned")])
        assert table.stop("a") == table.stop("unknown") == []


class TestTests:
    def test_the_first_ready_worker_scores_and_the_first_answer_counts(self) -> None:
        table = table_of(workers=0)
        test = commands.Test(trial="a", params=planned("a").params)
        assert table.test(planned("a")) == []
        assert table.welcome(1) == [Order(1, test)]
        assert table.welcome(0) == [Order(0, test)], "the other may have been lost with it"
        score = events.Tested(trial="a", test_loss=0.5, test_accuracy=0.8)
        assert table.take([score]) == [score]
        assert table.take([score]) == []


class TestLostWorkers:
    def test_trials_of_a_lost_worker_go_on_before_all_others(self) -> None:
        table = table_of(slots=2, trials="abcd")
        (notice,), orders = table.lose(0, DEATH)
        assert notice == Notice(
            text="worker 0 was lost (its worker process has died); trials a, b go on elsewhere "
            "from their last epoch",
            trials=["a", "b"],
        )
        assert orders == []
        assert not table.is_ready(0) and table.held_by(0) == ()
        assert placed(table.welcome(1)) == [(1, "a"), (1, "b")]

    def test_a_worker_without_trials_is_only_told(self) -> None:
        told, orders = table_of().lose(0, DEATH)
        assert told == [Notice(text="worker 0 was lost (its worker process has died)", trials=[])]
        assert orders == []

    def test_a_lost_node_counts_against_nobody(self) -> None:
        table = table_of(slots=1, trials="a")
        for worker in range(3 * MAX_RESTARTS):
            told, _ = table.lose(worker, WorkerLoss("its node has died", with_node=True))
            assert [event.kind for event in told] == ["notice"]
            assert alone(table.welcome(worker + 1)) == []

    def test_suspects_are_trained_alone_and_one_on_each_worker(self) -> None:
        table = table_of(slots=4, trials="ab")
        replace_worker(table, 0)
        table.lose(1, DEATH)
        orders = table.welcome(2)
        assert alone(orders) == ["a"], "b waits for a worker without a suspect"
        assert placed(table.advance(planned("c"), 4)) == [(2, "c")], "others have a place"
        assert alone(table.welcome(3)) == ["b"]

    def test_a_suspect_is_cleared_by_its_next_epoch(self) -> None:
        table = table_of(slots=4, trials="ab")
        replace_worker(table, 0)
        replace_worker(table, 1)
        table.take([epoch("a", 1)])
        orders = table.place()
        assert alone(orders) == ["b"]
        # only the suspect counts, as its epoch came first
        replace_worker(table, 2)
        assert table.take([epoch("b", 1)]) == [epoch("b", 1)]

    def test_a_trial_that_no_worker_survives_fails_alone(self) -> None:
        table = table_of(slots=1, trials="ab")
        for worker in range(MAX_RESTARTS):
            replace_worker(table, worker)
        _, failed = replace_worker(table, MAX_RESTARTS)
        assert isinstance(failed, Ended) and failed.trial == "a" and failed.kind == "failed"
        assert failed.result.reason == (
            "its worker ended 4 times in one epoch: its worker process has died"
        )
        assert table.has_arrived("a") and table.report("a", 4)["status"] == "failed"
        assert table.held_by(MAX_RESTARTS + 1) == {"b"}

    def test_an_epoch_that_hangs_counts_twice_against_its_trials_only(self) -> None:
        table = table_of(slots=2, trials="ab")
        hang = WorkerLoss("hung: 9 s without a step", hung_in=("a",))
        (_,), orders = table.lose(0, hang)
        assert orders == [], "too many together do not hang"
        assert alone(table.welcome(1)) == ["a"]
        _, failed = replace_worker(table, 1, hang)
        assert failed == Ended(
            trial="a", result=TrialResult(status="failed", reason="hung: 9 s without a step")
        )
        assert table.held_by(2) == {"b"}

    def test_fewer_are_trained_together_once_two_workers_died_of_many(self) -> None:
        table = table_of(slots=4, workers=2, trials="abcdefgh")
        held = sorted(table.held_by(0))
        assert table.lose(0, DEATH)[1] == [], "it may have been anything"
        table.welcome(2)
        assert sorted(table.held_by(2)) == held
        told, orders = table.lose(2, DEATH)
        assert [event.kind for event in told] == ["notice", "notice"]
        assert isinstance(told[1], Notice) and told[1].text == (
            "two workers died in the same epoch while training 4 trials together, perhaps out of "
            "memory; at most 2 will be trained together from now on"
        )
        assert orders == [Order(1, Limit(members=2))]
        assert table.welcome(3)[:2] == [Order(n, Limit(members=2)) for n in (1, 3)]

    def test_the_limit_ends_when_one_trial_was_the_cause(self) -> None:
        table = table_of(slots=2, trials="ab")
        replace_worker(table, 0)
        table.lose(1, DEATH)
        assert Order(2, Limit(members=1)) in table.welcome(2)
        table.lose(2, DEATH)
        table.welcome(7), table.welcome(3)
        assert (table.held_by(3), table.held_by(7)) == ({"b"}, {"a"})
        told, orders = table.lose(7, DEATH)
        assert [event.kind for event in told] == ["notice", "failed"]
        assert orders == [Order(3, Limit(members=None))]


def test_a_planned_trial_travels_without_what_can_be_built_again() -> None:
    """To unpickle a configuration loads torch, which the dispatcher does without."""
    code = (
        "import pickle, sys\n"
        "from tcpa_core.config import TrialConfig\n"
        "from tcpa_core.record.events import Planned\n"
        "rest = dict(digest='d', point='p', origin='sampler', draw={})\n"
        "planned = Planned.of('a', TrialConfig.from_flat({'methods': ['linear']}), **rest)\n"
        "sent = pickle.dumps(planned)\n"
        "assert b'TrialConfig' not in sent and pickle.loads(sent) == planned\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["search.workers.trial_table"])
def test_what_is_decided_needs_no_ray(module: str) -> None:
    code = f"import sys; sys.modules['ray'] = sys.modules['torch'] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
