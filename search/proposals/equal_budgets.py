"""Equal budgets: a sampler of its own for each method, and the next trial for the one behind."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from search.proposals.dashboard_copy import OptunaLog
from search.proposals.sampled import Sampled
from search.proposals.source import LATER, Later, Outcome, Past, Proposal
from spaces.axes import label
from spaces.load import per_method, trials_per_method
from spaces.space import Space
from tcpa_core.record.events import Learned, Planned


@dataclass(slots=True)
class _Method:
    """One method chain and what it has got so far."""

    source: Sampled
    taken: int = 0
    seconds: list[float] = field(default_factory=list)
    """Of each trial that has ended; on a GPU its seconds, shared ones divided."""
    is_exhausted: bool = False

    def spent(self, by_time: bool) -> float:
        """Trials, or seconds with a guess for those that run."""
        if not by_time:
            return self.taken
        ended, total = len(self.seconds), math.fsum(self.seconds)  # in whatever order they ended
        return total + total / ended * (self.taken - ended) if ended else 0.0


class EqualBudgets:
    """Points of several methods, each with the same number of trials or of seconds.

    With `budget.trials` every method gets the same number of trials; without it, the method that
    has used the fewest seconds is next. Whenever the study ends, methods differ by at most the
    trials that run.
    """

    def __init__(
        self, space: Space, log: Path | None, name: str, learned: Sequence[Learned] = ()
    ) -> None:
        self._share = trials_per_method(space)
        spaces = per_method(space)
        copy = OptunaLog(log, space, [f"{name}/{chain}" for chain in spaces]) if log else None
        self._methods = {
            chain: _Method(Sampled(one, f"{name}/{chain}", copy, learned))
            for chain, one in spaces.items()
        }

    def propose(self, attempt: int) -> Proposal | Later | None:
        """The next configuration of the method that is behind; None when all have their share."""
        waiting: list[_Method] = []
        while left := [m for m in self._methods.values() if self._may_go_on(m)]:
            if not (left := [method for method in left if method not in waiting]):
                return LATER
            # Ties go to the method with fewer trials, so that each begins before one has two.
            by_time = self._share is None
            method = min(left, key=lambda m: (m.spent(by_time), m.taken))
            proposal = method.source.propose(attempt)
            if isinstance(proposal, Later):
                waiting.append(method)
                continue
            if proposal is not None:
                return proposal
            # A finite space of one method has an end; the others go on.
            method.is_exhausted = True
        return None

    def take(self, planned: Planned, proposal: Proposal) -> None:
        """Count a trial for its method."""
        method = self._of(planned)
        method.taken += 1
        method.source.take(planned, proposal)

    def tell(self, planned: Planned, outcome: Outcome) -> None:
        """Learn from a trial, and what it took."""
        method = self._of(planned)
        method.seconds.append(outcome.get("duration_s") or 0.0)
        method.source.tell(planned, outcome)

    def repeat(self, digest: str, proposal: Proposal, outcome: Outcome | None) -> None:
        """A configuration that was run before costs its method nothing."""
        self._methods[label(list(proposal.config.methods))].source.repeat(digest, proposal, outcome)

    def replay(self, past: Past) -> None:
        """Tell each method of its trials under an earlier driver."""
        for method in self._methods.values():
            mine = [(p, outcome) for p, outcome in past if self._of(p) is method]
            ended = [outcome for _, outcome in mine if outcome is not None]
            method.taken = len(mine)
            method.seconds = [outcome.get("duration_s") or 0.0 for outcome in ended]
            method.source.replay(mine)

    def close(self) -> None:
        """Finish writing the copies for optuna-dashboard."""
        for method in self._methods.values():
            method.source.close()

    def _may_go_on(self, method: _Method) -> bool:
        return not method.is_exhausted and (self._share is None or method.taken < self._share)

    def _of(self, planned: Planned) -> _Method:
        return self._methods[label(list(planned.config.methods))]
