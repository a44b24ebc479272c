"""Our population based training beside Ray Tune's, on training that costs nothing.

    python -m benchmarks.population

A stub trial has a quality that rises towards 1 with each epoch, the faster the nearer its learning
rate is to one that falls during training: a schedule is better than any constant. What is compared
is the schedulers alone: both get the same first settings, the same noise and the same order in
which members report; Ray's `PopulationBasedTraining` is driven by its own methods.
"""

import math
import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.schedulers.pbt import _PBTTrialState
from scipy.stats import t as student

from benchmarks.harness import RESULTS
from search.tune.early_stopping import EarlyStopping
from search.tune.following import following
from search.tune.schedulers.base import Successor
from spaces.load import space_of
from spaces.space import Space
from tcpa_core.record.events import Planned
from tcpa_core.record.state import StudyState

REPEATS = 20
MEMBERS, EPOCHS, INTERVAL = 8, 40, 4
LOW, HIGH = 1e-5, 1.0
IDS = {"data": "d", "weights": "w"}
METRIC = "val_accuracy"


@dataclass(slots=True)
class Member:
    """A stub trial: what training has made of it, and what it is trained with."""

    name: str
    lr: float
    quality: float = 0.0
    epoch: int = 0
    best: float = -math.inf
    """Best measured value so far, and the quality behind it, as a checkpoint has them."""
    behind: float = 0.0
    planned: Planned | None = None

    def train(self, noise: random.Random) -> float:
        """One epoch; the value that is measured after it."""
        self.epoch += 1
        self.quality = trained(self.quality, self.lr, self.epoch)
        value = self.quality + noise.gauss(0, 0.01)
        if value > self.best:
            self.best, self.behind = value, self.quality
        return value


def trained(quality: float, lr: float, epoch: int) -> float:
    """The quality after one more epoch."""
    wanted = -1.0 - 2.5 * epoch / EPOCHS
    return quality + 0.12 * (1 - quality) * math.exp(-((math.log10(lr) - wanted) ** 2))


def best_possible() -> float:
    """The quality at the end of a training with the best learning rate in every epoch."""
    quality = 0.0
    for epoch in range(1, EPOCHS + 1):
        quality = trained(quality, 10 ** (-1.0 - 2.5 * epoch / EPOCHS), epoch)
    return quality


@dataclass(slots=True)
class Run:
    """What one repeat has in common for all schedulers."""

    seed: int
    epochs: int = 0
    ended: list[Member] = field(default_factory=list)

    def first(self) -> list[Member]:
        draws = random.Random(f"settings {self.seed}")
        bounds = math.log(LOW), math.log(HIGH)
        return [Member(f"{n:05d}", math.exp(draws.uniform(*bounds))) for n in range(MEMBERS)]

    def live(self, members: list[Member], judge: Callable[[Member, float], Member | None]) -> float:
        """Train all to the end in a random order; the regret of the one that is chosen.

        Args:
            judge: Called with a member and its value; what is in its place then, None: the same.
        """
        order, noise = (random.Random(f"{what} {self.seed}") for what in ("order", "noise"))
        while members:
            place = order.randrange(len(members))
            member = members[place]
            value = member.train(noise)
            self.epochs += 1
            if member.epoch == EPOCHS:
                self.ended.append(members.pop(place))
            elif other := judge(member, value):
                members[place] = other
        return best_possible() - max(self.ended, key=lambda one: one.best).behind


def with_ours(run: Run) -> float:
    """Regret of our scheduler."""
    space: Space = space_of({
        "name": "stub",
        "base": {"train.epochs": EPOCHS},
        "axes": {"optim.lr": {"float": [LOW, HIGH], "log": True}},
        "sampler": {"name": "random", "seed": run.seed},
        "scheduler": {"name": "pbt", "population": MEMBERS, "interval": INTERVAL},
    })  # fmt: skip
    state = StudyState(METRIC)
    stopping = EarlyStopping(space, state)
    states: dict[tuple[str, int], Member] = {}
    members = run.first()
    new: list[Planned] = []

    def join(planned: Planned) -> None:
        state.take(planned)
        stopping.join(planned)

    def succeed(successor: Successor) -> None:
        new.append(following(successor, state, IDS))
        join(new[-1])

    stopping.on_successor = succeed
    for member in members:
        config = space.config({"optim.lr": member.lr}, 0)
        digest = config.digest(*IDS.values())
        join(
            Planned.of(member.name, config, origin="sampler", digest=digest, point=digest, draw={})
        )

    def judge(member: Member, value: float) -> Member | None:
        if member.epoch % INTERVAL == 0:
            states[member.name, member.epoch] = copy(member)
        if member.epoch not in stopping.decisions(state.trials[member.name].planned):
            return None
        result = {"epoch": member.epoch, METRIC: value}
        handle = SimpleNamespace(config={"trial": member.name})
        if stopping.on_trial_result(None, handle, result) != "STOP":
            return None
        planned = new.pop()
        assert planned.parent is not None
        begun = copy(states[planned.parent.trial, planned.parent.epoch])
        begun.name, begun.lr = planned.trial, planned.config.optim.lr
        return begun

    return run.live(members, judge)


def copy(member: Member) -> Member:
    return Member(member.name, member.lr, member.quality, member.epoch, member.best, member.behind)


class _Trial:
    """What Ray's scheduler asks of a trial."""

    status = "RUNNING"
    experiment_tag = ""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.name = member.name
        self.last_result: Mapping[str, Any] = {}

    @property
    def config(self) -> dict[str, float]:
        return {"lr": self.member.lr}

    def is_finished(self) -> bool:
        """Whether it is trained: Ray compares with members that run."""
        return self.member.epoch == EPOCHS


class _Rays(PopulationBasedTraining):  # type: ignore[misc]
    """Ray's scheduler, which copies stub trials where it would copy checkpoints."""

    def _exploit(self, tune_controller: Any, trial: _Trial, trial_to_clone: _Trial) -> None:
        mine, other = self._trial_state[trial], self._trial_state[trial_to_clone]
        config, _ = self._get_new_config(trial, trial_to_clone)
        trial.member = copy(other.last_checkpoint)
        trial.member.name, trial.member.lr = trial.name, config["lr"]
        # The trial counts on from the epoch of the state, so that an older one trains for longer.
        mine.last_perturbation_time = other.last_perturbation_time
        mine.last_train_time = other.last_train_time


def with_rays(run: Run) -> float:
    """Regret of Ray Tune's scheduler."""
    random.seed(run.seed)  # the one that it draws from
    scheduler = _Rays(
        time_attr="epoch",
        metric=METRIC,
        mode="max",
        perturbation_interval=INTERVAL,
        hyperparam_mutations={"lr": tune.loguniform(LOW, HIGH)},
    )
    members = run.first()
    trials = {member.name: _Trial(member) for member in members}
    controller = SimpleNamespace(
        get_trials=lambda: list(trials.values()),
        _schedule_trial_save=lambda trial, result: copy(trial.member),
    )
    for trial in trials.values():
        scheduler._trial_state[trial] = _PBTTrialState(trial)

    def judge(member: Member, value: float) -> Member:
        result = {"epoch": member.epoch, METRIC: value}
        scheduler.on_trial_result(controller, trials[member.name], result)
        return trials[member.name].member

    return run.live(members, judge)


def without(run: Run) -> float:
    """Regret where nobody is replaced."""
    return run.live(run.first(), lambda member, value: None)


def main() -> None:
    """Measure, print and write a table."""
    regrets: dict[str, list[float]] = {"ours": [], "Ray Tune's": [], "none": []}
    epochs: dict[str, list[int]] = {name: [] for name in regrets}
    for seed in range(REPEATS):
        for name, scheduler in zip(regrets, (with_ours, with_rays, without), strict=True):
            run = Run(seed)
            regrets[name].append(scheduler(run))
            epochs[name].append(run.epochs)
    lines = [
        f"{MEMBERS} members, {EPOCHS} epochs, judged every {INTERVAL}; {REPEATS} repeats; the best "
        f"possible quality is {best_possible():.4f}.",
        "",
        "| scheduler | epochs | regret, mean and 95 % interval | against Ray's, paired |",
        "|---|---|---|---|",
    ]
    for name, found in regrets.items():
        differences = [a - b for a, b in zip(found, regrets["Ray Tune's"], strict=True)]
        paired = "" if name == "Ray Tune's" else interval(differences)
        lines.append(
            f"| {name} | {statistics.mean(epochs[name]):g} | {interval(found)} | {paired} |"
        )
    text = "\n".join(lines)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "population.md").write_text(text + "\n", encoding="utf-8")


def interval(values: list[float]) -> str:
    """Mean and half of its 95 % interval (Student)."""
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):+.4f} ± {half:.4f}"


if __name__ == "__main__":
    main()
