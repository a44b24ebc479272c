"""Points that Optuna was asked for, and what it is told of them.

Ray's `OptunaSearch` leaves trials with a nan running, tells stopped trials as complete and pickles
its state, so a search is driven through Optuna's `ask` and `tell` here. The Optuna study lives in
memory; a copy for optuna-dashboard is written to a journal file beside it.
"""

import math
from collections.abc import Container, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from search.proposals.dashboard_copy import OptunaLog
from search.proposals.learned import frozen
from search.proposals.samplers._by_path import blamed
from search.proposals.samplers.base import check_sampler, make_sampler
from search.proposals.seed_race import SeedRace
from search.proposals.source import Outcome
from spaces.sections import Goal, SamplerConfig
from spaces.selection import has_completed
from spaces.space import Space
from tcpa_core.config import Flat
from tcpa_core.record.events import Learned, Planned

KEPT = 250
"""Trials that a sampler which learns from few keeps, at least; at most twice as many. Its cost
grows with their number: TPE takes 8 ms with 300 trials, 20 with 1,000, 130 with 10,000 (8
parameters)."""

_DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(slots=True, eq=False)
class Asked:
    """A point that Optuna was asked for; the seeds of a point share its Optuna trial.

    In a race of seeds it is told once its first seed has ended, and its value becomes the mean of
    all seeds that it has got.
    """

    trial: optuna.Trial
    point: Flat
    origin: str
    num_open: int
    """Seeds that have not ended."""
    values: list[list[float]] = field(default_factory=list)
    """The objectives of each seed that has completed."""
    last: list[tuple[int, float]] = field(default_factory=list)
    """Epoch and value of each seed that was stopped early."""


class Means(InMemoryStorage):
    """Trials of which some were measured again since they were told: a sampler reads the mean.

    Args:
        means: By the user attribute "point" of a trial; may change.
    """

    def __init__(self, means: Mapping[str, float]) -> None:
        super().__init__()
        self._means = means

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Trials as they stand now."""
        return [self._now(one) for one in super().get_all_trials(study_id, deepcopy, states)]

    def _now(self, trial: FrozenTrial) -> FrozenTrial:
        mean = self._means.get(trial.user_attrs.get("point", ""))
        if mean is None or trial.state is not TrialState.COMPLETE:
            return trial
        again = copy(trial)  # the storage's own, where no copy was asked for
        again.value = mean
        return again


class AskedPoints:
    """The Optuna study of a search, from a point's draw to the end of its last seed.

    Args:
        space: Its axes and sampler.
        name: Of the Optuna study.
        log: Gets a copy of the finished points under that name.
        learned: Results from before the study.
    """

    def __init__(
        self,
        space: Space,
        name: str,
        log: OptunaLog | None = None,
        learned: Sequence[Learned] = (),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._sampler = check_sampler(space.sampler)
        self._random = check_sampler(SamplerConfig(name="random"))
        made = make_sampler(space, 0)
        self._kept = made if space.sampler.is_code else None
        """One that is not made anew for every point."""
        goals: list[Goal] = [objective.goal for objective in space.objective]
        self._means: dict[str, float] = {}
        self.study = optuna.create_study(
            storage=Means(self._means),
            directions=goals,
            sampler=made,
            study_name=name,
        )
        self.study.add_trials([t for one in learned if (t := frozen(one, space)) is not None])
        self.num_asked = 0
        self._num_told = 0
        """Trials that the study has learnt from."""
        self.by_trial: dict[str, Asked] = {}
        """The point of each trial that runs."""
        self._waiting: dict[str, list[Asked]] = {}
        """Points drawn again while a trial with their digest ran; they share its outcome."""
        self.race: SeedRace | None = None
        """None: every point gets all seeds."""
        if space.races_seeds:
            self.race = SeedRace(space.seeds, space.objective[0].utility)
        self.by_point: dict[str, Asked] = {}
        """In a race, the points that may get a further seed."""
        self._log = log

    def ask(self, origin: str, draw: Flat | None = None, *, is_redrawn: bool = False) -> Asked:
        """Begin the next point.

        Its number and what is known decide it, not how often the driver was started: the sampler is
        made anew for every point.

        Args:
            origin: Who proposes it; "random": the sampler only repeats itself.
            draw: What it is; None: what the sampler draws.
            is_redrawn: Let the sampler draw all the same, and keep of it what it wants.
        """
        if self._kept is None:
            trial, point = self._drawn(origin, draw, is_redrawn=is_redrawn)
        else:
            with blamed(self._space.sampler.name):
                trial, point = self._drawn_by_kept(origin, draw, is_redrawn=is_redrawn)
        trial.set_user_attr("number", self.num_asked)
        num_open = 1 if self.race else len(self._space.seeds)
        return Asked(trial, point, origin, num_open)

    def _drawn(
        self, origin: str, draw: Flat | None, *, is_redrawn: bool
    ) -> tuple[optuna.Trial, Flat]:
        asks_it = origin != "random" and (draw is None or is_redrawn)
        sampler = self._sampler if asks_it else self._random
        self.study.sampler = make_sampler(self._space, self.num_asked, sampler)
        if draw is not None:
            self.study.enqueue_trial(draw)
        self.num_asked += 1
        # From here on the trial counts for the sampler, which keeps away from what runs.
        trial = self.study.ask()
        if is_redrawn:
            _ = trial.relative_params  # drawn when first asked for
        return trial, self._space.suggest(trial)

    def _drawn_by_kept(
        self, origin: str, draw: Flat | None, *, is_redrawn: bool
    ) -> tuple[optuna.Trial, Flat]:
        """As `_drawn`, by the one sampler that also learns what it is not asked for."""
        assert self._kept is not None
        is_random = origin == "random"
        random = make_sampler(self._space, self.num_asked, self._random) if is_random else None
        self.study.sampler = random or self._kept
        self.num_asked += 1
        if draw is not None and is_redrawn:
            trial = self.study.ask()
            point = self._space.suggest(trial)
            if trial.params == draw:
                return trial, point
            # It does not draw again what it drew: what is recorded counts.
            self.study.tell(trial, state=TrialState.FAIL)
        if draw is not None:
            self.study.enqueue_trial(draw)
        trial = self.study.ask()
        point = self._space.suggest(trial)
        self.study.sampler = self._kept
        return trial, point

    def assign(self, planned: Planned, asked: Asked) -> None:
        """Remember which point a planned trial belongs to, and note our names on Optuna's trial.

        Optuna numbers trials otherwise: a point has several seeds.
        """
        self.by_trial[planned.trial] = asked
        if self.race:
            self.race.take(planned.point, planned.seed)
            self.by_point[planned.point] = asked
            if asked.num_open == 0:  # Optuna changes nothing of a trial that has ended
                return
        asked.trial.set_user_attr("point", planned.point)
        for key, value in (("trial", planned.trial), ("seed", str(planned.config.seed))):
            earlier = asked.trial.user_attrs.get(key)
            asked.trial.set_user_attr(key, f"{earlier}, {value}" if earlier else value)

    def tell(self, planned: Planned, outcome: Outcome) -> None:
        """Learn from a trial, also for the points that wait for it."""
        asked = self.by_trial.pop(planned.trial)
        if self.race:
            values = self._values(outcome) if has_completed(outcome) else None
            self.race.tell(planned.point, planned.seed, values[0] if values else None)
        if asked.num_open == 0:
            self._learn_again(asked, planned, outcome)
        else:
            self._learn(asked, outcome)
        for asked in self._waiting.pop(planned.digest, ()):
            self._learn(asked, outcome)

    def share(self, asked: Asked, digest: str, outcome: Outcome | None) -> None:
        """Let a point learn from a trial of another one; None: when that trial ends."""
        if outcome is None:
            self._waiting.setdefault(digest, []).append(asked)
        else:
            self._learn(asked, outcome)

    def close(self) -> None:
        """Finish writing the copy for optuna-dashboard."""
        if self._log is not None:
            self._log.close()

    def _learn(self, asked: Asked, outcome: Outcome) -> None:
        values = self._values(outcome)
        if has_completed(outcome) and values:
            asked.values.append(values)
        elif outcome.get("status") == "pruned" and values:
            asked.last.append((int(outcome.get("num_epochs") or 1), values[0]))
        # A point is told once all its seeds have ended; a failed one leaves a gap in its values.
        asked.num_open -= 1
        if asked.num_open == 0:
            self._tell_point(asked)

    def _values(self, outcome: Outcome) -> list[float]:
        """The objectives of a trial; []: some of them is missing or not finite."""
        values = [outcome.get(o.metric) for o in self._space.objective]
        finite = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
        return finite if len(finite) == len(values) else []

    def _tell_point(self, asked: Asked) -> None:
        trial = asked.trial
        # Since `_forget`, the study that the trial was asked of may not be the present one.
        asked_of = trial.study
        if len(asked.values) == (1 if self.race else len(self._space.seeds)):
            # `fsum`: seeds end in any order, and the mean must be the same to the bit.
            columns = zip(*asked.values, strict=True)
            told = asked_of.tell(trial, [math.fsum(c) / len(asked.values) for c in columns])
        elif asked.last and len(self._space.objective) == 1:
            # Optuna reads the last epoch: values of fewer epochs must not be mixed with its own.
            for epoch in sorted({epoch for epoch, _ in asked.last}):
                values = [value for at, value in asked.last if at == epoch]
                trial.report(math.fsum(values) / len(values), epoch)
            told = asked_of.tell(trial, state=TrialState.PRUNED)
        else:
            told = asked_of.tell(trial, state=TrialState.FAIL)
        if self._log is not None:
            self._log.add(self.study.study_name, told)
        # Optuna copies what is added; the sampler of the present study must know it, too.
        if asked_of is not self.study:
            self.study.add_trial(told)
        self._num_told += 1
        if self._num_told == 2 * KEPT and self._sampler.learns_from_few:
            self._forget()

    def _learn_again(self, asked: Asked, planned: Planned, outcome: Outcome) -> None:
        """Learn from a further seed of a race; one that failed changes nothing."""
        values = self._values(outcome) if has_completed(outcome) else []
        if not values:
            return
        asked.values.append(values)
        first = [value for value, *_ in asked.values]
        self._means[planned.point] = math.fsum(first) / len(first)
        if self._log is not None:
            params, distributions = asked.trial.params, asked.trial.distributions
            names = {"trial": planned.trial, "seed": str(planned.seed), "point": planned.point}
            told = optuna.trial.create_trial(
                values=values, params=params, distributions=distributions, user_attrs=names
            )
            self._log.add(self.study.study_name, told)

    def _forget(self) -> None:
        """Go on with a new Optuna study that knows the best and the latest trials only.

        TPE weights trials by their age, so that those left out count least. Trials that run are
        told to the study that they were asked of, and added to the new one.
        """
        done = self.study.get_trials(deepcopy=False, states=_DONE)
        if len(self._space.objective) > 1:
            best = self.study.best_trials
        else:
            complete = [trial for trial in done if trial.state is TrialState.COMPLETE]
            utility = self._space.objective[0].utility
            best = sorted(complete, key=lambda trial: utility(trial.value or 0.0), reverse=True)
        # A fifth for the best, whatever their age; TPE needs both good points and recent ones.
        kept = {trial.number for trial in best[: KEPT // 5]}
        kept |= {trial.number for trial in done[len(kept) - KEPT :]}
        name, directions = self.study.study_name, self.study.directions
        self.study = optuna.create_study(
            storage=Means(self._means), directions=directions, study_name=name
        )
        self.study.add_trials([trial for trial in done if trial.number in kept])
        self._num_told = KEPT
