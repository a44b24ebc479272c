"""What to run next: points sampled by Optuna, or an enumerated design.

Ray's `OptunaSearch` leaves trials with a nan running, tells stopped trials as complete and pickles
its state, so the study is driven through Optuna's `ask` and `tell` here. The study lives in memory;
a copy for optuna-dashboard is written to a journal file beside it.
"""

import hashlib
import json
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState

from search.planning.requested_space import check_sampler
from search.proposals.dashboard_copy import OptunaLog
from spaces.sections import Goal
from spaces.selection import has_completed
from spaces.space import Space
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.errors import RecordError
from tcpa_core.record.events import Planned

_FORGETFUL = ("random", "tpe")
"""Samplers for which trials that are neither good nor new may be left out."""

_LEAVES_MARKS = ("cmaes", "nsga2", "qmc")
"""Samplers that write on every trial, or the study, what they need for later ones. The others read
what they wrote on a trial while it runs."""

KEPT = 250
"""Trials that a forgetful sampler learns from, at least; at most twice as many. Its cost grows with
their number: TPE takes 8 ms with 300 trials, 20 with 1,000, 130 with 10,000 (8 parameters)."""

_DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

ASK_AGAIN = 8
"""Suggestions in a row that were all run before; then points are drawn at random."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration to run, if it was not run before."""

    config: TrialConfig
    origin: str
    cells: list[dict[str, Any]]
    draw: Flat
    asked: optuna.Trial | None = None
    """The Optuna trial of the point; the seeds of a point share it."""
    before: Sequence[str | Flat] | None = None
    """As of `Planned`."""


class Later(Enum):
    """Says that a source has to know how running trials end before it goes on."""

    LATER = "later"


LATER = Later.LATER


class Source(Protocol):
    """What proposes the trials of a study: `Sampled`, `Design`, `Race` or `Balanced`.

    Every proposal is followed by `take` if it is run, or by `repeat` if its digest was run before;
    each trial taken, also by an earlier driver (`replay`), is told once it has ended.
    """

    def propose(self, attempt: int) -> Proposal | Later | None: ...

    def take(self, planned: Planned, proposal: Proposal) -> None: ...

    def tell(self, planned: Planned, outcome: Mapping[str, Any]) -> None: ...

    def repeat(
        self, digest: str, proposal: Proposal, outcome: Mapping[str, Any] | None
    ) -> None: ...

    def replay(self, past: Sequence[tuple[Planned, Mapping[str, Any] | None]]) -> None: ...

    def close(self) -> None: ...


class Design:
    """Enumerated points of an ablation, in order."""

    def __init__(self, space: Space) -> None:
        self._points = deque(space.design())
        self._space = space

    def propose(self, attempt: int) -> Proposal | Later | None:
        """The next configuration; None when the design is complete."""
        if not self._points:
            return None
        point = self._points.popleft()
        cells = [cell.model_dump() for cell in point.cells]
        return Proposal(self._space.config(point.point, point.seed), "design", cells, {})

    def take(self, planned: Planned, proposal: Proposal) -> None:
        """Nothing to remember."""

    def tell(self, planned: Planned, outcome: Mapping[str, Any]) -> None:
        """A design does not learn."""

    def repeat(self, digest: str, proposal: Proposal, outcome: Mapping[str, Any] | None) -> None:
        """A point that was run by an earlier driver: nothing to do."""

    def replay(self, past: Sequence[tuple[Planned, Mapping[str, Any] | None]]) -> None:
        """Trials of an earlier driver are known by their digests."""

    def close(self) -> None:
        """Nothing to release."""


class Sampled:
    """Points suggested by Optuna; every point is run with all seeds of the space.

    Used by one thread at a time.

    Args:
        space: Its axes, sampler and first points.
        name: Of the Optuna study.
        log: Gets a copy of the finished points under that name.
    """

    def __init__(self, space: Space, name: str, log: OptunaLog | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        goals: list[Goal] = [objective.goal for objective in space.objective]
        self._study = optuna.create_study(
            directions=goals, sampler=make_sampler(space, 0), study_name=name
        )
        self._num_asked = 0
        self._num_told = 0
        """Trials that the study has learnt from."""
        self._first = deque(space.complete(point) for point in space.first_points)
        self._is_finite = space.size() is not None
        self._rest: Iterator[Flat] | None = None
        self._seen: set[str] = set()
        self._pending: deque[tuple[Flat, int, str, optuna.Trial]] = deque()
        self._of: dict[str, optuna.Trial] = {}
        self._twins: dict[str, list[optuna.Trial]] = {}
        self._open: dict[optuna.Trial, int] = {}
        self._values: dict[optuna.Trial, list[list[float]]] = {}
        self._last: dict[optuna.Trial, list[tuple[int, float]]] = {}
        self._before: list[str | Flat] = []
        """Of the next trial, see `Planned`."""
        self._log = log

    def propose(self, attempt: int) -> Proposal | None:
        """The next configuration: another seed of the current point, or a new point.

        Args:
            attempt: Proposals before this one that had been run already; after a few of them the
                sampler is not asked any more, but a point drawn at random.

        Returns:
            None when every point of the space was proposed.
        """
        if not self._pending:
            asked = self._ask(attempt)
            if asked is None:
                return None
            point, origin, trial = asked
            self._pending.extend(
                (point, seed, "replicate" if i else origin, trial)
                for i, seed in enumerate(self._space.seeds)
            )
        point, seed, origin, trial = self._pending.popleft()
        config = self._space.config(point, seed)
        return Proposal(config, origin, [], dict(trial.params), trial, self._before)

    def _ask(self, attempt: int) -> tuple[Flat, str, optuna.Trial] | None:
        is_grid = self._space.sampler.name == "grid"
        if self._first:
            return self._begin("first_point", self._space.params(self._first[0]))
        origin = "random" if attempt >= ASK_AGAIN and not is_grid else "sampler"
        if not self._is_finite or not (is_grid or origin == "random"):
            return self._begin(origin)
        point = next(self._unseen(), None)
        return None if point is None else self._begin(origin, self._space.params(point))

    def _begin(
        self, origin: str, draw: Flat | None = None, *, is_redrawn: bool = False
    ) -> tuple[Flat, str, optuna.Trial]:
        """Begin the next point. Its number and what is known decide it, not how often the driver
        was started: the sampler is made anew for every point.

        Args:
            origin: Who proposes it; "random": the sampler only repeats itself.
            draw: What it is; None: what the sampler draws.
            is_redrawn: Let the sampler draw all the same, and keep of it what it wants.
        """
        asks_it = origin != "random" and (draw is None or is_redrawn)
        name = self._space.sampler.name if asks_it else "random"
        self._study.sampler = make_sampler(self._space, self._num_asked, name)
        if origin == "first_point" and self._first:
            self._first.popleft()
        if draw is not None:
            self._study.enqueue_trial(draw)
        self._num_asked += 1
        trial = self._study.ask()
        trial.set_user_attr("number", self._num_asked)
        if is_redrawn:
            _ = trial.relative_params  # drawn when first asked for
        point = self._space.suggest(trial)
        if self._is_finite:  # elsewhere a point is hardly ever met again
            self._seen.add(_key(point))
        self._open[trial] = len(self._space.seeds)
        return point, origin, trial

    def _unseen(self) -> Iterator[Flat]:
        """Points of a finite space that were not proposed yet, in the order of the grid."""
        if self._rest is None:
            self._rest = self._space.points.grid()
        return (point for point in self._rest if _key(point) not in self._seen)

    def take(self, planned: Planned, proposal: Proposal) -> None:
        """Remember which Optuna trial a planned trial belongs to."""
        assert proposal.asked is not None
        self._of[planned.trial] = proposal.asked
        _name(proposal.asked, planned)
        self._before = []

    def tell(self, planned: Planned, outcome: Mapping[str, Any]) -> None:
        """Pass a finished trial on; a point with several seeds is told as the mean of its seeds.

        Pruned trials are told as pruned with their last value, failures as failed; a value that
        is not finite counts as a failure.
        """
        self._before.append(planned.trial)
        self._learn(self._of.pop(planned.trial), outcome)
        for twin in self._twins.pop(planned.digest, ()):
            self._learn(twin, outcome)

    def repeat(self, digest: str, proposal: Proposal, outcome: Mapping[str, Any] | None) -> None:
        """The proposal was run before: tell what is known of it instead of running it.

        Args:
            digest: Of the proposal.
            proposal: With its Optuna trial.
            outcome: Of the earlier trial; None while it still runs, then it is told in the end.
        """
        assert proposal.asked is not None
        if proposal.origin != "replicate":
            note = {"digest": digest, "draw": proposal.draw, "origin": proposal.origin}
            self._before.append(note)
        self._share(proposal.asked, digest, outcome)

    def _share(self, asked: optuna.Trial, digest: str, outcome: Mapping[str, Any] | None) -> None:
        """Let an Optuna trial learn from the trial of another one."""
        if outcome is None:
            self._twins.setdefault(digest, []).append(asked)
        else:
            self._learn(asked, outcome)

    def replay(self, past: Sequence[tuple[Planned, Mapping[str, Any] | None]]) -> None:
        """Go through the trials of earlier drivers, so that the sampler knows what it knew.

        Asking and telling are repeated in their order: some samplers keep on a trial what was
        known when it was drawn.

        Args:
            past: In their order, with their outcomes; None: not finished, will be told later.
        """
        _Replay(self, past).run()

    def close(self) -> None:
        """Finish writing the copy for optuna-dashboard."""
        if self._log is not None:
            self._log.close()

    def _learn(self, trial: optuna.Trial, outcome: Mapping[str, Any]) -> None:
        values = [outcome.get(o.metric) for o in self._space.objective]
        finite = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
        whole = len(finite) == len(values)
        if has_completed(outcome) and whole:
            self._values.setdefault(trial, []).append(finite)
        elif outcome.get("status") == "pruned" and whole:
            epoch = int(outcome.get("num_epochs") or 1)
            self._last.setdefault(trial, []).append((epoch, finite[0]))
        self._open[trial] -= 1
        if self._open[trial] == 0:
            self._tell_point(trial)

    def _tell_point(self, trial: optuna.Trial) -> None:
        values = self._values.pop(trial, [])
        last = self._last.pop(trial, [])
        del self._open[trial]
        if len(values) == len(self._space.seeds):
            mean = [math.fsum(column) / len(values) for column in zip(*values, strict=True)]
            told = trial.study.tell(trial, mean)
        elif last and len(self._space.objective) == 1:
            epoch = max(e for e, _ in last)
            trial.report(math.fsum(v for _, v in last) / len(last), epoch)
            told = trial.study.tell(trial, state=TrialState.PRUNED)
        else:
            told = trial.study.tell(trial, state=TrialState.FAIL)
        if self._log is not None:
            self._log.add(self._study.study_name, told)
        if trial.study is not self._study:
            self._study.add_trial(told)
        self._num_told += 1
        if self._num_told == 2 * KEPT and self._space.sampler.name in _FORGETFUL:
            self._forget()

    def _forget(self) -> None:
        """Go on with a new Optuna study that knows the best and the latest trials only.

        TPE weights trials by their age, so that those left out count least. Trials that run are
        told to the study that they were asked of, and added to the new one.
        """
        done = self._study.get_trials(deepcopy=False, states=_DONE)
        if len(self._space.objective) > 1:
            best = self._study.best_trials
        else:
            complete = [trial for trial in done if trial.state is TrialState.COMPLETE]
            utility = self._space.objective[0].utility
            best = sorted(complete, key=lambda trial: utility(trial.value or 0.0), reverse=True)
        kept = {trial.number for trial in best[: KEPT // 5]}
        kept |= {trial.number for trial in done[len(kept) - KEPT :]}
        name, directions = self._study.study_name, self._study.directions
        self._study = optuna.create_study(directions=directions, study_name=name)
        self._study.add_trials([trial for trial in done if trial.number in kept])
        self._num_told = KEPT


def _name(asked: optuna.Trial, planned: Planned) -> None:
    """Note our names on an Optuna trial, whose number is another: a point has several seeds."""
    asked.set_user_attr("point", planned.point)
    for key, value in (("trial", planned.trial), ("seed", str(planned.config.seed))):
        before = asked.user_attrs.get(key)
        asked.set_user_attr(key, f"{before}, {value}" if before else value)


class _Replay:
    """One pass of a `Sampled` through the trials of earlier drivers.

    Args:
        source: Fresh.
        past: As of `Sampled.replay`.
    """

    def __init__(
        self, source: Sampled, past: Sequence[tuple[Planned, Mapping[str, Any] | None]]
    ) -> None:
        self._source = source
        self._past = past
        self._untold = {p.trial: (p, outcome) for p, outcome in past if outcome is not None}
        self._live = {planned.point for planned, outcome in past if outcome is None}
        self._by_digest = {planned.digest: planned for planned, _ in past}
        self._of_point: dict[str, list[tuple[Planned, Mapping[str, Any] | None]]] = {}
        for planned, outcome in past:
            self._of_point.setdefault(planned.point, []).append((planned, outcome))
        self._asked: dict[str, tuple[Flat, optuna.Trial, list[int]]] = {}
        """By point: its settings, its Optuna trial and the seeds that were not planned yet."""

    def run(self) -> None:
        """Repeat all steps; what ended after the last trial was planned is told at the end."""
        source = self._source
        for planned, _ in self._past:
            for step in self._steps(planned):
                self._tell(step) if isinstance(step, str) else self._repeat(step)
            if planned.point not in self._asked:
                self._ask(planned)
            _, trial, seeds = self._asked[planned.point]
            seeds.remove(planned.config.seed)
            source._of[planned.trial] = trial
            _name(trial, planned)
            source._before = []
        for name in sorted(self._untold, key=lambda name: self._untold[name][1].get("n", 0)):
            self._tell(name)
        for point, trial, seeds in self._asked.values():
            source._pending.extend((point, seed, "replicate", trial) for seed in seeds)

    def _steps(self, planned: Planned) -> Sequence[str | Flat]:
        """What was met before a trial; where that is not recorded, all that has ended is told."""
        if planned.before is not None:
            return planned.before
        return [name for name in self._source._of if name in self._untold]

    def _tell(self, name: str) -> None:
        if name in self._untold:  # else told by a driver whose record of its end is lost
            self._source.tell(*self._untold.pop(name))

    def _ask(self, planned: Planned) -> None:
        source = self._source
        draw = _as_drawn(source._space, planned.config, planned.draw)
        point, _, trial = self._begin(planned.origin, draw, planned.point)
        self._asked[planned.point] = point, trial, list(source._space.seeds)

    def _begin(self, origin: str, draw: Flat, point: str) -> tuple[Flat, str, optuna.Trial]:
        name = self._source._space.sampler.name
        is_seen = name in _LEAVES_MARKS or (name != "grid" and point in self._live)
        is_redrawn = is_seen and origin not in ("first_point", "random")
        return self._source._begin(origin, draw, is_redrawn=is_redrawn)

    def _repeat(self, step: Flat) -> None:
        """Ask for a point that was run before, and let it share what is known of that."""
        source = self._source
        first = self._by_digest.get(step["digest"])
        if first is None:
            raise RecordError(
                f"a point that is recorded as a repeat of digest {step['digest']!r} repeats no "
                "trial of the journal; the journal was written by another version."
            )
        draw = _as_drawn(source._space, first.config, step["draw"])
        _, _, trial = self._begin(step["origin"], draw, first.point)
        for planned, outcome in self._of_point[first.point]:
            is_told = planned.trial not in self._untold
            source._share(trial, planned.digest, outcome if is_told else None)


def _as_drawn(space: Space, config: TrialConfig, draw: Flat) -> Flat:
    """What Optuna drew for a trial; a draw that another version read otherwise is replaced."""
    point = space.point_of(config)
    is_read_so = space.suggest(optuna.trial.FixedTrial(draw)) == point
    return draw if is_read_so else space.params(point)


def _key(point: Flat) -> str:
    return json.dumps(point, sort_keys=True)


def make_sampler(space: Space, number: int, name: str | None = None) -> optuna.samplers.BaseSampler:
    """The Optuna sampler that a space names.

    Args:
        space: Names and seeds it.
        number: Points proposed before: each number has a random stream of its own, so that no
            driver draws again what an earlier one drew.
        name: Another one than the space names.

    Raises:
        ConfigError: The sampler needs a package that is not installed.
    """
    key = f"{space.sampler.seed}/{number}".encode()
    seed = int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "little")
    samplers = optuna.samplers
    makers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "tpe": lambda: samplers.TPESampler(seed=seed, constant_liar=True),
        "random": lambda: samplers.RandomSampler(seed=seed),
        "qmc": lambda: samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
        "gp": lambda: samplers.GPSampler(seed=seed, warn_independent_sampling=False),
        "cmaes": lambda: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed),
        "grid": lambda: samplers.RandomSampler(seed=seed),  # never asked: points are enumerated
    }
    name = name or space.sampler.name
    check_sampler(name)
    with warnings.catch_warnings(action="ignore"):  # QMC calls itself experimental
        return makers[name]()
