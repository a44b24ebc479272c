"""Which devices are set aside, and who is blamed: a trial, a device or nobody; no Ray is needed."""

import random
from collections.abc import Collection, Iterable

import pytest

from search.workers.failure_attribution import MAX_RESTARTS, WorkerLoss
from search.workers.quarantine import MAX_ENDS, MAX_PAUSE_S, PAUSE_S, Quarantine
from search.workers.trial_table import TrialTable
from tcpa_core.record.events import Event, Notice
from tcpa_core.record.values import Device
from tcpa_core.training.commands import Submit
from tests.search.test_trial_table import alone, ended, epoch, placed, planned

FAULT = WorkerLoss("RuntimeError: CUDA error: uncorrectable ECC error encountered")
GPU = "GPU 0 of a"
OTHER = "GPU 1 of a"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Workers:
    """A table whose workers are replaced on their device, unless that is set aside."""

    def __init__(self, *devices: str, slots: int = 4, trials: str = "") -> None:
        self.clock = Clock()
        self.quarantine = Quarantine(clock=self.clock)
        self.table = TrialTable([], slots, test_at_end=False, quarantine=self.quarantine)
        self.on: dict[str, int] = {}
        self.told: list[Event] = []
        self.started = 0
        for name in trials:
            self.table.advance(planned(name), 4)
        for device in devices:
            self.start(device)

    def start(self, device: str) -> list[str]:
        """Start a worker; the trials that it gets."""
        self.on[device] = self.started
        self.started += 1
        number = device.split()[1]
        there = Device(host="a", id=number, name="H200", memory_bytes=1, free_bytes=1)
        return [t for _, t in placed(self.table.welcome(self.on[device], there))]

    def lose(self, device: str, loss: WorkerLoss = FAULT) -> list[Event]:
        """Lose the worker of a device; what is told."""
        told, _ = self.table.lose(self.on.pop(device), loss)
        self.told += told
        return told

    def held(self, device: str) -> set[str]:
        return set(self.table.held_by(self.on[device]))


def texts(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice)]


class TestDevices:
    def test_other_trials_try_a_device_one_at_a_time(self) -> None:
        workers = Workers(GPU, OTHER, slots=2, trials="abcdefg")
        assert workers.held(GPU) == {"a", "b"}
        workers.lose(GPU)
        assert workers.start(GPU) == ["e"], "neither a and b, nor two"
        workers.table.take([epoch("e", 1)])
        orders = workers.table.place()
        assert placed(orders) == [(workers.on[GPU], "a")], "the device had another cause to end"

    def test_a_second_end_sets_it_aside_and_clears_the_trials(self) -> None:
        workers = Workers(GPU, OTHER, slots=2, trials="abcdefg")
        assert texts(workers.lose(GPU))[0].startswith("worker 0 was lost (RuntimeError: CUDA")
        workers.start(GPU)
        (notice,) = workers.lose(GPU)
        assert notice == Notice(
            text="GPU 0 of a is set aside: 2 workers in a row ended on it before an epoch was "
            "trained (RuntimeError: CUDA error: uncorrectable ECC error encountered); it is tried "
            "again in 15 min, then after longer pauses; trials e go on elsewhere from their last "
            "epoch",
            trials=["e"],
        )
        assert workers.quarantine.pause_s(GPU) == PAUSE_S
        assert workers.quarantine.pause_s(OTHER) == 0
        workers.table.take([ended("c"), ended("d")])
        orders = workers.table.place()
        assert [trial for _, trial in placed(orders)] == ["e", "a"]
        assert alone(orders) == [], "nobody is suspected"

    def test_the_same_trials_come_back_where_there_is_no_other_choice(self) -> None:
        workers = Workers(GPU, OTHER, slots=1, trials="ab")
        workers.lose(GPU)
        assert workers.start(GPU) == ["a"]
        assert "is set aside" in texts(workers.lose(GPU))[0]
        workers.table.take([ended("b")])
        orders = workers.table.place()
        assert placed(orders) == [(workers.on[OTHER], "a")] and alone(orders) == []

    def test_it_is_said_once_and_tried_after_growing_pauses(self) -> None:
        workers = Workers(GPU, OTHER, slots=1, trials="abcdefghijkl")
        pauses = []
        for _ in range(9):
            workers.lose(GPU)
            workers.clock.now += workers.quarantine.pause_s(GPU)
            pauses.append(workers.quarantine.pause_s(GPU))
            assert len(workers.start(GPU)) == 1, "one trial tries it"
        assert pauses == [0.0] * 9, "over"
        assert len(texts(workers.told)) == 2, "a worker was lost, and the device is set aside"
        workers.lose(GPU)
        assert workers.quarantine.pause_s(GPU) == MAX_PAUSE_S

    def test_an_epoch_takes_it_into_use_again(self) -> None:
        workers = Workers(GPU, OTHER, slots=1, trials="abcd")
        for _ in range(MAX_ENDS):
            workers.lose(GPU)
            workers.clock.now += workers.quarantine.pause_s(GPU)
            (trial,) = workers.start(GPU)
        news = workers.table.take([epoch(trial, 1)])
        assert texts(news) == ["GPU 0 of a is in use again: it has trained an epoch"]
        workers.lose(GPU)
        assert workers.quarantine.pause_s(GPU) == 0, "counted anew"

    @pytest.mark.parametrize("how", ["with_node", "is_wanted"])
    def test_an_end_with_a_known_cause_says_nothing_of_the_device(self, how: str) -> None:
        workers = Workers(GPU, OTHER, slots=1, trials="abcd")
        for _ in range(3):
            workers.lose(GPU, WorkerLoss("gone", **{how: True}))  # type: ignore[arg-type]
            workers.start(GPU)
        assert not workers.quarantine.is_doubted(GPU)

    def test_a_hang_is_an_end(self) -> None:
        workers = Workers(GPU, OTHER, slots=1, trials="abcd")
        for _ in range(2):
            hung = tuple(workers.held(GPU))
            workers.lose(GPU, WorkerLoss("hung: 60 s without a step", hung_in=hung))
            if not workers.quarantine.pause_s(GPU):
                workers.start(GPU)
        assert workers.quarantine.is_aside(GPU)
        workers.table.take([ended("b")])
        assert alone(workers.table.place()) == []


class TestTrials:
    def test_a_trial_that_no_device_survives_fails_and_the_devices_stay_in_use(self) -> None:
        workers = Workers(GPU, OTHER, slots=1, trials="a")
        for _ in range(MAX_RESTARTS):
            (device,) = (d for d in (GPU, OTHER) if "a" in workers.held(d))
            assert "was lost" in texts(workers.lose(device))[0]
            workers.start(device)
        (device,) = (d for d in (GPU, OTHER) if "a" in workers.held(d))
        assert [event.kind for event in workers.lose(device)] == ["notice", "failed"]
        assert not workers.quarantine.is_doubted(GPU) and not workers.quarantine.is_doubted(OTHER)

    def test_packs_of_healthy_workers_stay_as_they_are(self) -> None:
        workers = Workers(GPU, OTHER, slots=4, trials="abcdefgh")
        for _ in range(2):
            _, orders = workers.table.lose(workers.on.pop(GPU), FAULT)
            assert not [o for o in orders if not isinstance(o.command, Submit)]
            workers.start(GPU) if not workers.quarantine.is_aside(GPU) else None
        assert workers.held(OTHER) == set("efgh")


class TestTheLastDevice:
    def test_it_is_given_up_where_its_trials_differ(self) -> None:
        workers = Workers(GPU, slots=1, trials="abcd")
        for expected in ("a", "b", "c"):
            assert workers.held(GPU) == {expected}
            assert workers.table.fault is None
            workers.lose(GPU)
            workers.start(GPU)
        assert workers.table.fault is not None
        assert workers.table.fault.startswith(
            "3 workers in a row, with different trials, ended on GPU 0 of a before an epoch"
        )
        assert [event.kind for event in workers.told] == ["notice"] * 3, "no trial is blamed"

    def test_the_least_suspicious_of_its_trials_comes_back_first(self) -> None:
        workers = Workers(GPU, slots=3, trials="abc")
        workers.lose(GPU)
        assert workers.start(GPU) == ["a"]
        workers.lose(GPU)
        assert workers.start(GPU) == ["b"]
        workers.table.take([epoch("b", 1)])
        assert workers.table.fault is None
        assert {trial for _, trial in placed(workers.table.place())} == {"a", "c"}

    def test_a_trial_in_all_ends_fails(self) -> None:
        workers = Workers(GPU, slots=1, trials="a")
        for _ in range(MAX_RESTARTS):
            workers.lose(GPU)
            assert workers.start(GPU) == ["a"]
        assert workers.lose(GPU)[-1].kind == "failed"
        assert workers.table.fault is None and not workers.quarantine.is_doubted(GPU)

    def test_what_is_set_aside_leaves_a_last_one(self) -> None:
        workers = Workers(GPU, OTHER, slots=1, trials="abcdefgh")
        for _ in range(2):
            workers.lose(GPU)
            if not workers.quarantine.is_aside(GPU):
                workers.start(GPU)
        for _ in range(3):
            workers.lose(OTHER)
            workers.start(OTHER)
        assert not workers.quarantine.is_aside(OTHER) and workers.table.fault is not None


class Study(Workers):
    """24 trials of 4 epochs; what happens next is drawn."""

    def __init__(self, num_devices: int, sick: Collection[str], fatal: Collection[str]) -> None:
        super().__init__(*all_devices(num_devices), slots=3)
        self.sick, self.fatal = set(sick), set(fatal)
        self.left = {f"t{n:02d}": 4 for n in range(24)}
        """Epochs by trial."""
        for name in self.left:
            self.table.advance(planned(name), 4)

    def run(self, draw: random.Random) -> None:
        devices = tuple(self.on)
        while self.left:
            busy = sorted(device for device in self.on if self.held(device))
            assert busy, "nothing goes on, and trials are left"
            device = draw.choice(busy)
            if device in self.sick or self.held(device) & self.fatal:
                self.end(device)
            else:
                self.train(device)
            self.table.place()
            for other in devices:
                if other not in self.on and not self.quarantine.pause_s(other):
                    self.start(other)

    def end(self, device: str) -> None:
        for event in self.lose(device):
            if event.kind == "failed":
                del self.left[event.as_dict()["trial"]]

    def train(self, device: str) -> None:
        for name in sorted(self.held(device)):
            self.left[name] -= 1
            self.told += self.table.take([epoch(name, 4 - self.left[name])])
            if not self.left[name]:
                del self.left[name]
                self.told += self.table.take([ended(name)])


def all_devices(count: int) -> list[str]:
    return [f"GPU {n} of a" for n in range(count)]


def failed(workers: Workers) -> set[str]:
    return {event.as_dict()["trial"] for event in workers.told if event.kind == "failed"}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("devices", "count"), [(2, 1), (4, 1), (4, 2), (8, 7)])
def test_sick_devices_cost_two_workers_each_and_no_trial(
    seed: int, devices: int, count: int
) -> None:
    draw = random.Random(seed)
    workers = Study(devices, draw.sample(all_devices(devices), count), ())
    workers.run(draw)
    assert not failed(workers) and workers.table.fault is None
    assert workers.started == devices + count, "one that tries each, after the first"
    assert sum("is set aside" in text for text in texts(workers.told)) == count


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_fatal_trial_fails_alone_and_leaves_no_device_aside(seed: int, devices: int) -> None:
    draw = random.Random(seed)
    fatal = f"t{draw.randrange(24):02d}"
    workers = Study(devices, (), {fatal})
    workers.run(draw)
    assert failed(workers) == {fatal}
    assert not any(map(workers.quarantine.is_aside, all_devices(devices)))
