"""Who gets how many places of a cluster: the rule by itself, and a cluster that lives by it."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from search.workers.cluster_view import Amounts, ClusterView, Node, Request
from search.workers.share_keeper import CALM_S, LOOKS, ShareKeeper
from search.workers.shares import Claim, Shares

CPU = {"CPU": 1.0}
GPU = {"CPU": 1.0, "GPU": 1.0}


def nodes(*free_of_total: tuple[float, float]) -> dict[str, Node]:
    """Nodes n0, n1, ... of CPUs."""
    return {
        f"n{index}": Node({"CPU": total}, {"CPU": free})
        for index, (free, total) in enumerate(free_of_total)
    }


def claim(study: str, wants: int, since: float = 0.0, **held: int) -> Claim:
    return Claim(study=study, name=study, shape=CPU, wants=wants, held=held, since=since)


def waits(count: int = 1, study: str = "", shape: Amounts = CPU, **rest: object) -> Request:
    return Request([shape], count, study=study, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("claims", "requests", "workers"),
    [
        # alone: everything
        ([claim("a", 3, n0=2, n1=1)], [], {"a": 3}),
        # an equal part for each, the first of equals before the others
        ([claim("a", 3, n0=2, n1=1), claim("b", 3, 1.0)], [waits(3, "b")], {"a": 2, "b": 1}),
        ([claim("b", 3, 1.0), claim("a", 3, n0=2, n1=1)], [waits(3, "b")], {"a": 2, "b": 1}),
        # other jobs count as one more
        (
            [claim("a", 3, n0=2, n1=1), claim("b", 3, 1.0)],
            [waits(3, "b"), waits(40)],
            {"a": 1, "b": 1},
        ),
        # who wants less leaves the rest to the others
        ([claim("a", 3, n0=2, n1=1)], [waits(1)], {"a": 2}),
        # what can never be had is no claim
        ([claim("a", 3, n0=2, n1=1)], [waits(1, shape={"CPU": 4.0})], {"a": 3}),
        ([claim("a", 3, n0=2, n1=1)], [waits(1, shape={"CPU": 1.0, "TPU": 1.0})], {"a": 3}),
        # one worker is left to each, whoever asks
        (
            [claim(name, 3, index, **{f"n{index % 2}": 1}) for index, name in enumerate("abcd")],
            [],
            {"a": 1, "b": 1, "c": 1, "d": 1},
        ),
    ],
)
def test_shares_are_equal_among_those_who_want_something(
    claims: list[Claim], requests: list[Request], workers: dict[str, int]
) -> None:
    view = ClusterView(nodes((0, 2), (0, 1)), requests)
    assert Shares.of(view, claims).workers == workers


def test_twice_the_priority_is_twice_the_places() -> None:
    view = ClusterView(nodes((0, 6), (0, 6)), [waits(12, "b")])
    urgent = Claim(study="b", name="b", shape=CPU, wants=12, held={}, priority=2.0, since=1.0)
    assert Shares.of(view, [claim("a", 12, n0=6, n1=6), urgent]).workers == {"a": 4, "b": 8}


def test_what_others_hold_beyond_their_part_is_not_divided() -> None:
    view = ClusterView(nodes((0, 8)), [waits(4, "b")])  # others use six of eight
    assert Shares.of(view, [claim("a", 4, n0=2), claim("b", 4, 1.0)]).workers == {"a": 1, "b": 1}


def test_parts_of_gpus_are_shared_as_whole_ones_are() -> None:
    half = {"CPU": 1.0, "GPU": 0.5}
    view = ClusterView({"n0": Node({"CPU": 16, "GPU": 2}, {"CPU": 12, "GPU": 0})}, [])
    both = [
        Claim(study=name, name=name, shape=shape, wants=4, held=held, since=since)
        for name, shape, held, since in (("a", half, {"n0": 4}, 0.0), ("b", GPU, {}, 1.0))
    ]
    assert Shares.of(view, both).workers == {"a": 2, "b": 1}


def test_who_gets_no_gpu_keeps_no_processor_from_others() -> None:
    view = ClusterView({"n0": Node({"CPU": 4, "GPU": 1}, {"CPU": 0, "GPU": 0})}, [])
    on_gpu = Claim(study="g", name="g", shape=GPU, wants=8, held={"n0": 1})
    assert Shares.of(view, [on_gpu, claim("a", 4, 1.0, n0=3)]).workers == {"g": 1, "a": 3}


@pytest.mark.parametrize(
    ("room", "requests", "given", "to"),
    [
        ([(0, 2), (0, 1)], [waits(1)], [2], "another job"),
        ([(0, 2), (0, 1)], [waits(9)], [2], "another job"),  # it is left its half, rounded up
        ([(1, 3), (0, 1)], [waits(1)], [], ""),  # Ray places it in a moment
        ([(0, 2), (0, 1)], [waits(1, not_on=frozenset({"n1"}))], [1], "another job"),
        ([(0, 2), (0, 1)], [waits(1, not_on=frozenset({"n0", "n1"}))], [], ""),
        ([(0, 2), (0, 2)], [waits(1, shape={"CPU": 2.0})], [], ""),  # a worker ends for nothing
        ([(1, 3), (0, 1)], [waits(1, shape={"CPU": 2.0})], [1], "another job"),
        ([(0, 2), (0, 1)], [waits(1), waits(1, "b")], [2], "another job"),
        ([(0, 2), (0, 1)], [Request([CPU, CPU])], [], ""),  # all of a group or nothing
        ([(1, 3), (0, 1)], [Request([CPU, CPU])], [2], "another job"),
        ([(1, 3), (0, 1)], [Request([CPU, CPU], apart=True)], [2], "another job"),
    ],
)
def test_a_place_is_given_where_that_helps(
    room: list[tuple[float, float]], requests: list[Request], given: list[int], to: str
) -> None:
    """Worker 2 on n1 is missed least, worker 0 most."""
    view = ClusterView(nodes(*room), requests)
    shares = Shares.of(view, [claim("a", 3, n0=2, n1=1)])
    assert shares.to_give("a", {2: "n1", 1: "n0", 0: "n0"}) == (given, to)


def test_nobody_is_given_more_than_it_is_entitled_to() -> None:
    view = ClusterView(nodes((0, 4)), [waits(4, "b")])
    claims = [claim("a", 4, n0=3), claim("b", 4, 1.0, n0=1)]
    assert Shares.of(view, claims).to_give("a", {2: "n0", 1: "n0", 0: "n0"}) == ([2], "study 'b'")
    claims = [claim("a", 4, n0=2), claim("b", 4, 1.0, n0=2)]
    assert Shares.of(view, claims).to_give("a", {1: "n0", 0: "n0"}) == ([], "")


def test_a_worker_that_is_about_to_end_is_not_given_twice() -> None:
    view = ClusterView(nodes((0, 3)), [waits(1)])
    shares = Shares.of(view, [claim("a", 3, n0=3)])
    assert shares.to_give("a", {1: "n0", 0: "n0"}, ["n0"]) == ([], "")
    assert not shares.is_served("a") and shares.is_served("a", ["n0"])


def test_a_claim_reads_back_equal() -> None:
    one = Claim(study="a", name="n", shape=GPU, wants=3, held={"n0": 2}, priority=2.0, since=5.0)
    assert Claim.of(one.as_dict()) == one


@pytest.mark.parametrize(
    "wrong", [{"priority": 0}, {"priority": float("inf")}, {"wants": "many"}, {"held": 3}]
)
def test_a_line_that_no_study_wrote_is_no_claim(wrong: dict[str, object]) -> None:
    line = Claim(study="a", name="n", shape=GPU, wants=3, held={}).as_dict()
    with pytest.raises((TypeError, ValueError)):
        Claim.of({**line, **wrong})
    assert Claim.of({**line, "of a later version": 1}).wants == 3


LOOK_S = 2.0


@dataclass
class Study:
    """A study in the cluster below."""

    name: str
    wants: int
    keeper: ShareKeeper
    since: float
    priority: float = 1.0
    held: list[str] = field(default_factory=list)
    """Node of each worker that has a place."""
    ending: list[tuple[int, str]] = field(default_factory=list)
    """Tick at which a worker ends, and its node."""
    cap: int | None = None
    num_given: int = 0

    @property
    def waiting(self) -> int:
        """Workers that Ray may place on the nodes of today."""
        placed = len(self.held) + len(self.ending)
        most = self.wants if self.cap is None else min(self.wants, self.cap)
        return max(0, most - placed)

    def claim(self) -> Claim:
        held = Counter([*self.held, *(node for _, node in self.ending)])
        return Claim(
            study=self.name,
            name=self.name,
            shape=CPU,
            wants=self.wants,
            held=held,
            priority=self.priority,
            since=self.since,
        )


class Cluster:
    """Nodes whose places Ray gives to whoever waits, in any order, and studies that look."""

    def __init__(self, cpus: Sequence[int], seed: int) -> None:
        self.cpus = {f"n{index}": count for index, count in enumerate(cpus)}
        self.studies: dict[str, Study] = {}
        self.tasks = 0
        """Of other jobs that wait."""
        self.task_ticks = 4
        self.running: list[tuple[int, str]] = []
        """Tick at which a task ends, and its node."""
        self.tick = 0
        self.epoch_ticks = 3
        self.draw = random.Random(seed)
        self.done = 0

    def add(self, name: str, wants: int, priority: float = 1.0) -> Study:
        keeper = ShareKeeper(name, clock=lambda: self.tick * LOOK_S)
        self.studies[name] = Study(name, wants, keeper, float(self.tick), priority)
        return self.studies[name]

    def free(self) -> dict[str, int]:
        free = dict(self.cpus)
        for _, node in self.running:
            free[node] -= 1
        for study in self.studies.values():
            for node in (*study.held, *(node for _, node in study.ending)):
                free[node] -= 1
        assert min(free.values()) >= 0
        return free

    def step(self) -> None:
        self.tick += 1
        for study in self.studies.values():
            study.ending = [one for one in study.ending if one[0] > self.tick]
        self.done += sum(end <= self.tick for end, _ in self.running)
        self.running = [one for one in self.running if one[0] > self.tick]
        self._place()
        for study in self.draw.sample(list(self.studies.values()), len(self.studies)):
            self._look(study)

    def _place(self) -> None:
        while True:
            open_nodes = [node for node, count in self.free().items() if count]
            asking: list[Study | None] = [s for s in self.studies.values() if s.waiting]
            asking += [None] if self.tasks else []
            if not open_nodes or not asking:
                return
            node, who = self.draw.choice(open_nodes), self.draw.choice(asking)
            if who is None:
                self.tasks -= 1
                self.running.append((self.tick + self.task_ticks, node))
            else:
                who.held.append(node)

    def _look(self, study: Study) -> None:
        view = ClusterView(
            {n: Node({"CPU": self.cpus[n]}, {"CPU": free}) for n, free in self.free().items()},
            [
                *([waits(self.tasks)] if self.tasks else []),
                *(waits(s.waiting, s.name) for s in self.studies.values() if s.waiting),
            ],
        )
        shares = Shares.of(view, [one.claim() for one in self.studies.values()])
        placed = dict(enumerate(study.held))
        leaving = [node for _, node in study.ending]
        step = study.keeper.step(shares, placed, leaving)
        study.cap = step.cap
        for number in sorted(step.give, reverse=True):
            end = self.tick + self.draw.randint(1, self.epoch_ticks)
            study.ending.append((end, study.held.pop(number)))
            study.num_given += 1

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / LOOK_S)):
            self.step()

    @property
    def places(self) -> Mapping[str, int]:
        return {name: len(study.held) for name, study in self.studies.items()}

    @property
    def num_given(self) -> int:
        return sum(study.num_given for study in self.studies.values())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cpus", [[1, 1, 1], [3], [2, 4, 2]])
def test_everybody_gets_a_place_within_two_epochs(cpus: list[int], seed: int) -> None:
    cluster = Cluster(cpus, seed)
    cluster.add("a", sum(cpus))
    cluster.run(10)
    assert cluster.places == {"a": sum(cpus)}
    second = cluster.add("b", sum(cpus))
    cluster.tasks, cluster.task_ticks = 4, 1
    for _ in range(LOOKS + 2 * cluster.epoch_ticks + cluster.tasks):
        cluster.step()
    assert second.held and cluster.studies["a"].held
    cluster.run(60)
    assert cluster.done == 4, "the other job is through"
    assert sum(cluster.places.values()) == sum(cpus), "no place is left unused"


@pytest.mark.parametrize("seed", range(4))
def test_nothing_swings_while_nothing_changes(seed: int) -> None:
    cluster = Cluster([2, 2, 4], seed)
    for name, priority in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        cluster.add(name, 8, priority)
        cluster.run(2 * CALM_S)
    settled = cluster.num_given
    assert cluster.places == {"a": 2, "b": 2, "c": 4}
    cluster.run(3600)
    assert cluster.places == {"a": 2, "b": 2, "c": 4}
    assert cluster.num_given == settled


@pytest.mark.parametrize("seed", range(4))
def test_a_job_with_endless_tasks_has_its_part_and_costs_few_workers(seed: int) -> None:
    cluster = Cluster([4, 4], seed)
    cluster.add("a", 8)
    cluster.run(10)
    cluster.tasks = 100_000
    cluster.run(3600)
    assert cluster.places == {"a": 4}
    assert cluster.num_given == 4, "a worker that ends for others is not started for them again"
    assert cluster.done > 4 * 3600 / (cluster.task_ticks * LOOK_S) * 0.9


@pytest.mark.parametrize("seed", range(4))
def test_jobs_that_come_and_go_cost_fewer_and_fewer_workers(seed: int) -> None:
    cluster = Cluster([4], seed)
    study = cluster.add("a", 4)
    given = []
    for _ in range(40):
        cluster.tasks = 2
        before = study.num_given
        cluster.run(60)
        given.append(study.num_given - before)
    assert sum(given[:3]) >= 2, "they get a place at once"
    assert sum(given[20:]) <= sum(given[:20]) / 2


def test_the_places_of_a_study_that_ends_are_taken_by_those_who_want_more() -> None:
    cluster = Cluster([4], seed=0)
    cluster.add("a", 4)
    cluster.run(10)
    cluster.add("b", 4)
    cluster.run(60)
    assert cluster.places == {"a": 2, "b": 2}
    cluster.studies["b"].wants = 1  # its last trial
    cluster.studies["b"].held.pop()
    cluster.run(2 * CALM_S + 2 * LOOK_S)
    assert cluster.places == {"a": 3, "b": 1}
    del cluster.studies["b"]
    cluster.run(2 * CALM_S + 2 * LOOK_S)
    assert cluster.places == {"a": 4}
